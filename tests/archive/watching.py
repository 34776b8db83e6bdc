"""`python watching.py URL STATE LOG MOMENT`: a watch that hangs when it comes to a moment.

What it does is added to LOG; the test that started it kills it there.
"""

import sys
import time
from pathlib import Path

from archives import MODEL, Detector

from scrd.archive.orthanc import Orthanc
from scrd.archive.state import State
from scrd.archive.watch import stopping, watch


def main(url, state_file, log, moment):
    def reached(event):
        with open(log, "a") as f:
            f.write(f"{event}\n")
        if event == moment:
            time.sleep(1 if moment == "slow" else 60)

    class Watched(Orthanc):
        def store(self, key, files, models):
            others = super().store(key, files, models)
            reached("stored")
            return others

    class Kept(State):
        def record(self, **named):
            super().record(**named)
            if named.get("queue"):
                reached("recorded")

    def process(folder, uid):
        reached("processing")
        reached("slow")
        results = Detector(results=2)(folder, uid)
        reached(f"scored {uid}")
        return results

    with Kept(Path(state_file), name=url, model=MODEL) as state, stopping() as stop:
        watch(Watched(url), process, state, poll_seconds=0.1, once=moment == "never", stop=stop)


if __name__ == "__main__":
    main(*sys.argv[1:])

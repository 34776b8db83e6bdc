"""`python finishing.py STATE`: a process that does studies without end, to be killed."""

import sys
from pathlib import Path

from scrd.archive.pulse import Pulse
from scrd.archive.state import Arrival, State
from scrd.data.covariates import Covariates
from scrd.outputs.history import Found, Seen

TOLD = Covariates(256, 240, None, None, "DICOM", 0.1, 0.2, 0.3)


def main(path):
    with (
        State(Path(path), name="there", model="m") as state,
        Pulse(Path(path), model="m") as pulse,
    ):
        number = sum(state.counts.values())
        while True:
            number += 1
            state.record(queue=[Arrival(f"k{number}", f"1.2.{number}", "f")])
            job = state.claim()
            pulse.begin(job.key)
            seen = [Seen(f"{number}", i / 50, False, TOLD) for i in range(50)]
            state.finish(job.key, "done", found=Found(50, 0, 0.5, 0.5, seen), seconds=1.0)
            pulse.end()
            pulse.answered()
            pulse.beat()
            print(number, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

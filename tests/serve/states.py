"""State files as `scrd watch` leaves them."""

from scrd.archive.pulse import Pulse
from scrd.archive.state import Arrival, State
from scrd.dicom.uids import tag
from scrd.outputs.history import Found, Seen
from scrd.storage.known import read_known

UID = "1.2.826.0.1"
NAME = "Smith^Jane"


def write_state(path, model, scores=(), *, refused=(), failed=(), retried=(), dead=False):
    """Write, or go on with, the state of a watch of an archive that is called as the file.

    Args:
        path: to be written.
        model: folder of the model.
        scores: of the studies that it scored, flagged where they reach the threshold.
        refused: reasons, a study each.
        failed: likewise.
        retried: likewise, of studies that wait.
        dead: it was stopped; else it was killed a moment ago, which nobody can know.
    """
    known = read_known(model)
    with State(path, name=f"{path.name} archive", model=known.fingerprint) as state:

        def begin(number):
            uid = f"{UID}.{number}"
            state.record(queue=[Arrival(f"{NAME}{number}", uid, "f")])
            return state.claim().key

        for i, score in enumerate(scores, sum(state.counts.values())):
            flag = bool(score >= known.calibration.threshold)
            seen = [Seen(tag(f"{UID}.{i}"), float(score), flag, None)]
            found = Found(1, 0, float(score), 0.02 if flag else 0.5, seen)
            state.finish(begin(i), "done", flagged=flag, found=found, seconds=1.5)
        for outcome, reasons in (("refused", refused), ("failed", failed)):
            for i, reason in enumerate(reasons):
                state.finish(begin(f"{outcome}{i}"), outcome, reason=reason)
        for i, reason in enumerate(retried):
            state.retry(begin(f"retried{i}"), seconds=60, reason=reason)
        pulse = Pulse(path, model=known.fingerprint, model_folder=model)
        pulse.__enter__()
        pulse.answered()
        if not dead:
            pulse._tell = lambda **_: None
        pulse.__exit__(None, None, None)
    return path

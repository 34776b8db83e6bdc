"""What the log says of a study."""

from pathlib import Path

from scrd.commands.watch import in_words
from scrd.errors import ImageError
from scrd.outputs.score_folder import Summary
from scrd.scoring.verdicts import Verdict

FLAGGED = Verdict(1.23456, 0.012, True, 24, "calibrated")
NORMAL = Verdict(0.5, 0.75, False, 2, "bonferroni")


def summary(verdicts, failures=(), unwritten=(), doubted=0):
    told = (tuple(failures), (), tuple(unwritten))
    return Summary(26, 1, 2, 1, doubted, *told, verdicts=tuple(verdicts))


def test_one_study():
    assert in_words(summary([FLAGGED]), 0) == "flagged, score 1.23, p 0.012, 24 images"


def test_two_patients_and_all_that_went_wrong():
    lost = [ImageError(Path("Doe.dcm"), "truncated")] * 2
    said = in_words(summary([FLAGGED, NORMAL], lost, ["seg of series ab: so"], 3), 1)
    assert said == (
        "2 patients or studies under its UID, kept apart; "
        "flagged, score 1.23, p 0.012, 24 images; not flagged, score 0.5, p 0.75, 2 images; "
        "2 images without a score: truncated (2); 3 doubtful; 1 copies left out; "
        "1 objects not written: seg of series ab: so"
    )

"""A file that was left out as a copy has its row."""

import csv
from pathlib import Path
from types import SimpleNamespace

from scrd.data.series import Listing
from scrd.errors import ImageError
from scrd.outputs.score_folder import Outputs, score_all


def test_a_copy_has_a_row_with_its_reason(tmp_path):
    listing = Listing((), (), 0, (ImageError(Path("b.dcm"), "the same image as a.dcm"),))
    nobody = SimpleNamespace(fingerprint=None, calibration=SimpleNamespace(silence=None))
    score_all(nobody, listing, tmp_path, Outputs(overlays=False), results=[])
    with open(tmp_path / "warnings.csv", newline="") as file:
        assert list(csv.reader(file))[1:] == [["b.dcm", "the same image as a.dcm"]]

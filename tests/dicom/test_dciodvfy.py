"""What dciodvfy, the validator of Debian's dicom3tools, says of the objects: no error at all.

So no error is allowed for. What a source itself has against the standard in its patient's or
study's attributes stays in the objects as it is, and would be an error of theirs too.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pydicom
import pytest
from synthetic_dicom import (
    STUDY,
    KnownDetector,
    enhanced,
    projection,
    result,
    scored_study,
    slices,
    spots,
    stored,
    study,
)

from scrd.dicom.write import Unwritten, write_objects


def errors(path):
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not here: install dicom3tools")
    done = subprocess.run(
        ["dciodvfy", "-new", path], capture_output=True, text=True, errors="replace", check=False
    )
    lines = (done.stdout + done.stderr).splitlines()
    assert lines, "it names at least the kind of object"
    return [line for line in lines if line.startswith("Error")]


def validated(folder, found, detector):
    outcomes = write_objects(folder / "out", found, detector, ["sr", "seg", "sc", "pm", "fseg"])
    kinds = set()
    for outcome in outcomes:
        if isinstance(outcome, Unwritten):
            assert outcome.reason == "written for CT and MR only"
        else:
            assert errors(outcome.path) == [], outcome.kind
            kinds.add(outcome.kind)
    return kinds


def test_the_validator_finds_errors(tmp_path):
    found, detector = scored_study(tmp_path, [projection()])
    (outcome,) = write_objects(tmp_path, found, detector, ["seg"])
    dataset = pydicom.dcmread(outcome.path)
    del dataset.SegmentSequence[0].SegmentAlgorithmType
    dataset.save_as(outcome.path)
    assert any("SegmentAlgorithmType" in line for line in errors(outcome.path))


@pytest.mark.parametrize("modality", ["DX", "CR"])
def test_projections(tmp_path, modality):
    datasets = [projection(i, modality=modality) for i in range(2)]
    found, detector = scored_study(tmp_path, datasets, doubts=("one",), problems=("other",))
    assert validated(tmp_path, found, detector) == {"sr", "seg", "sc"}


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_volumes(tmp_path, modality):
    datasets = list(slices(12, modality=modality, orientation=(0, 1, 0, 0, 0, -1)))
    found, detector = scored_study(tmp_path, datasets, empty=(1, 2))
    assert validated(tmp_path, found, detector) == {"sr", "seg", "sc", "pm", "fseg"}


def test_a_multi_frame_file(tmp_path):
    found, detector = scored_study(tmp_path, [enhanced(5)])
    assert validated(tmp_path, found, detector) == {"sr", "seg", "sc", "pm", "fseg"}


def test_two_series(tmp_path):
    first = stored(tmp_path / "a", [projection()])
    second = stored(tmp_path / "b", list(slices(3)))
    maps = spots([*first, *second])
    found = study(result("1.2.3.1", first, maps), result("1.2.3.2", second, maps))
    assert validated(tmp_path, found, KnownDetector(maps)) == {"sr", "seg", "sc", "pm", "fseg"}


def test_a_real_radiograph(tmp_path):
    """An 8-bit JPEG in a secondary capture, without orientation and compression ratio."""
    folder = Path(os.environ.get("SCRD_DATA", Path(__file__).parents[3] / "shared" / "data"))
    paths = sorted((folder / "rsna-cxr" / "dicom").glob("*.dcm"))
    if not paths:
        pytest.skip("the RSNA radiographs are not here: set SCRD_DATA")
    for path in paths:
        source = pydicom.dcmread(path)
        maps = spots([(path, None)], (source.Rows, source.Columns))
        uid = source.StudyInstanceUID
        one = result(source.SeriesInstanceUID, [(path, None)], maps, study=uid)
        found = study(one, uid=uid)
        assert uid != STUDY
        folder = tmp_path / path.stem
        assert validated(folder, found, KnownDetector(maps)) == {"sr", "seg", "sc"}
        for made in (folder / "out").glob("s[ce]*.dcm"):
            dataset = pydicom.dcmread(made)
            assert dataset.StudyInstanceUID == uid
            assert dataset.LossyImageCompression == "01"
            assert float(dataset.LossyImageCompressionRatio) > 1
            assert dataset.PatientOrientation == ["L", "F"]

import numpy as np
import pytest

from scrd.data.record import Record
from scrd.data.series import list_sources
from scrd.evaluation.localise import localise
from synthetic_volumes import COLUMNS, ROWS, SLICES, head, write_nifti

LESION = np.zeros((SLICES, ROWS, COLUMNS), np.float32)
LESION[3:6, 10:20, 5:30] = 1


@pytest.fixture
def records(tmp_path):
    """The slices of one abnormal volume, whose mask is beside it."""
    write_nifti(tmp_path / "head.nii.gz", head(0))
    return [
        Record(
            s.path,
            str(s),
            1,
            "x",
            "test",
            mask=tmp_path / "mask.nii.gz",
            frame=s.frame,
            series=s.series,
        )
        for s in list_sources([tmp_path / "head.nii.gz"]).sources
    ]


def located(records):
    noise = np.random.default_rng(0).random(LESION.shape, np.float32)
    return localise(records, [(ROWS, COLUMNS)] * SLICES, lambda i: LESION[i] + noise[i] / 2)


def test_slices_beside_the_lesion_count_as_free_of_it(records, tmp_path):
    write_nifti(tmp_path / "mask.nii.gz", LESION)
    found = located(records)
    assert found.failures == found.doubts == ()
    assert found.figures["n_images"] == 3
    assert found.figures["pixel_auroc"] == found.figures["pointing_hit_rate"] == 1


def test_all_slices_say_once_what_is_wrong_with_their_mask(records, tmp_path):
    write_nifti(tmp_path / "mask.nii.gz", LESION[..., ::-1] * np.arange(SLICES)[:, None, None])
    found = located(records)
    (doubt,) = found.doubts
    assert doubt.path.name == "mask.nii.gz"
    assert "3 labels" in doubt.reason
    assert found.figures["pixel_auroc"] < 1
    write_nifti(tmp_path / "mask.nii.gz", LESION[..., 1:])
    found = located(records)
    assert found.figures == {}
    (failure,) = found.failures
    assert "a part of it only" in failure.reason

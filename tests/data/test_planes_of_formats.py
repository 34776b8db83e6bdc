"""One image as NIfTI and as a DICOM series: the same slices, planes, spacings and places."""

import nibabel as nib
import numpy as np
import pydicom
import pytest

from scrd.data.reading import read_image, read_info
from scrd.data.series import list_sources
from synthetic_volumes import ORIGIN, SLICES, SPACING, head, write_dicom

TURN = np.deg2rad(15)
TILTED = [1, 0, 0, 0, np.cos(TURN), np.sin(TURN)]


@pytest.mark.parametrize("order", ["plain", "canonical", "ASR"])
@pytest.mark.parametrize(
    ("plane", "orientation", "step"),
    [
        ("axial", [1, 0, 0, 0, 1, 0], [0, 0, 4]),
        ("coronal", [1, 0, 0, 0, 0, -1], [0, 4, 0]),
        ("sagittal", [0, 1, 0, 0, 0, -1], [-4, 0, 0]),
        ("axial", TILTED, [0, 0, 4]),  # a tilted gantry: the slices are sheared
        ("axial", TILTED, [0, -4 * np.sin(TURN), 4 * np.cos(TURN)]),  # oblique
    ],
)
def test_nifti_and_dicom_agree(tmp_path, plane, orientation, step, order):
    volume = head(0)
    write_dicom(tmp_path / "series", volume, 0)
    for path in (tmp_path / "series").iterdir():
        dataset = pydicom.dcmread(path)
        k = round((dataset.ImagePositionPatient[2] - ORIGIN[2]) / SPACING[2])
        dataset.ImageOrientationPatient = orientation
        dataset.ImagePositionPatient = list(np.add(ORIGIN, np.multiply(k, step)))
        dataset.save_as(path)
    affine = np.eye(4)
    affine[:3, 0] = np.multiply(SPACING[0], orientation[:3])
    affine[:3, 1] = np.multiply(SPACING[1], orientation[3:])
    affine[:3, 2], affine[:3, 3] = step, ORIGIN
    image = nib.Nifti1Image(volume.transpose(2, 1, 0), np.diag([-1, -1, 1, 1]) @ affine)
    if order == "canonical":
        image = nib.as_closest_canonical(image)
    elif order != "plain":
        wanted = nib.orientations.axcodes2ornt(tuple(order))
        own = nib.io_orientation(image.affine)
        image = image.as_reoriented(nib.orientations.ornt_transform(own, wanted))
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine), tmp_path / "head.nii.gz")

    series = list_sources([tmp_path / "series"]).sources
    slices = list_sources([tmp_path / "head.nii.gz"]).sources
    assert len(series) == len(slices) == SLICES
    assert series[0].series.problems == slices[0].series.problems == ()
    np.testing.assert_allclose(slices[0].series.affine, series[0].series.affine, atol=1e-4)
    for one, other in zip(series, slices, strict=True):
        np.testing.assert_array_equal(read_image(one), read_image(other))
        assert read_info(one).plane == read_info(other).plane == plane
        np.testing.assert_allclose(read_info(one).spacing, read_info(other).spacing, rtol=1e-5)

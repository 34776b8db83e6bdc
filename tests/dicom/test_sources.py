import logging
import warnings

import pydicom
import pytest
from synthetic_dicom import BIRTH, NAME, enhanced, projection, save, slices

from scrd.dicom.sources import Unwritable, changed, disguised, read_header, silence


def test_what_goes_into_an_object_holds_nothing_of_the_patient(tmp_path):
    header = read_header(save(projection(), tmp_path / "a.dcm"))
    text = str(header.dataset)
    assert NAME not in text and BIRTH not in text and "20240229" not in text
    assert "4711" not in text and "A1" not in text
    assert header.dataset.PatientName == ""
    assert header.identity.PatientName == NAME
    assert header.identity.PatientBirthDate == BIRTH


def test_a_frame_of_reference_is_made_up_where_positions_lack_one(tmp_path):
    datasets = list(slices(2))
    for dataset in datasets:
        del dataset.FrameOfReferenceUID
    headers = [read_header(save(d, tmp_path / f"{i}.dcm")) for i, d in enumerate(datasets)]
    assert headers[0].dataset.FrameOfReferenceUID == headers[1].dataset.FrameOfReferenceUID
    assert headers[0].plane


def test_half_a_plane_is_none(tmp_path):
    dataset = next(slices(1))
    del dataset.ImageOrientationPatient
    header = read_header(save(dataset, tmp_path / "a.dcm"))
    assert not header.plane and header.projection
    assert "ImagePositionPatient" not in header.dataset


def test_geometry_that_every_frame_repeats_is_shared(tmp_path):
    dataset = enhanced()
    shared = dataset.SharedFunctionalGroupsSequence[0]
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        frame.PlaneOrientationSequence = shared.PlaneOrientationSequence
        frame.PixelMeasuresSequence = shared.PixelMeasuresSequence
    del dataset.SharedFunctionalGroupsSequence
    found = read_header(save(dataset, tmp_path / "a.dcm")).dataset.SharedFunctionalGroupsSequence[0]
    assert found.PixelMeasuresSequence[0].PixelSpacing == [0.8, 0.9]
    assert found.PlaneOrientationSequence[0].ImageOrientationPatient == [1, 0, 0, 0, 1, 0]


def test_lossy_compression_is_told_where_the_header_does_not(tmp_path):
    dataset = projection()
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
    dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
    path = save(dataset, tmp_path / "a.dcm")
    header = read_header(path).dataset
    assert header.LossyImageCompression == "01"
    assert header.LossyImageCompressionMethod == "ISO_10918_1"
    expected = 24 * 20 / path.stat().st_size
    assert float(header.LossyImageCompressionRatio) == pytest.approx(expected, rel=0.01)


def test_a_header_without_uid_and_a_file_that_is_gone(tmp_path):
    dataset = projection()
    del dataset.SeriesInstanceUID
    with pytest.raises(Unwritable, match="^a header lacks SeriesInstanceUID$"):
        read_header(save(dataset, tmp_path / "a.dcm"))
    with pytest.raises(Unwritable, match="FileNotFoundError"):
        read_header(tmp_path / "b.dcm")


def test_a_changed_copy_leaves_the_original(tmp_path):
    header = read_header(save(projection(), tmp_path / "a.dcm")).dataset
    before = str(header)
    other = changed(header, Rows=7, Columns=None)
    assert other.Rows == 7 and "Columns" not in other
    assert disguised(header).SOPClassUID == pydicom.uid.SecondaryCaptureImageStorage
    assert str(header) == before


def test_silence_ends(capsys, caplog):
    logger = logging.getLogger("highdicom")  # the readers silence that of pydicom for good
    with silence():
        warnings.warn("quoted value", stacklevel=1)
        logger.error("quoted value")
    assert "quoted value" not in capsys.readouterr().err + caplog.text
    logger.error("heard again")
    assert "heard again" in caplog.text

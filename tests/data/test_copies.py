"""Files under one SOP Instance UID are compared before one of them is called a copy."""

import os
import shutil

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RLELossless

from scrd.data.series import list_sources

PIXELS = np.arange(64, dtype=np.uint16).reshape(8, 8)


def write(path, pixels=PIXELS, **changes):
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, "1.2.3"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.4", "1.5"
    dataset.Modality, dataset.PatientID, dataset.InstanceNumber = "CT", "P1", 1
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation, dataset.SamplesPerPixel = 0, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.ImagePositionPatient = [0, 0, 0]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing = [1, 1]
    dataset.PixelData = pixels.tobytes()
    for name, value in changes.items():
        setattr(dataset, name, value)
    path.parent.mkdir(exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def names(listing):
    return sorted(s.path.name for s in listing.sources)


def test_equal_bytes_are_a_copy_that_is_named(tmp_path):
    first = write(tmp_path / "a.dcm")
    shutil.copy(first, tmp_path / "b.dcm")
    listing = list_sources([tmp_path])
    assert names(listing) == ["a.dcm"]
    [copy] = listing.copies
    assert copy.path == tmp_path / "b.dcm"
    assert copy.reason == f"the same image as {first}; it is used once"


def test_another_compression_of_the_same_values_is_a_copy(tmp_path):
    dataset = pydicom.dcmread(write(tmp_path / "a.dcm"))
    dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.save_as(tmp_path / "b.dcm")
    listing = list_sources([tmp_path])
    assert (names(listing), len(listing.copies)) == (["a.dcm"], 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"pixels": PIXELS[::-1]},
        {"ImagePositionPatient": [0, 0, 5]},
        {"InstanceNumber": 2},
        {"RescaleIntercept": 0},
        {"PixelSpacing": [2, 2]},
        {"PatientID": "p1"},
        {"IssuerOfPatientID": "elsewhere"},
        {"SeriesInstanceUID": "1.55"},
        {"StudyInstanceUID": "1.44"},
    ],
)
def test_what_differs_in_values_place_or_patient_is_no_copy(tmp_path, changes):
    write(tmp_path / "a.dcm")
    write(tmp_path / "b.dcm", **changes)
    listing = list_sources([tmp_path])
    assert (names(listing), listing.copies) == (["a.dcm", "b.dcm"], ())
    places = [source.series.places for source in listing.sources]
    together = changes.keys() <= {"pixels", "ImagePositionPatient", "InstanceNumber",
                                  "RescaleIntercept", "PixelSpacing"}  # fmt: skip
    assert (places[0] == places[1]) == together
    if together:
        assert any("SOP Instance UID" in p for p in listing.sources[0].series.problems)


def test_a_copy_that_cannot_be_decoded_is_kept_for_its_error(tmp_path):
    whole = write(tmp_path / "a.dcm").read_bytes()
    (tmp_path / "b.dcm").write_bytes(whole[:-20])
    listing = list_sources([tmp_path])
    assert names(listing) == ["a.dcm", "b.dcm"]


def test_one_file_by_two_paths_is_used_once(tmp_path):
    given = write(tmp_path / "in" / "a.dcm", SOPInstanceUID="")
    link = tmp_path / "link.dcm"
    link.symlink_to(given)
    again = tmp_path / "in" / ".." / "in" / "a.dcm"
    listing = list_sources([given, link, again, given])
    assert len(listing.sources) == 1
    assert {os.path.realpath(copy.path) for copy in listing.copies} == {str(given)}
    assert len(listing.copies) == 3


def test_patients_without_id_are_told_apart_by_name_and_birth(tmp_path):
    for i, (name, birth) in enumerate([("Doe^J", "19500101"), ("Roe^J", "19500101"), ("", "")]):
        write(tmp_path / f"{i}.dcm", PatientID="", PatientName=name, PatientBirthDate=birth,
              SOPInstanceUID=f"1.2.{i}")  # fmt: skip
    write(tmp_path / "3.dcm", PatientID=" P1 ", SOPInstanceUID="1.2.8")
    write(tmp_path / "4.dcm", PatientID="P1", SOPInstanceUID="1.2.9", InstanceNumber=2)
    listing = list_sources([tmp_path])
    studies = {}
    for source in listing.sources:
        studies.setdefault(source.series.study, []).append(source.path.stem)
    assert sorted(studies.values()) == [["0"], ["1"], ["2"], ["3", "4"]]
    assert not any(word in str([*studies]) for word in ("Doe", "Roe", "1950", "P1"))

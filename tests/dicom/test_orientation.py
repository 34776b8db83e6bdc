import pytest
from pydicom.dataset import Dataset

from scrd.dicom.orientation import laterality, patient_orientation


def header(**values):
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


@pytest.mark.parametrize(
    ("cosines", "expected"),
    [
        ([1, 0, 0, 0, 1, 0], ("L", "P")),  # axial, as PS3.3 C.7.6.1.1.1 has it
        ([1, 0, 0, 0, 0, -1], ("L", "F")),  # coronal
        ([0, 1, 0, 0, 0, -1], ("P", "F")),  # sagittal
        ([-1, 0, 0, 0, -1, 0], ("R", "A")),
        ([0.866, 0.5, 0, 0, 0, -1], ("LP", "F")),
        ([0.995, 0.0995, 0, -0.0995, 0.995, 0], ("L", "P")),  # 6° off
    ],
)
def test_orientation_from_cosines(cosines, expected):
    assert patient_orientation(header(ImageOrientationPatient=cosines)) == expected


def test_orientation_of_a_multi_frame_file():
    plane, shared = Dataset(), Dataset()
    plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PlaneOrientationSequence = [plane]
    assert patient_orientation(header(SharedFunctionalGroupsSequence=[shared])) == ("L", "P")


def test_what_the_header_says_comes_first():
    said = header(PatientOrientation=["R", "F"], ViewPosition="PA", BodyPartExamined="CHEST")
    assert patient_orientation(said) == ("R", "F")


def test_frontal_views_of_the_trunk_only():
    assert patient_orientation(header(ViewPosition="AP", BodyPartExamined="CHEST")) == ("L", "F")
    assert patient_orientation(header(ViewPosition="PA", BodyPartExamined="HAND")) is None
    assert patient_orientation(header(ViewPosition="LL", BodyPartExamined="CHEST")) is None
    assert patient_orientation(header(PatientOrientation="")) is None


def test_laterality():
    assert laterality(header(Laterality="R")) == "R"
    assert laterality(header(Laterality="L", ImageLaterality="R")) == "R"
    assert laterality(header(Laterality="B")) == ""
    assert laterality(header()) == ""

import numpy as np
import pydicom
import pytest
from synthetic_dicom import enhanced, projection, scored_study, slices

from scrd.dicom.write import write_objects


@pytest.mark.parametrize("multi_frame", [False, True])
def test_values_land_on_the_source_voxels_unchanged(tmp_path, multi_frame):
    datasets = [enhanced(4)] if multi_frame else list(slices(4, modality="MR"))
    found, detector = scored_study(tmp_path, datasets)
    (outcome,) = write_objects(tmp_path, found, detector, ["pm"])
    dataset = pydicom.dcmread(outcome.path)
    values = np.frombuffer(dataset.FloatPixelData, "<f4").reshape(4, 24, 20)
    expected = list(detector.maps.values())
    for group, frame in zip(dataset.PerFrameFunctionalGroupsSequence, values, strict=True):
        (source,) = group.DerivationImageSequence[0].SourceImageSequence
        uid = source.ReferencedSOPInstanceUID
        i = source.ReferencedFrameNumber if multi_frame else int(uid.rsplit(".", 1)[1])
        np.testing.assert_array_equal(frame, expected[i - 1])
        assert float(group.PlanePositionSequence[0].ImagePositionPatient[2]) == pytest.approx(
            2.5 * (i - 1) + (0 if multi_frame else 30)
        )


def test_a_value_means_itself(tmp_path):
    found, detector = scored_study(tmp_path, list(slices(3)))
    (outcome,) = write_objects(tmp_path, found, detector, ["pm"])
    shared = pydicom.dcmread(outcome.path).SharedFunctionalGroupsSequence[0]
    (mapping,) = shared.RealWorldValueMappingSequence
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)
    pixels = np.frombuffer(pydicom.dcmread(outcome.path).FloatPixelData, dtype=np.float32)
    assert mapping.DoubleFloatRealWorldValueFirstValueMapped == pytest.approx(pixels.min())
    assert mapping.DoubleFloatRealWorldValueLastValueMapped >= pixels.max()
    (unit,) = mapping.MeasurementUnitsCodeSequence
    assert (unit.CodeValue, unit.CodingSchemeDesignator) == ("1", "UCUM")
    (window,) = shared.FrameVOILUTSequence
    low, high = detector.calibration.map_scale
    assert float(window.WindowCenter) == pytest.approx((low + high) / 2)
    assert float(window.WindowWidth) == pytest.approx(high - low)


def test_a_projection_has_none(tmp_path):
    found, detector = scored_study(tmp_path, [projection()])
    (outcome,) = write_objects(tmp_path, found, detector, ["pm"])
    assert outcome.reason == "written for CT and MR only"


def test_slices_without_a_place_are_named_once(tmp_path):
    datasets = list(slices(3))
    for dataset in datasets:
        del dataset.ImagePositionPatient
    found, detector = scored_study(tmp_path, datasets)
    (outcome,) = write_objects(tmp_path, found, detector, ["pm"])
    assert outcome.reason == "an image of the series has no place in the patient"

import numpy as np
import pydicom
import pytest
from highdicom.seg import segread
from synthetic_dicom import (
    SIZE,
    THRESHOLD,
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

from scrd.dicom.write import Unwritten, Written, write_objects


def masks(detector):
    return [values > THRESHOLD for values in detector.maps.values()]


def frames(path):
    """What any reader finds: source, number in it, place and pixels of each frame."""
    dataset = pydicom.dcmread(path)
    pixels = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    for group, mask in zip(dataset.PerFrameFunctionalGroupsSequence, pixels, strict=True):
        (source,) = group.DerivationImageSequence[0].SourceImageSequence
        place = group.get("PlanePositionSequence")
        yield (
            source.ReferencedSOPInstanceUID,
            source.get("ReferencedFrameNumber"),
            None if place is None else [float(x) for x in place[0].ImagePositionPatient],
            mask,
        )


@pytest.mark.parametrize(
    ("modality", "orientation"),
    [("CT", (1, 0, 0, 0, 1, 0)), ("MR", (0, 1, 0, 0, 0, -1)), ("MR", (0.6, 0.8, 0, 0, 0, -1))],
)
def test_a_volume_lands_on_its_source_voxels(tmp_path, modality, orientation):
    datasets = list(slices(5, modality=modality, orientation=orientation))
    # the files come in another order than that of their positions
    datasets = [datasets[i] for i in (3, 0, 4, 1, 2)]
    found, detector = scored_study(tmp_path, datasets, empty=(2,))
    (outcome,) = write_objects(tmp_path, found, detector, ["seg"])
    expected = dict(zip((d.SOPInstanceUID for d in datasets), masks(detector), strict=True))
    places = {d.SOPInstanceUID: [float(x) for x in d.ImagePositionPatient] for d in datasets}
    seen = set()
    for uid, number, place, mask in frames(outcome.path):
        np.testing.assert_array_equal(mask, expected[uid])
        np.testing.assert_allclose(place, places[uid], atol=1e-9)
        assert number is None
        seen.add(uid)
    assert seen == set(expected) - {datasets[2].SOPInstanceUID}  # which has no anomaly

    seg = segread(outcome.path)
    read = seg.get_pixels_by_source_instance(list(expected), assert_missing_frames_are_empty=True)
    np.testing.assert_array_equal(read[..., 0].astype(bool), np.stack(list(expected.values())))
    shared = seg.SharedFunctionalGroupsSequence[0]
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == list(orientation)
    assert shared.PixelMeasuresSequence[0].PixelSpacing == [0.8, 0.9]
    assert seg.FrameOfReferenceUID == datasets[0].FrameOfReferenceUID


def test_a_multi_frame_file(tmp_path):
    found, detector = scored_study(tmp_path, [enhanced(4)], empty=(1,))
    (outcome,) = write_objects(tmp_path, found, detector, ["seg"])
    expected = dict(enumerate(masks(detector), 1))
    seen = []
    for uid, number, place, mask in frames(outcome.path):
        assert uid == "1.2.3.4.1"
        assert place == [-10, -20, 2.5 * (number - 1)]
        np.testing.assert_array_equal(mask, expected[number])
        seen.append(number)
    assert sorted(seen) == [1, 3, 4]  # the writer orders frames by position


def test_a_multi_frame_file_of_one_frame(tmp_path):
    found, detector = scored_study(tmp_path, [enhanced(1)])
    (outcome,) = write_objects(tmp_path, found, detector, ["seg"])
    ((uid, _, place, mask),) = frames(outcome.path)
    assert (uid, place) == ("1.2.3.4.1", [-10, -20, 0])
    np.testing.assert_array_equal(mask, masks(detector)[0])


def test_frames_of_one_place_are_refused(tmp_path):
    dataset = enhanced(3)
    first, second, _ = dataset.PerFrameFunctionalGroupsSequence
    second.PlanePositionSequence = first.PlanePositionSequence
    found, detector = scored_study(tmp_path, [dataset])
    (outcome,) = write_objects(tmp_path, found, detector, ["seg"])
    assert outcome.reason == "several frames of the file lie in one place"


def test_frames_without_a_score_are_left_out(tmp_path):
    places = stored(tmp_path, [enhanced(4)])[1:3]
    detector = KnownDetector(spots(places))
    found = study(result("1.2.3.4", places, detector.maps))
    seg, pm = write_objects(tmp_path, found, detector, ["seg", "pm"])
    assert sorted(number for _, number, _, _ in frames(seg.path)) == [2, 3]
    assert pm.reason == "2 of the file's 4 frames have no score"


def test_each_projection_image_has_its_own(tmp_path):
    datasets = [projection(i) for i in range(3)]
    found, detector = scored_study(tmp_path, datasets, empty=(1,))
    outcomes = write_objects(tmp_path, found, detector, ["seg"])
    assert all(isinstance(o, Written) for o in outcomes) and len(outcomes) == 2
    for outcome, i in zip(outcomes, (0, 2), strict=True):
        ((uid, number, place, mask),) = frames(outcome.path)
        assert (uid, number, place) == (datasets[i].SOPInstanceUID, None, None)
        np.testing.assert_array_equal(mask, masks(detector)[i])
        dataset = pydicom.dcmread(outcome.path)
        (series,) = dataset.ReferencedSeriesSequence
        (instance,) = series.ReferencedInstanceSequence
        assert instance.ReferencedSOPClassUID == datasets[i].SOPClassUID
        assert dataset.PatientOrientation == ["L", "F"]
        assert "FrameOfReferenceUID" not in dataset
    series = {pydicom.dcmread(o.path).SeriesInstanceUID for o in outcomes}
    assert len(series) == 1


@pytest.mark.parametrize(
    "sop_class",
    [
        "1.2.840.10008.5.1.4.1.1.3.1",  # ultrasound, multi-frame
        "1.2.840.10008.5.1.4.1.1.12.1",  # X-ray angiography
        "1.2.840.10008.5.1.4.1.1.3",  # retired
        "1.3.6.1.4.1.99999.1",  # somebody's own
    ],
)
def test_frames_of_a_film_without_geometry(tmp_path, sop_class):
    dataset = enhanced(3)
    del dataset.SharedFunctionalGroupsSequence, dataset.PerFrameFunctionalGroupsSequence
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.Modality = "XA"
    found, detector = scored_study(tmp_path, [dataset], empty=(0,))
    outcomes = write_objects(tmp_path, found, detector, ["seg"])
    for outcome, number in zip(outcomes, (2, 3), strict=True):
        ((uid, frame, _, mask),) = frames(outcome.path)
        assert (uid, frame) == ("1.2.3.4.1", number)
        np.testing.assert_array_equal(mask, masks(detector)[number - 1])
        group = pydicom.dcmread(outcome.path).PerFrameFunctionalGroupsSequence[0]
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        assert source.ReferencedSOPClassUID == sop_class


def test_images_in_one_place_are_kept_apart(tmp_path):
    datasets = [*slices(3), *slices(3)]
    for i, dataset in enumerate(datasets[3:]):
        dataset.SOPInstanceUID = f"1.2.3.2.10{i}"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    found, detector = scored_study(tmp_path, datasets)
    outcomes = write_objects(tmp_path, found, detector, ["seg"])
    sources = [{uid for uid, *_ in frames(o.path)} for o in outcomes]
    assert sources == [{d.SOPInstanceUID for d in datasets[i : i + 3]} for i in (0, 3)]


def test_an_orientation_that_trembles_is_one(tmp_path):
    datasets = list(slices(3))
    datasets[1].ImageOrientationPatient = [1, 1e-6, 0, 0, 1, 0]
    found, detector = scored_study(tmp_path, datasets)
    (outcome,) = write_objects(tmp_path, found, detector, ["seg"])
    assert len(list(frames(outcome.path))) == 3


def test_no_anomaly_no_object(tmp_path):
    found, detector = scored_study(tmp_path, [projection()], empty=(0,))
    assert write_objects(tmp_path / "out", found, detector, ["seg"]) == []
    assert not list((tmp_path / "out").iterdir())


def test_the_threshold_itself_is_not_above_it(tmp_path):
    found, detector = scored_study(tmp_path, [projection()])
    ((place, values),) = detector.maps.items()
    values[:] = THRESHOLD
    values[0, 0] = np.nextafter(np.float32(THRESHOLD), np.float32(1))
    (outcome,) = write_objects(tmp_path, found, detector, ["seg"])
    ((_, _, _, mask),) = frames(outcome.path)
    assert mask.sum() == 1 and mask[0, 0] == 1


def test_a_map_of_another_size_is_refused(tmp_path):
    found, detector = scored_study(tmp_path, [projection()])
    detector.maps = {place: np.ones((5, 5), np.float32) for place in detector.maps}
    (outcome,) = write_objects(tmp_path, found, detector, ["seg"])
    assert isinstance(outcome, Unwritten) and "size" in outcome.reason


def test_what_the_segment_is(tmp_path):
    found, detector = scored_study(tmp_path, [projection()])
    (outcome,) = write_objects(tmp_path, found, detector, ["seg"])
    dataset = pydicom.dcmread(outcome.path)
    assert dataset.SegmentationType == "BINARY"
    (segment,) = dataset.SegmentSequence
    assert segment.SegmentAlgorithmType == "AUTOMATIC"
    for sequence in ("SegmentedPropertyCategoryCodeSequence", "SegmentedPropertyTypeCodeSequence"):
        code = segment[sequence].value[0]
        assert (code.CodeValue, code.CodingSchemeDesignator) == ("49755003", "SCT")
    algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmName == "scrd"
    assert detector.fingerprint in algorithm.AlgorithmParameters


def test_a_fractional_one_holds_the_colour_scale(tmp_path):
    datasets = list(slices(3))
    found, detector = scored_study(tmp_path, datasets)
    (outcome,) = write_objects(tmp_path, found, detector, ["fseg"])
    low, high = detector.calibration.map_scale
    seen = {uid: mask for uid, _, _, mask in frames(outcome.path)}
    for dataset, values in zip(datasets, detector.maps.values(), strict=True):
        expected = np.clip((values - low) / (high - low), 0, 1) * 255
        np.testing.assert_allclose(seen[dataset.SOPInstanceUID], expected, atol=0.51)
    assert pydicom.dcmread(outcome.path).SegmentationType == "FRACTIONAL"
    assert seen[datasets[0].SOPInstanceUID].shape == SIZE


def test_fractional_ones_are_of_ct_and_mr(tmp_path):
    found, detector = scored_study(tmp_path, [projection()])
    (outcome,) = write_objects(tmp_path, found, detector, ["fseg"])
    assert outcome.reason == "written for CT and MR only"

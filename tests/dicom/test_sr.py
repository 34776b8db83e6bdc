import dataclasses

import numpy as np
import pydicom
import pytest
from highdicom.sr import srread
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

from scrd import __version__
from scrd.dicom.codes import FLAG, IMAGES, LEVEL, P_VALUE, POOLING, SCHEME, SCORE
from scrd.dicom.write import Unwritten, write_objects
from scrd.errors import ImageError
from scrd.scoring.verdicts import SeriesResult, StudyResult

# scores that a decimal string of 16 characters cannot hold
SCORES = [1 / 7, 100 / 3, -2 / 3e5, 1e-17 / 3, 2.5]


def written(folder, found, detector):
    (outcome,) = write_objects(folder, found, detector, ["sr"])
    return outcome.path


def groups(path):
    """Level → the measurement groups, each a dictionary."""
    found = {"study": [], "series": [], "image": []}
    for group in srread(path).content.get_image_measurement_groups():
        values = {m.name.value: m.value for m in group.get_measurements()}
        codes = {q.name.value: q.value.value for q in group.get_qualitative_evaluations()}
        images = [i.referenced_sop_instance_uid for i in group.source_images]
        frames = [i.referenced_frame_numbers for i in group.source_images]
        identifier = group.tracking_identifier
        found[codes[LEVEL.value]].append((values, codes, images, frames, identifier))
    return found


def texts(path):
    (container,) = [
        item
        for item in pydicom.dcmread(path).ContentSequence
        if item.ConceptNameCodeSequence[0].CodeValue == "C0034375"
    ]
    return [item.TextValue for item in container.ContentSequence]


def test_values_read_back_equal(tmp_path):
    found, detector = scored_study(tmp_path, [projection(i) for i in range(5)], scores=SCORES)
    levels = groups(written(tmp_path, found, detector))
    ((whole, codes, _, _, _),) = levels["study"]
    assert whole[SCORE.value] == found.verdict.score
    assert whole[P_VALUE.value] == found.verdict.p_value
    assert whole[IMAGES.value] == 5
    assert codes[FLAG.value] == "flagged" and codes[POOLING.value] == "calibrated"
    ((one, codes, _, _, identifier),) = levels["series"]
    assert one[P_VALUE.value] == found.series[0].verdict.p_value
    assert codes[POOLING.value] == "bonferroni"
    assert identifier == "series 1.2.3.1"
    for (values, codes, images, _, _), scored in zip(
        levels["image"], found.series[0].scored, strict=True
    ):
        assert values == {SCORE.value: scored.score, P_VALUE.value: scored.p_value}
        assert codes[FLAG.value] == ("flagged" if scored.flag else "not-flagged")
        assert images == [pydicom.dcmread(scored.source.path).SOPInstanceUID]


def test_decimal_strings_hold_what_16_characters_can(tmp_path):
    found, detector = scored_study(tmp_path, [projection(i) for i in range(5)], scores=SCORES)
    numbers = []

    def walk(item):
        for value in item.get("MeasuredValueSequence", ()):
            if "FloatingPointValue" in value:  # not with the number of images
                numbers.append((str(value.NumericValue), value.FloatingPointValue))
        for child in item.get("ContentSequence", ()):
            walk(child)

    walk(pydicom.dcmread(written(tmp_path, found, detector)))
    assert len(numbers) == 2 * (1 + 1 + 5)
    for text, exact in numbers:
        assert len(text) <= 16
        # sign, leading zero or exponent leave at least nine digits
        assert float(text) == pytest.approx(exact, rel=1e-9)


def test_a_volume_lists_its_highest_scores_in_order(tmp_path):
    scores = list(np.random.default_rng(0).permutation(14) / 3)
    found, detector = scored_study(tmp_path, list(slices(14)), scores=scores)
    path = written(tmp_path, found, detector)
    listed = [values[SCORE.value] for values, *_ in groups(path)["image"]]
    assert listed == [s for s in scores if s >= 4 / 3]
    evidence = pydicom.dcmread(path).CurrentRequestedProcedureEvidenceSequence
    (series,) = evidence[0].ReferencedSeriesSequence
    assert {i.ReferencedSOPInstanceUID for i in series.ReferencedSOPSequence} == {
        f"1.2.3.2.{i + 1}" for i in range(14)
    }
    assert {i.ReferencedSOPClassUID for i in series.ReferencedSOPSequence} == {
        pydicom.uid.CTImageStorage
    }
    assert "Series 1.2.3.2: 14 of 14 images scored" in texts(path)


def test_frames_are_referred_to_by_number(tmp_path):
    found, detector = scored_study(tmp_path, [enhanced(3)])
    images = groups(written(tmp_path, found, detector))["image"]
    assert [(uids, frames) for _, _, uids, frames, _ in images] == [
        (["1.2.3.4.1"], [[i + 1]]) for i in range(3)
    ]


def test_intended_use_doubts_and_problems_are_told(tmp_path):
    found, detector = scored_study(
        tmp_path,
        [projection(i) for i in range(2)],
        doubts=("another view – PA",),
        problems=("one slice is missing",),
    )
    told = texts(written(tmp_path, found, detector))
    assert told[0] == "For research use only. Not a medical device."
    assert "Series 1.2.3.1: one slice is missing" in told
    assert "Series 1.2.3.1: 2 images in doubt: another view ? PA" in told


def test_images_without_a_score_are_told(tmp_path):
    places = stored(tmp_path, [projection(i) for i in range(2)])
    maps = spots(places)
    one = result("1.2.3.1", places, maps)
    failure = ImageError(places[1][0], "truncated")
    one = SeriesResult(one.series, (one.images[0], failure), one.verdict)
    path = written(tmp_path, study(one), KnownDetector(maps))
    assert "Series 1.2.3.1: 1 of 2 images scored" in texts(path)
    assert "Series 1.2.3.1: 1 images without a score: truncated" in texts(path)
    assert len(groups(path)["image"]) == 1


def test_a_study_without_any_score_has_no_report(tmp_path):
    places = stored(tmp_path, [projection()])
    one = result("1.2.3.1", places, spots(places))
    failed = SeriesResult(one.series, (ImageError(places[0][0], "truncated"),), None)
    (outcome,) = write_objects(
        tmp_path, StudyResult(STUDY, (failed,), None), KnownDetector({}), ["sr"]
    )
    assert isinstance(outcome, Unwritten)
    assert outcome.reason == "no image of the study could be scored"


def test_several_series_share_one_report(tmp_path):
    first = stored(tmp_path / "a", [projection()])
    second = stored(tmp_path / "b", list(slices(3)))
    maps = spots([*first, *second], (24, 20))
    found = study(result("1.2.3.1", first, maps), result("1.2.3.2", second, maps))
    path = written(tmp_path, found, KnownDetector(maps))
    levels = groups(path)
    assert [len(levels[level]) for level in ("study", "series", "image")] == [1, 2, 4]
    evidence = pydicom.dcmread(path).CurrentRequestedProcedureEvidenceSequence[0]
    series = {s.SeriesInstanceUID for s in evidence.ReferencedSeriesSequence}
    assert series == {"1.2.3.1", "1.2.3.2"}


def test_who_measured_and_how(tmp_path):
    found, detector = scored_study(tmp_path, [projection()])
    path = written(tmp_path, found, detector)
    document = srread(path)
    (observer,) = document.content.get_observer_contexts()
    device = observer.observer_identifying_attributes
    assert device.manufacturer_name == "scrd" and __version__ in device.name
    assert document.SoftwareVersions == __version__
    assert document.DeviceSerialNumber == detector.fingerprint[:16]
    text = pydicom.dcmread(path).to_json()
    assert f"model = {detector.fingerprint}" in text
    assert "false alarm rate = 0.05" in text and "pooling = top" in text
    assert "promised by = group" in text
    (scheme,) = document.CodingSchemeIdentificationSequence
    assert scheme.CodingSchemeDesignator == SCHEME
    assert document.VerificationFlag == "UNVERIFIED"


def test_a_model_that_can_flag_nothing_says_so_in_the_report(tmp_path):
    found, detector = scored_study(tmp_path, [projection(i) for i in range(2)])
    assert not any("flag nothing" in text for text in texts(written(tmp_path, found, detector)))
    calibration = detector.calibration
    detector.calibration = dataclasses.replace(
        calibration, threshold=np.inf, false_alarm_rate=0.0001
    )
    (said,) = [t for t in texts(written(tmp_path, found, detector)) if "flag nothing" in t]
    assert said.startswith("Warning: ")
    assert said.endswith("needs at least 9999")

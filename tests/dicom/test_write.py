import logging

import pydicom
import pytest
from pydicom.tag import Tag
from synthetic_dicom import (
    BIRTH,
    NAME,
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
from scrd.data.source import Series
from scrd.dicom.uids import tag
from scrd.dicom.write import Unwritten, Written, check_kinds, write_objects
from scrd.errors import ConfigError
from scrd.scoring.verdicts import SeriesResult, StudyResult

KINDS = ["sr", "seg", "sc", "pm", "fseg"]
TIMES = {
    "InstanceCreationDate", "InstanceCreationTime", "ContentDate", "ContentTime",
    "DateOfSecondaryCapture", "TimeOfSecondaryCapture", "ContributionDateTime",
}  # fmt: skip


def without_times(path):
    dataset = pydicom.dcmread(path)
    for item in (dataset, *dataset.ContributingEquipmentSequence):
        for keyword in TIMES:
            item.pop(keyword, None)
    return dataset


@pytest.mark.parametrize("make", [lambda: list(slices(6)), lambda: [projection(), projection(1)]])
def test_a_second_run_writes_the_same_but_for_the_time(tmp_path, make):
    found, detector = scored_study(tmp_path, make())
    first = write_objects(tmp_path / "a", found, detector, KINDS)
    second = write_objects(tmp_path / "b", found, detector, KINDS)
    assert [getattr(o, "kind", None) for o in first] == [o.kind for o in second]
    for one, other in zip(first, second, strict=True):
        if isinstance(one, Written):
            assert one.path.name == other.path.name
            assert without_times(one.path) == without_times(other.path)


def test_another_model_writes_other_objects_into_the_same_study(tmp_path):
    found, detector = scored_study(tmp_path, list(slices(3)))
    other = KnownDetector(detector.maps, fingerprint="cd" * 32)
    instances, series = [], set()
    for folder, model in (("a", detector), ("b", other)):
        for outcome in write_objects(tmp_path / folder, found, model, KINDS):
            dataset = pydicom.dcmread(outcome.path)
            assert dataset.StudyInstanceUID == STUDY
            instances.append(dataset.SOPInstanceUID)
            series.add(dataset.SeriesInstanceUID)
    assert len(instances) == len({*instances}) == 2 * (4 + 3)  # one overlay a slice
    assert len(series) == 2 * 5
    assert not {*instances, *series} & {"1.2.3.2", *(f"1.2.3.2.{i}" for i in range(1, 4))}


@pytest.mark.parametrize(
    "other",
    [
        {"PatientID": "4712"},
        {"IssuerOfPatientID": "elsewhere"},
        {"StudyInstanceUID": "1.2.826.9"},
    ],
)
def test_equal_uids_of_two_patients_or_studies_give_no_equal_uid(tmp_path, other):
    instances, series = [], []
    for i, changes in enumerate(({}, other)):
        datasets = [*slices(3), projection()]
        for dataset in datasets:
            dataset.SeriesInstanceUID = "1.2.3.2"
            dataset.pop("FrameOfReferenceUID", None)
            for keyword, value in changes.items():
                setattr(dataset, keyword, value)
        found, detector = scored_study(tmp_path / f"{i}", datasets)
        for outcome in write_objects(tmp_path / f"out{i}", found, detector, ["sr", "seg", "sc"]):
            made = pydicom.dcmread(outcome.path)
            instances.append(made.SOPInstanceUID)
            series.append((i, made.SeriesInstanceUID))
    assert len(instances) == len({*instances})
    assert not {u for i, u in series if i == 0} & {u for i, u in series if i == 1}


def test_different_images_under_one_sop_uid_are_in_no_object(tmp_path):
    unclear = list(slices(3))
    for dataset in unclear:
        dataset.SOPInstanceUID = "1.2.3.2.1"
    first = stored(tmp_path / "a", unclear)
    second = stored(tmp_path / "b", [projection()])
    maps = spots([*first, *second])
    found = study(result("1.2.3.2", first, maps), result("1.2.3.1", second, maps))
    for kinds in (KINDS, ["sr"]):
        outcomes = write_objects(tmp_path / "out", found, KnownDetector(maps), kinds)
        reasons = [o.reason for o in outcomes if isinstance(o, Unwritten)]
        assert any("different images carry one SOP Instance UID" in r for r in reasons)
        for outcome in outcomes:
            if isinstance(outcome, Written):
                assert "1.2.3.2.1\n" not in str(pydicom.dcmread(outcome.path))


def test_images_of_two_patients_never_become_one_object(tmp_path):
    datasets = list(slices(2))
    datasets[1].PatientID = "4712"
    found, detector = scored_study(tmp_path, datasets)
    outcomes = write_objects(tmp_path / "out", found, detector, KINDS)
    reasons = {o.kind: o.reason for o in outcomes if isinstance(o, Unwritten)}
    assert reasons == dict.fromkeys(KINDS, "its images are of several patients or studies")
    assert not list((tmp_path / "out").iterdir())


def test_every_object_says_who_made_it_and_of_whom(tmp_path):
    found, detector = scored_study(tmp_path, list(slices(3)))
    numbers = set()
    for outcome in write_objects(tmp_path, found, detector, KINDS):
        dataset = pydicom.dcmread(outcome.path)
        assert dataset.Manufacturer == dataset.ManufacturerModelName == "scrd"
        assert dataset.SoftwareVersions == __version__
        assert dataset.DeviceSerialNumber == detector.fingerprint[:16]
        assert dataset.SeriesDescription.endswith("(research use only)")
        assert dataset.PatientName == NAME and dataset.PatientBirthDate == BIRTH
        assert dataset.PatientID == "4711-ß" and dataset.AccessionNumber == "A1"
        assert dataset.StudyDate == "20240229" and dataset.StudyID == "S1"
        assert dataset.SpecificCharacterSet == "ISO_IR 100"
        numbers.add(dataset.SeriesNumber)
    assert numbers == {9001, 9002, 9003, 9004, 9005}


def test_file_names(tmp_path):
    found, detector = scored_study(tmp_path, [projection(i) for i in range(2)])
    outcomes = write_objects(tmp_path / "new" / "out", found, detector, ["seg", "sr", "seg"])
    series, whole = tag("1.2.3.1"), tag(STUDY)
    names = [o.path.name for o in outcomes]
    assert names == [f"seg-{series}.dcm", f"seg-{series}-2.dcm", f"sr-{whole}.dcm"]
    assert sorted(p.name for p in (tmp_path / "new" / "out").iterdir()) == sorted(names)


def test_originals_stay_as_they_are(tmp_path):
    found, detector = scored_study(tmp_path, [enhanced(3)])
    path = found.series[0].series.places[0][0]
    before = path.read_bytes(), path.stat().st_mtime_ns
    write_objects(tmp_path / "out", found, detector, KINDS)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def odd_headers():
    """What archives hold: values against their VR, odd character sets, missing attributes."""
    dataset = projection()
    dataset.PatientName, dataset.PatientID = b"M\xfcller^J\xfcrgen", b"4711 "
    dataset.SpecificCharacterSet = "ISO_IR 999"
    dataset[Tag(0x00100030)] = pydicom.DataElement(0x00100030, "LO", "29.02.48??")
    dataset[Tag(0x00100040)] = pydicom.DataElement(0x00100040, "LO", "?")
    dataset[Tag(0x00080020)] = pydicom.DataElement(0x00080020, "LO", "yesterday")
    yield "against their VR", dataset
    dataset = projection()
    dataset.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    dataset.PatientName = "Yamada^Tarou=山田^太郎"
    yield "Japanese", dataset
    dataset = projection()
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate",
                    "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName",
                    "SpecificCharacterSet"):  # fmt: skip
        delattr(dataset, keyword)
    yield "missing", dataset


@pytest.mark.parametrize(("name", "dataset"), list(odd_headers()))
def test_the_patient_is_taken_over_byte_by_byte(tmp_path, name, dataset, caplog, recwarn):
    found, detector = scored_study(tmp_path, [dataset])
    source = pydicom.dcmread(found.series[0].series.places[0][0])
    caplog.set_level(logging.DEBUG)
    recwarn.clear()
    outcomes = write_objects(tmp_path / "out", found, detector, ["sr", "seg"])
    assert [type(o) for o in outcomes] == [Written, Written]
    told = caplog.text + " ".join(str(w.message) for w in recwarn)
    assert "ller" not in told and "4711" not in told and "yesterday" not in told
    for outcome in outcomes:
        made = pydicom.dcmread(outcome.path)
        for keyword in ("SpecificCharacterSet", "PatientName", "PatientID", "PatientBirthDate",
                        "PatientSex", "StudyDate"):  # fmt: skip
            number = pydicom.datadict.tag_for_keyword(keyword)
            if number in source:
                assert made.get_item(number).value == source.get_item(number).value
            elif keyword != "SpecificCharacterSet":
                assert made[keyword].is_empty


def test_what_says_that_the_patient_is_hidden_is_taken_over(tmp_path):
    dataset, method = projection(), pydicom.Dataset()
    method.CodeValue, method.CodingSchemeDesignator = "113100", "DCM"
    method.CodeMeaning = "Basic Application Confidentiality Profile"
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethodCodeSequence = [method]
    found, detector = scored_study(tmp_path, [dataset])
    for outcome in write_objects(tmp_path / "out", found, detector, ["sr", "seg", "sc"]):
        made = pydicom.dcmread(outcome.path)
        assert made.PatientIdentityRemoved == "YES"
        assert made.DeidentificationMethodCodeSequence[0].CodeValue == "113100"


def test_a_study_whose_headers_are_gone(tmp_path):
    found, detector = scored_study(tmp_path, [projection()])
    found.series[0].series.places[0][0].unlink()
    outcomes = write_objects(tmp_path / "out", found, detector, KINDS)
    assert {o.kind for o in outcomes if "FileNotFoundError" in o.reason} == set(KINDS)


def test_one_series_that_fails_does_not_stop_the_others(tmp_path):
    broken = list(slices(3))
    for dataset in broken:
        del dataset.PixelSpacing
    first = stored(tmp_path / "a", broken)
    second = stored(tmp_path / "b", [projection()])
    gone = stored(tmp_path / "c", list(slices(2, modality="MR")))
    maps = spots([*first, *second, *gone])
    found = study(
        result("1.2.3.2", first, maps),
        result("1.2.3.1", second, maps),
        result("1.2.3.3", gone, maps),
    )
    gone[1][0].unlink()
    outcomes = write_objects(tmp_path / "out", found, KnownDetector(maps), ["seg", "sr"])
    assert [type(o) for o in outcomes] == [Unwritten, Unwritten, Written, Written]
    reasons = {o.series: o.reason for o in outcomes if isinstance(o, Unwritten)}
    assert "FileNotFoundError" in reasons[tag("1.2.3.3")]
    assert reasons[tag("1.2.3.2")] == "an image of the series has no Pixel Spacing"
    assert str(outcomes[0]) == f"seg of series {outcomes[0].series}: {outcomes[0].reason}"


def test_an_unforeseen_error_is_told_without_its_words(tmp_path):
    found, detector = scored_study(tmp_path, [projection()])

    def quoting(scored):
        raise ValueError(f"cannot handle {NAME}")

    detector.source_map = quoting
    (outcome,) = write_objects(tmp_path / "out", found, detector, ["seg"])
    assert isinstance(outcome, Unwritten)
    assert NAME not in outcome.reason and "ValueError" in outcome.reason
    assert not list((tmp_path / "out").iterdir())


def test_a_write_that_fails_leaves_nothing_and_is_raised(tmp_path, monkeypatch):
    found, detector = scored_study(tmp_path, [projection()])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("scrd.system.files.os.replace", full)
    with pytest.raises(OSError, match="No space"):
        write_objects(tmp_path / "out", found, detector, ["sr"])
    assert not list((tmp_path / "out").iterdir())


def test_kinds():
    assert check_kinds(["seg", "sr", "seg"]) == ("seg", "sr")
    with pytest.raises(ConfigError, match="'rtstruct'"):
        check_kinds(["sr", "rtstruct"])


def test_a_study_that_is_not_dicom(tmp_path):
    series = Series("a.nii", "a.nii", None, ((tmp_path / "a.nii", 0),), format="NIfTI")
    found = StudyResult("a.nii", (SeriesResult(series, (), None),), None)
    with pytest.raises(ConfigError, match="NIfTI"):
        write_objects(tmp_path, found, KnownDetector({}), ["sr"])


def test_a_detector_that_was_never_saved(tmp_path):
    found, detector = scored_study(tmp_path, [projection()])
    detector.fingerprint = None
    with pytest.raises(ConfigError, match="save it first"):
        write_objects(tmp_path / "out", found, detector, ["sr"])

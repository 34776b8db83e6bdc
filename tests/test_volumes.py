"""Volumes from end to end: NIfTI and DICOM in, scores at three levels, maps on source voxels."""

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from typer.testing import CliRunner

from scrd.cli import app
from scrd.config import Config
from scrd.data.cache import iter_batches
from scrd.data.covariates import ACQUISITION
from scrd.data.manifest import read_manifest
from scrd.data.reading import read_image
from scrd.data.series import list_sources
from scrd.detector import Detector
from scrd.dicom.uids import tag
from scrd.evaluation.test_set import evaluate
from scrd.model.acquisition import acquisition
from scrd.outputs.covariates import COLUMNS as COVARIATES
from synthetic_volumes import COLUMNS, ROWS, SLICES, head, write_dicom, write_nifti

NORMALS = 24


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("volumes")
    for i in range(NORMALS):
        write_dicom(root / "train" / "normal" / f"{i}", head(i), i)
    for i in range(4):
        write_dicom(root / "test" / "normal" / f"{i}", head(100 + i), 100 + i)
        write_dicom(root / "test" / "lesion" / f"{i}", head(200 + i, lesion=True), 200 + i)
    return root


@pytest.fixture(scope="module")
def detector(data):
    config = Config(
        image_size=64, iterations=40, batch_size=8, held_out=0.5, false_alarm_rate=0.1, seed=1
    )
    return Detector.fit(data, config, device="cpu")


def scrd(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def model(detector, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "m"
    detector.save(folder)
    return folder


def test_a_manifest_of_dicom_files_knows_patients_and_series(data):
    manifest = read_manifest(data)
    normals = manifest.train_normals
    assert len(normals) == NORMALS * SLICES
    groups = {r.group for r in normals}
    assert len(groups) == NORMALS
    assert all(group.startswith("patient ") for group in groups)
    assert "ID3" not in repr(manifest)
    for r in normals:
        assert {other.group for other in normals if other.series is r.series} == {r.group}


def test_slices_of_a_nifti_volume_are_those_of_the_dicom_series(data, tmp_path):
    write_nifti(tmp_path / "head.nii.gz", head(3))
    volume = list_sources([tmp_path / "head.nii.gz"]).sources
    series = list_sources([data / "train" / "normal" / "3"]).sources
    assert len(volume) == len(series) == SLICES
    np.testing.assert_allclose(volume[0].series.affine, series[0].series.affine, atol=1e-4)
    for a, b in zip(volume, series, strict=True):
        np.testing.assert_array_equal(read_image(a), read_image(b))


def test_training_keeps_the_kind_and_the_levels(detector):
    assert detector.preprocessing.intensity.scope == "series"
    contract = detector.contract
    assert (contract.units, contract.modalities) == (("rescaled",), ("MR",))
    assert (contract.body_parts, contract.planes) == (("HEAD",), ("axial",))
    calibration = detector.calibration
    assert len(calibration.scores) == NORMALS // 2 * SLICES
    assert len(calibration.series.scores) == len(calibration.study.scores) == NORMALS // 2
    assert calibration.series.images == SLICES
    assert contract.manufacturers == ("ACME SCANNERS",)


def test_the_gain_of_a_scanner_does_not_move_scores(detector, data, tmp_path):
    write_dicom(tmp_path / "louder", head(100, gain=3), 100)
    plain = list(detector.score(list_sources([data / "test" / "normal" / "0"]).sources))
    louder = list(detector.score(list_sources([tmp_path / "louder"]).sources))
    np.testing.assert_allclose([s.score for s in louder], [s.score for s in plain], atol=0.05)


def test_scores_at_slice_series_and_study_level(data, model, tmp_path):
    result = scrd(
        "score", model, data / "test", "--out", tmp_path, "--no-overlays", "--device", "cpu"
    )
    assert result.exit_code == 0, result.output
    assert len(table(tmp_path / "scores.csv")) == 8 * SLICES
    series, studies = table(tmp_path / "series.csv"), table(tmp_path / "studies.csv")
    assert len(series) == len(studies) == 8
    assert {row["how"] for row in series + studies} == {"calibrated"}
    flags = {int(row["study"].split(".")[-1]): row["flag"] for row in studies}
    assert [flags[200 + i] for i in range(4)] == ["1"] * 4
    scores = {int(row["study"].split(".")[-1]): float(row["score"]) for row in studies}
    assert min(scores[200 + i] for i in range(4)) > max(scores[100 + i] for i in range(4))
    assert all((row["flag"] == "1") == (float(row["p_value"]) <= 0.1) for row in studies)
    written = " ".join(p.read_text() for p in tmp_path.glob("*.csv")) + result.output
    assert not any(word in written for word in ("Doe", "ID100", "19700101", "20200102"))


def test_where_images_come_from_is_told_beside_the_scores(model, detector, data, tmp_path):
    folder = data / "test" / "normal" / "0"
    result = scrd("score", model, folder, "--out", tmp_path, "--no-overlays", "--device", "cpu")
    assert result.exit_code == 0, result.output
    rows = table(tmp_path / "covariates.csv")
    assert tuple(rows[0]) == COVARIATES
    assert [row["path"] for row in rows] == [row["path"] for row in table(tmp_path / "scores.csv")]
    for row in rows:
        assert detector.fingerprint is None or row["model"] == detector.fingerprint[:16]
        assert row["study"] == tag("1.2.3.100")
        assert (row["width"], row["height"]) == (str(COLUMNS), str(ROWS))
        assert (row["row_spacing"], row["column_spacing"]) == ("1.5", "1.0")
        assert (row["manufacturer"], row["format"]) == ("ACME SCANNERS", "DICOM")
    (stack,) = iter_batches(
        list_sources([folder]).sources, detector.preprocessing, batch_size=SLICES
    )
    expected = acquisition(
        torch.from_numpy(stack.images), torch.ones(SLICES, 64, 64, dtype=torch.bool)
    )
    found = [[float(row[name]) for name in ACQUISITION] for row in rows]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_studies_of_several_slices_are_monitored_one_image_each(model, data, tmp_path):
    words = ("--no-overlays", "--device", "cpu")
    result = scrd("score", model, data / "test" / "normal", "--out", tmp_path / "scores", *words)
    assert result.exit_code == 0, result.output
    result = scrd("monitor", model, tmp_path / "scores", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "out" / "monitor.json").read_text())
    assert (found["images"], found["counted"]) == (4 * SLICES, 4)
    assert found["reference"]["images"] == NORMALS // 2
    assert len(found["wealth"]) == 5
    assert {one["name"]: one["beyond"] for one in found["beyond_training"]} == {
        "shorter side": 0,
        "pixel spacing": 0,
        "manufacturer": 0,
        "kind of file": 0,
    }


def test_evaluation_has_figures_for_series(detector, data):
    metrics = evaluate(detector, data).metrics
    assert metrics["series"]["auroc"] == metrics["study"]["auroc"] == 1.0
    assert metrics["series"]["n_normal"] == 4
    assert metrics["series"]["calibrated"] == 1.0
    assert metrics["series"]["sensitivity"] == 1.0


def test_a_nifti_map_lies_on_the_source_voxels(detector, model, tmp_path):
    write_nifti(tmp_path / "head.nii.gz", head(7, lesion=True))
    out = tmp_path / "out"
    words = ("--out", out, "--raw-maps", "--no-overlays", "--device", "cpu")
    result = scrd("score", model, tmp_path / "head.nii.gz", *words)
    assert result.exit_code == 0, result.output
    assert "unknown unit" in (out / "warnings.csv").read_text()
    source, found = nib.load(tmp_path / "head.nii.gz"), nib.load(out / "maps" / "head.nii.gz")
    assert found.shape == source.shape
    np.testing.assert_allclose(found.affine, source.affine)
    # the map of each slice, put back by hand: RAS+ voxels are those of LPS slices, turned
    slices = list_sources([tmp_path / "head.nii.gz"]).sources
    maps = np.stack([detector.source_map(s) for s in detector.score(slices)])
    np.testing.assert_allclose(found.get_fdata(), maps.transpose(2, 1, 0)[::-1, ::-1], atol=1e-5)


def test_a_dicom_map_becomes_a_volume_in_patient_coordinates(model, data, tmp_path):
    write_nifti(tmp_path / "head.nii.gz", head(200, lesion=True))
    words = ("--raw-maps", "--no-overlays", "--device", "cpu")
    study = data / "test" / "lesion" / "0"
    assert scrd("score", model, study, "--out", tmp_path / "d", *words).exit_code == 0
    assert (
        scrd("score", model, tmp_path / "head.nii.gz", "--out", tmp_path / "n", *words).exit_code
        == 0
    )
    [dicom] = (tmp_path / "d" / "maps").rglob("*.nii.gz")
    [nifti] = (tmp_path / "n" / "maps").rglob("*.nii.gz")
    first, second = (nib.as_closest_canonical(nib.load(p)) for p in (dicom, nifti))
    np.testing.assert_allclose(first.affine, second.affine, atol=1e-4)
    np.testing.assert_allclose(first.get_fdata(), second.get_fdata(), atol=0.02)


def test_a_segmentation_lies_on_the_source_voxels(detector, model, data, tmp_path):
    pytest.importorskip("highdicom", reason="needs the extra dicom")
    study = data / "test" / "lesion" / "1"
    words = ("--out", tmp_path, "--dicom-out", "seg,sr", "--no-overlays", "--device", "cpu")
    result = scrd("score", model, study, *words)
    assert result.exit_code == 0, result.output
    [path] = (tmp_path / "dicom").rglob("seg-*.dcm")
    segmentation = pydicom.dcmread(path)
    frames = np.atleast_3d(segmentation.pixel_array).reshape(-1, ROWS, COLUMNS)
    found = {}
    for frame, group in zip(frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        found[source.ReferencedSOPInstanceUID] = frame.astype(bool)
    above = 0
    for scored in detector.score(list_sources([study]).sources):
        uid = pydicom.dcmread(scored.path, stop_before_pixels=True).SOPInstanceUID
        expected = detector.source_map(scored) > detector.calibration.map_threshold
        np.testing.assert_array_equal(found.get(uid, np.zeros((ROWS, COLUMNS), bool)), expected)
        above += expected.sum()
    assert above > 0


def test_another_modality_is_refused_unless_asked_for(model, data, tmp_path):
    study = tmp_path / "ct"
    write_dicom(study, head(5), 5)
    for path in study.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.BodyPartExamined = "KNEE"
        dataset.save_as(path)
    words = ("--no-overlays", "--device", "cpu")
    result = scrd("score", model, study, "--out", tmp_path / "a", *words)
    assert result.exit_code == 1
    assert "body part KNEE; trained on HEAD" in (tmp_path / "a" / "errors.csv").read_text()
    assert table(tmp_path / "a" / "series.csv")[0]["images"] == "0"
    result = scrd("score", model, study, "--out", tmp_path / "b", "--any-kind", *words)
    assert result.exit_code == 0, result.output
    assert "body part KNEE" in (tmp_path / "b" / "warnings.csv").read_text()


def test_dicom_objects_of_pictures_are_refused(model, tmp_path):
    write_nifti(tmp_path / "head.nii.gz", head(7))
    result = scrd(
        "score", model, tmp_path / "head.nii.gz", "--out", tmp_path / "o", "--dicom-out", "sr"
    )
    assert result.exit_code == 2
    assert "not DICOM" in result.output
    assert not Path(tmp_path / "o").exists()


def test_a_ct_series_is_read_in_hu_and_scored_at_three_levels(tmp_path):
    for i in range(12):
        write_dicom(tmp_path / "data" / f"{i}", head(i) - 300, i, "CT")
    config = Config(image_size=64, iterations=15, batch_size=8, held_out=0.5, false_alarm_rate=0.2)
    detector = Detector.fit(tmp_path / "data", config, device="cpu")
    assert detector.contract.units == ("HU",)
    intensity = detector.preprocessing.intensity
    assert (intensity.scope, intensity.low, intensity.high) == ("data", -1000, 1000)
    detector.save(tmp_path / "m")
    write_dicom(tmp_path / "study", head(50, lesion=True) - 300, 50, "CT")
    words = ("--out", tmp_path / "out", "--no-overlays", "--device", "cpu")
    result = scrd("score", tmp_path / "m", tmp_path / "study", *words)
    assert result.exit_code == 0, result.output
    assert len(table(tmp_path / "out" / "scores.csv")) == SLICES
    [series], [study] = (
        table(tmp_path / "out" / "series.csv"),
        table(tmp_path / "out" / "studies.csv"),
    )
    assert series["score"] == study["score"]
    assert (series["images"], series["how"], series["flag"]) == (str(SLICES), "calibrated", "1")
    # a model of CT does not take MR
    write_dicom(tmp_path / "mr", head(51), 51)
    words = ("--out", tmp_path / "no", "--no-overlays", "--device", "cpu")
    assert scrd("score", tmp_path / "m", tmp_path / "mr", *words).exit_code == 1
    reasons = {row["reason"] for row in table(tmp_path / "no" / "errors.csv")}
    assert len(reasons) == 1
    assert "modality MR; trained on CT" in reasons.pop()

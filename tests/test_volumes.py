"""Volumes from end to end: NIfTI and DICOM in, scores at three levels, maps on source voxels."""

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from typer.testing import CliRunner

from scrd.cli import app
from scrd.config import Config
from scrd.data.manifest import read_manifest
from scrd.data.reading import read_image
from scrd.data.series import list_sources
from scrd.detector import Detector
from scrd.evaluation import evaluate

SLICES, ROWS, COLUMNS = 8, 40, 48
SPACING = (1.0, 1.5, 4.0)  # mm between columns, rows, slices
ORIGIN = (-20.0, -30.0, 10.0)  # LPS
NORMALS = 24


def head(seed, lesion=False, gain=1.0):
    """(slices, rows, columns), float32: an uneven ellipsoid, as axial DICOM slices show it."""
    rng = np.random.default_rng(seed)
    z, y, x = np.mgrid[-1 : 1 : SLICES * 1j, -1 : 1 : ROWS * 1j, -1 : 1 : COLUMNS * 1j]
    inside = (x / 0.8) ** 2 + (y / 0.9) ** 2 + (z / 1.3) ** 2 < 1
    volume = inside * (600 + 150 * x + 80 * np.sin(9 * y)) + rng.normal(0, 15, z.shape)
    if lesion:
        volume[3:6, 12:24, 14:28] *= 0.4 + 1.2 * rng.integers(0, 2, (3, 12, 14))
    return (gain * volume.clip(0).round()).astype(np.float32)


def write_nifti(path, volume):
    """In RAS+ voxel order, so that the cut has to turn it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dx, dy, dz = SPACING
    lps = np.array(
        [[dx, 0, 0, ORIGIN[0]], [0, dy, 0, ORIGIN[1]], [0, 0, dz, ORIGIN[2]], [0, 0, 0, 1]]
    )
    ras = np.diag([-1.0, -1, 1, 1]) @ lps
    image = nib.Nifti1Image(volume.transpose(2, 1, 0), ras)
    nib.save(nib.as_closest_canonical(image), path)


def write_dicom(folder, volume, number):
    """One MR file a slice, in shuffled order of names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = np.random.default_rng(number).permutation(SLICES)
    for k, name in enumerate(names):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = MRImageStorage
        uid = f"1.2.3.{number}.1.{k + 1}"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = uid
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"1.2.3.{number}", f"1.2.3.{number}.1"
        dataset.FrameOfReferenceUID = f"1.2.3.{number}.9"
        dataset.PatientID, dataset.PatientName = f"ID{number}", "Doe^Jane"
        dataset.PatientBirthDate, dataset.PatientSex = "19700101", "F"
        dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20200102", "101112", ""
        dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
        dataset.Modality, dataset.BodyPartExamined = "MR", "HEAD"
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
        dataset.SeriesNumber, dataset.InstanceNumber = 1, int(name) + 1
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.ImagePositionPatient = [*ORIGIN[:2], ORIGIN[2] + SPACING[2] * k]
        dataset.PixelSpacing = [SPACING[1], SPACING[0]]
        dataset.SliceThickness = SPACING[2]
        dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = ROWS, COLUMNS, 1
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
        dataset.PixelRepresentation = 0
        dataset.PixelData = volume[k].astype("<u2").tobytes()
        dataset.save_as(folder / f"{name:03d}", enforce_file_format=True)


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

"""`scrd watch` and `scrd score dicomweb://` with a real detector and a real Orthanc."""

import csv

import pydicom
import pytest
from typer.testing import CliRunner

from scrd.cli import app
from scrd.config import Config
from scrd.detector import Detector
from synthetic_volumes import head, write_dicom

pytest.importorskip("highdicom", reason="needs the extra dicom")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    root = tmp_path_factory.mktemp("archive")
    for i in range(10):
        write_dicom(root / "data" / f"{i}", head(i), i)
    config = Config(image_size=64, iterations=10, batch_size=8, held_out=0.4, false_alarm_rate=0.3)
    detector = Detector.fit(root / "data", config, device="cpu")
    detector.save(root / "model")
    return root / "model"


@pytest.fixture
def study(tmp_path):
    write_dicom(tmp_path / "study", head(50, lesion=True), 50)
    return sorted((tmp_path / "study").iterdir())


def scrd(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def kinds(server):
    """Modalities of the results in the study, by QIDO."""
    found = []
    for series in server.get("/series?expand"):
        if series["MainDicomTags"].get("Manufacturer") == "scrd":
            found.append(series["MainDicomTags"]["Modality"])
    return sorted(found)


def test_watch_scores_a_study_and_stores_what_it_found(server, model, study, tmp_path):
    server.push(*study)
    server.wait_until_stable()
    words = ("--orthanc", server.url, "--state", tmp_path / "state", "--once", "--device", "cpu")
    result = scrd("watch", model, *words)
    assert result.exit_code == 0, result.output
    assert "1 done" in result.output
    assert len(server.results("1.2.3.50")) >= 2
    assert {"SR", "OT"} <= set(kinds(server))
    before = server.results("1.2.3.50")
    server.wait_until_stable()
    assert scrd("watch", model, *words).exit_code == 0
    assert server.results("1.2.3.50") == before


def test_watch_refuses_a_study_of_another_kind_once(server, model, tmp_path, caplog):
    write_dicom(tmp_path / "ct", head(51), 51, "CT")
    server.push(*(tmp_path / "ct").iterdir())
    server.wait_until_stable()
    words = ("--orthanc", server.url, "--state", tmp_path / "state", "--once", "--device", "cpu")
    result = scrd("watch", model, *words)
    assert "1 refused" in result.output
    assert "modality CT; trained on MR" in caplog.text
    assert not any(word in caplog.text for word in ("Doe", "ID51", "1.2.3.51", str(tmp_path)))
    assert server.results("1.2.3.51") == []


def test_a_study_is_fetched_scored_and_stored_by_dicomweb(server, model, study, tmp_path):
    server.push(*study)
    words = ("--study", "1.2.3.50", "--out", tmp_path / "out", "--dicom-out", "sr,seg")
    result = scrd("score", model, server.dicomweb, *words, "--device", "cpu")
    assert result.exit_code == 0, result.output
    written = [pydicom.dcmread(p).SOPInstanceUID for p in (tmp_path / "out").rglob("*.dcm")]
    assert server.results("1.2.3.50") == sorted(written)


def test_a_folder_is_watched_and_results_name_the_files(model, study, tmp_path):
    words = ("--out", tmp_path / "out", "--state", tmp_path / "state", "--settle", "0", "--once")
    result = scrd("watch", model, "--folder", tmp_path / "study", *words, "--device", "cpu")
    assert result.exit_code == 0, result.output
    [folder] = (tmp_path / "out").iterdir()
    with open(folder / "scores.csv", newline="") as file:
        paths = {row["path"] for row in csv.DictReader(file)}
    assert paths == {str(path) for path in study}
    assert {p.name[:2] for p in folder.glob("*.dcm")} >= {"sr", "sc"}


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("watch {m}", "either --orthanc or --folder"),
        ("watch {m} --folder .", "--folder needs --out"),
        ("watch {m} --orthanc http://x --dicom-out pdf", "not 'pdf'"),
        ("score {m} dicomweb://x/y --out {m}-o", "--study"),
        ("score {m} a.dcm --study 1.2 --out {m}-o", "--study"),
    ],
)
def test_words_that_do_not_go_together_are_refused(model, words, reason):
    result = scrd(*words.format(m=model).split())
    assert result.exit_code == 2
    assert reason in result.output

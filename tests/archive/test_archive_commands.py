"""`scrd watch` and `scrd score dicomweb://` with a real detector and a real Orthanc."""

import csv
import errno
import json
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import pydicom
import pytest
from archives import until
from typer.testing import CliRunner

from scrd import __version__
from scrd.archive.status import read_status
from scrd.cli import app
from scrd.config import Config
from scrd.detector import Detector
from scrd.dicom.uids import tag
from scrd.monitor.stream import read_stream
from scrd.outputs.history_file import HistoryError
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
    assert result.exit_code == 1
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
    by_state, by_table = (
        read_stream([place], Detector.load(model).fingerprint)
        for place in (tmp_path / "state", folder)
    )
    assert [(i.score, i.flag, i.study, i.covariates) for i in by_state.images] == [
        (i.score, i.flag, i.study, i.covariates) for i in by_table.images
    ]
    result = scrd("status", tmp_path / "state", "--json")
    [told] = json.loads(result.stdout)
    assert (result.exit_code, told["done"], told["health"]) == (0, 1, "well")
    assert told["drift"]["counted"] == 1 and told["model_folder"] == str(model.resolve())
    assert not any(word in result.stdout for word in ("Doe", "ID50", "1.2.3.50"))


def test_a_watch_can_be_asked_while_it_runs_and_after_a_kill(model, study, tmp_path):
    state = tmp_path / "state"
    words = ("--folder", study[0].parent, "--out", tmp_path / "out", "--state", state)
    program = [sys.executable, "-c", "from scrd.cli import run; run()", "watch", model, *words]
    options = ("--settle", "0", "--poll", "0.2", "--device", "cpu")

    def asked():
        result = scrd("status", state, "--json")
        return result.exit_code, json.loads(result.stdout)[0]

    with open(tmp_path / "log", "w") as log:
        watching = subprocess.Popen([*program, *options], stderr=log, stdout=log)
        try:
            until(lambda: state.exists() and read_state(state).done == 1, 120)
            code, told = asked()
            assert (code, told["health"], told["ended"]) == (0, "well", None)
            assert told["pid"] == watching.pid
        finally:
            watching.kill()
            watching.wait(20)
    found = read_state(state)
    assert (found.health, found.done) == ("well", 1)  # for a minute nobody can know
    found = read_status(state, 0.0, time.time() + 61)
    assert (found.health, found.done) == ("dead", 1)
    assert scrd("status", state).exit_code == 0
    done = subprocess.run([*program, *options, "--once"], capture_output=True, timeout=120)
    code, told = asked()
    assert (done.returncode, code, told["done"], told["told"]) == (
        *(0, 0, 1),
        "it ran once and ended, as told",
    )


def read_state(path):
    try:
        return read_status(path, 0.0)
    except HistoryError:  # it is just being made
        return SimpleNamespace(done=None)


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


def test_the_log_of_a_watch(model, study, tmp_path):
    """In a process of its own, with standard error in a file."""
    words = ("--out", tmp_path / "out", "--state", tmp_path / "state", "--settle", "0", "--once")
    with open(tmp_path / "log", "w") as log:
        done = subprocess.run(
            [sys.executable, "-c", "from scrd.cli import run; run()", "watch", model, "--folder",
             tmp_path / "study", *words, "--device", "cpu"],
            stderr=log, stdout=subprocess.PIPE, timeout=120,
        )  # fmt: skip
    assert done.returncode == 0
    lines = [x.split(" INFO ")[1] for x in (tmp_path / "log").read_text().splitlines()]
    fingerprint = Detector.load(model).fingerprint
    assert lines[0].startswith(f"scrd {__version__} watches {tmp_path / 'study'}; model model, ")
    assert f"fingerprint {fingerprint}" in lines[0]
    assert lines[1] == "so far 0 studies done, 0 of them flagged, 0 refused, 0 failed, 0 waiting"
    (last,) = [x for x in lines if ": done" in x]
    assert re.match(
        rf"study {tag('1.2.3.50')}: done, \d+ results stored; (not )?flagged, score \S+, p \S+, "
        r"\d+ images; [\d.]+ s$",
        last,
    )
    assert not any(word in "".join(lines) for word in ("Doe", "ID50", "1.2.3.50"))


def test_a_study_of_which_no_object_can_be_written_is_not_done(model, study, tmp_path, caplog):
    for path in study:
        dataset = pydicom.dcmread(path)
        dataset.SOPInstanceUID = "1.2.3.50.1"
        dataset.save_as(path)
    words = ("--out", tmp_path / "out", "--state", tmp_path / "state", "--settle", "0", "--once")
    result = scrd("watch", model, "--folder", tmp_path / "study", *words, "--device", "cpu")
    assert (result.exit_code, "1 refused" in result.output) == (1, True)
    assert "refused: no DICOM object could be written: " in caplog.text
    [folder] = (tmp_path / "out").iterdir()
    assert (folder / "scores.csv").is_file()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("--folder {t}/nowhere --out {t}/out", "nowhere: no such folder"),
        ("--folder {t} --out {t}/file/out", "results cannot be written there"),
        ("--orthanc http://127.0.0.1:1 --once", "no connection"),
    ],
)
def test_what_cannot_be_reached_is_one_line(model, tmp_path, words, reason):
    (tmp_path / "file").touch()
    words = words.format(t=tmp_path).split()
    result = scrd("watch", model, *words, "--state", tmp_path / "state", "--device", "cpu")
    assert result.exit_code == 2
    [line] = result.output.strip().splitlines()
    assert line.startswith("error: ") and reason in line


def test_a_full_disk_is_one_line(model, study, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("scrd.outputs.score_folder.score_all", full)
    words = ("--out", tmp_path / "out", "--state", tmp_path / "state", "--settle", "0", "--once")
    result = scrd("watch", model, "--folder", tmp_path / "study", *words, "--device", "cpu")
    assert result.exit_code == 2
    assert "error: stopped: No space left on device; the study in hand waits in" in result.output

"""What the service tells of watches, by their state files."""

import json
import os
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest
from starlette.testclient import TestClient
from states import NAME, UID, write_state
from typer.testing import CliRunner

from scrd.archive.state import State
from scrd.archive.status import FLAGGED
from scrd.cli import app as cli
from scrd.dicom.uids import tag
from scrd.errors import ScrdError
from scrd.serve.app import make_app
from scrd.serve.auth import new_token, read_tokens
from scrd.serve.service import Settings
from scrd.serve.store import Store

QUIET = np.linspace(1.0, 2.0, 30)


@pytest.fixture
def serving(tmp_path):
    """Starts a service that is told of these watches, and scores nothing."""
    stores = []

    def start(*places, tokens=()):
        stores.append(Store(tmp_path / f"store{len(stores)}"))
        settings = Settings([("m", tmp_path)], tokens=tokens, watches=places)
        app = make_app(stores[-1].__enter__(), settings)
        return TestClient(app, base_url="http://127.0.0.1")

    yield start
    for store in stores:
        store.__exit__(None, None, None)


@pytest.fixture
def model(exports):
    return exports / "first"


def asked(client):
    answer = client.get("/v1/watches")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_it_says_what_scrd_status_says_and_names_the_flagged(serving, model, tmp_path):
    scores = [*QUIET, 2.5, 2.6]
    words = {"refused": ["no feet"] * 2, "failed": ["no space"], "retried": ["no connection"]}
    path = write_state(tmp_path / "state", model, scores, **words)
    client = serving(path)
    [told] = asked(client)
    found = told["found"]
    assert (told["problem"], found["health"], found["archive"]) == ("", "well", "state archive")
    assert (found["processed"], found["done"], found["flagged"], found["waiting"]) == (35, 32, 2, 1)
    assert (found["refused"], found["failed"]) == ({"no feet": 2}, {"no space": 1})
    assert [one["reason"] for one in found["retried"]] == ["no connection"]
    assert told["line"].startswith("no alarm: wealth") and told["alarms"] == []
    newest, other = found["flagged_studies"]
    assert newest["at"] > other["at"] > time.time() - 60
    told = {"study": tag(f"{UID}.31"), "p_value": 0.02, "score": 2.6, "images": 1}
    assert newest == {"at": newest["at"], **told}
    result = CliRunner().invoke(cli, ["status", str(path), "--json"])
    assert found == json.loads(result.stdout)[0]
    everything = client.get("/v1/watches").text + client.get("/metrics").text
    assert not any(secret in everything for secret in (NAME, UID))


def test_what_was_flagged_earlier_or_beyond_the_newest_hundred_is_not_listed(
    serving, model, tmp_path
):
    path = write_state(tmp_path / "state", model, [3.0] * (FLAGGED + 5))
    with sqlite3.connect(path) as db:
        db.execute("UPDATE history SET at = at - 86400 WHERE id <= 3")
    found = asked(serving(path))[0]["found"]
    assert (found["flagged"], len(found["flagged_studies"])) == (FLAGGED + 2, FLAGGED)
    assert found["flagged_studies"][0]["study"] == tag(f"{UID}.{FLAGGED + 4}")


def test_drift_is_looked_for_anew_only_after_new_studies_and_a_rest(
    serving, model, tmp_path, monkeypatch
):
    path = write_state(tmp_path / "state", model, QUIET)
    client = serving(path)
    watches = client.app.state.service.watches

    def rested():
        for kept in watches._kept.values():
            object.__setattr__(kept, "until", 0.0)

    assert asked(client)[0]["alarms"] == []
    write_state(path, model, [4.0] * 40)
    object.__setattr__(watches._kept[path], "until", time.monotonic() + 60)
    [told] = asked(client)
    assert (told["alarms"], told["found"]["flagged"]) == ([], 40)
    rested()
    [told] = asked(client)
    assert told["line"].startswith("ALARM: score is higher")
    assert "in at most 1 of 20 streams" in told["alarms"][0]
    monkeypatch.setattr("scrd.archive.overview.find_drift", None)  # would fail
    rested()
    assert asked(client) == [told]


def test_what_cannot_be_read_is_said_beside_the_others(serving, model, tmp_path):
    (tmp_path / "states").mkdir()
    good = write_state(tmp_path / "states" / "a", model)
    damaged = write_state(tmp_path / "damaged", model, QUIET)
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:4096] + bytes(len(whole) - 4096))
    odd = write_state(tmp_path / "odd", model, QUIET)
    with sqlite3.connect(odd) as db:
        db.execute("UPDATE watcher SET beat = 'never'")
    later, empty = tmp_path / "later", tmp_path / "empty"
    empty.mkdir()
    client = serving(damaged, odd, later, empty, good.parent)
    said = {one["state"]: one["problem"] for one in asked(client)}
    assert said.pop(str(good)) == ""
    assert said.pop(str(damaged)).startswith(f"{damaged}: cannot be read: ")
    assert said.pop(str(odd)) == f"{odd}: could not be looked at; the log says why"
    assert said.pop(str(later)) == f"{later}: no such file yet; scrd watch makes it when it starts"
    assert said.pop(str(empty)) == f"{empty}: no state file of scrd watch is in this folder"
    assert not said
    write_state(later, model)
    assert {one["state"]: one["problem"] for one in asked(client)}[str(later)] == ""
    lines = [x for x in client.get("/metrics").text.splitlines() if x.startswith("scrd_watch_")]
    assert sorted(lines) == [
        f'scrd_watch_well{{state="{path}"}} {well}'
        for path, well in sorted(
            {damaged: 0.0, odd: 0.0, later: 1.0, empty: 0.0, good: 1.0}.items(), key=str
        )
    ]


def test_a_state_that_is_written_to_can_be_read(serving, model, tmp_path):
    path = write_state(tmp_path / "state", model, QUIET)
    client = serving(path)
    with State(path, name="state archive", model="m") as state, state._transaction():
        state._db.execute("UPDATE studies SET reason = 'so'")
        assert asked(client)[0]["found"]["done"] == 30


def test_who_has_no_token_is_told_nothing(serving, model, tmp_path):
    token, line = new_token("anna", "read")
    (tmp_path / "tokens").write_text(line)
    path = write_state(tmp_path / "state", model)
    client = serving(path, tokens=read_tokens(tmp_path / "tokens"))
    answer = client.get("/v1/watches")
    assert answer.status_code == 401 and "archive" not in answer.text
    client.headers["authorization"] = f"Bearer {token}"
    assert asked(client)[0]["found"]["archive"] == "state archive"


def test_without_watches_there_are_none(serving):
    client = serving()
    assert asked(client) == []
    assert "scrd_watch_well{" not in client.get("/metrics").text


def test_what_was_meant_to_be_something_else_is_refused_at_the_start(serving, tmp_path):
    (tmp_path / "notes").write_text("so")
    with pytest.raises(ScrdError, match="notes: not a state file of scrd watch"):
        serving(tmp_path / "notes")
    (tmp_path / "begun").touch()  # a watch is just making it
    serving(tmp_path / "begun")
    words = ["serve", f"m={tmp_path}", "--store", tmp_path / "s", "--watch", tmp_path / "notes"]
    done = subprocess.run(
        [sys.executable, "-c", "from scrd.cli import run; run()", *map(str, words)],
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "300"},
    )
    assert (done.returncode, "not a state file of scrd watch" in done.stderr) == (2, True)


def test_the_server_does_not_import_what_reads_a_state_before_it_is_asked():
    code = "import sys; from scrd.serve.watches import Watches; Watches([]).look(); "
    code += "print({'numpy', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

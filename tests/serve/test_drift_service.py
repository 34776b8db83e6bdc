"""Whether the service sees that what it is sent has changed, and what it tells of that."""

import contextlib
import json
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest
from serving import finished, picture, send
from starlette.testclient import TestClient

from scrd.data.contract import Contract
from scrd.scoring.calibration import Acquisition, Calibration
from scrd.serve import drift as drift_module
from scrd.serve.app import make_app
from scrd.serve.jobs import Done, new_id
from scrd.serve.service import Settings
from scrd.serve.store import Store
from scrd.storage.plain import to_plain

PRINT, OTHER = "f" * 64, "e" * 64
SECRET = "Smith^Jane"


def values(count, seed, shift=0.0):
    rng = np.random.default_rng(seed)
    return {
        "score": rng.normal(1.0, 0.1, count),
        "brightness": rng.normal(0.4 + shift, 0.02, count),
        "contrast": rng.normal(0.2, 0.02, count),
        "sharpness": rng.normal(-5.0, 0.3, count),
    }


def calibration():
    found = values(150, 1)
    scores = tuple(found.pop("score").tolist())
    return Calibration(
        scores=scores,
        groups=tuple(range(150)),
        false_alarm_rate=0.05,
        threshold=1.2,
        map_threshold=2.0,
        map_scale=(0.0, 3.0),
        pooling="max",
        acquisition=Acquisition(**{name: tuple(v.tolist()) for name, v in found.items()}),
    )


@pytest.fixture
def service(tmp_path):
    """A service that scores nothing: its results are put into the store."""
    with Store(tmp_path / "store") as store:
        app = make_app(store, Settings([("m", tmp_path)]))
        service = app.state.service
        for fingerprint in (OTHER, PRINT):
            described = {"calibration": to_plain(calibration()), "contract": to_plain(Contract())}
            (store.models / f"{fingerprint}.json").write_text(json.dumps(described))
            service.models.add("m", tmp_path, fingerprint, None, given=True)
        service.client = TestClient(app, base_url="http://127.0.0.1")
        yield service


def image(one, covariates=True):
    record = {"score": one["score"], "flag": bool(one["score"] > 1.2)}
    told = {name: one[name] for name in ("brightness", "contrast", "sharpness")}
    told |= {"width": 64, "height": 64, "spacing": [0.5, 0.7]}
    told |= {"manufacturer": "ACME", "format": "DICOM"}
    return record | {"covariates": told if covariates else None}


def put(service, count, seed, shift=0.0, *, covariates=True, study=None, **changed):
    """Results as the worker leaves them, a job each."""
    found = values(count, seed, shift)
    for i in range(count):
        folder = service.jobs.begin()
        job = service.jobs.accept(folder, [f"{SECRET}.png"], 0, owner="anna").id
        one = image({name: float(v[i]) for name, v in found.items()}, covariates)
        series = None if study is None else {"uid": "1.2.3", "patient": SECRET}
        detail = {
            "images": [one],
            "series": series,
            "study": None if study is None else {"uid": "1.2.3", "tag": study(i)},
        }
        row = {"id": new_id(), "job": job, "place": 0, "shadow": 0, "model": "m"}
        row |= {"fingerprint": PRINT, "name": f"{SECRET}.png", "kind": "picture"}
        row |= {"created": time.time(), "score": one["score"], "p_value": 0.5, "flag": 0}
        row |= {"refusal": None, "doubts": 0, "images": 1, "detail": json.dumps(detail)}
        work = service.store.work / job
        work.mkdir()
        (work / "maps.npy").write_bytes(b"")
        service.jobs.finish([Done(job, [row | changed], [], work)])


def asked(service):
    for kept in service.drifts._kept.values():  # as if it had rested
        object.__setattr__(kept, "until", 0.0)
    answer = service.client.get("/v1/models/m/drift")
    assert answer.status_code == 200
    return answer.json()


def metric(service, name):
    text = service.client.get("/metrics").text
    (line,) = [line for line in text.splitlines() if line.startswith(f'{name}{{model="m"}}')]
    return float(line.split()[-1])


def test_a_brighter_stream_alarms_and_an_undisturbed_one_does_not(service):
    put(service, 60, 2)
    quiet = asked(service)
    assert (quiet["alarm"], quiet["alarms"]) == (0, [])
    assert quiet["line"].startswith("no alarm: wealth")
    assert quiet["found"]["counted"] == 60 and quiet["found"]["alarms"] == []
    assert set(quiet["found"]["medians"]) == {"score", "brightness", "contrast", "sharpness"}
    assert metric(service, "scrd_drift_alarm") == 0
    assert 0 < metric(service, "scrd_drift_wealth") < 20

    put(service, 60, 3, shift=0.1)
    loud = asked(service)
    assert loud["alarm"] == 100 and len(loud["alarms"]) == 2
    assert "brightness is higher than in the reference" in loud["alarms"][0]
    first = loud["found"]["alarms"][0]
    assert first["driver"] == "brightness" and 60 < first["image"] < 120
    assert service.results.get(first["result"])["fingerprint"] == PRINT
    assert metric(service, "scrd_drift_alarm") == 100
    log10 = loud["found"]["wealth"]["together"]["log10_now"]
    assert metric(service, "scrd_drift_wealth") == pytest.approx(10**log10)


def test_nothing_of_a_patient_and_no_path_is_told(service):
    put(service, 60, 3, shift=0.1, study=lambda i: f"{i:012x}")
    told = service.client.get("/v1/models/m/drift").text + service.client.get("/metrics").text
    assert '"alarm":100' in told
    for secret in (SECRET, "1.2.3", str(service.store.folder), "tables"):
        assert secret not in told
    assert SECRET not in (service.store.folder / "drift.json").read_text()


def test_a_study_counts_once_and_those_of_other_versions_and_on_trial_not_at_all(service):
    put(service, 12, 4, study=lambda i: f"{i // 3:012x}")
    put(service, 5, 5, shadow=1)
    put(service, 5, 6, fingerprint=OTHER)
    found = asked(service)["found"]
    assert (found["images"], found["counted"]) == (12, 4)
    assert service.client.put(f"/v1/models/m/{OTHER}", json={"role": "active"}).status_code == 200
    other = asked(service)
    assert (other["fingerprint"], other["found"]["images"]) == (OTHER, 5)


def test_results_without_covariates_count_by_score(service):
    put(service, 5, 7, covariates=False)
    put(service, 5, 8)
    found = asked(service)["found"]
    assert found["counted"] == 10 and set(found["medians"]) == {"score"}
    assert any("only the score is watched" in note for note in found["notes"])


def test_without_results_there_is_nothing_to_watch(service):
    said = asked(service)
    assert said["found"] is None and said["alarm"] == 0 and "nothing to watch" in said["line"]
    assert metric(service, "scrd_drift_wealth") == 1
    assert service.client.get("/v1/models/none/drift").status_code == 404


def test_of_a_model_that_is_not_described_no_drift_is_known(service):
    put(service, 3, 9)
    (service.store.models / f"{PRINT}.json").unlink()
    said = asked(service)
    assert said["line"].startswith("not known") and said["found"] is None


def test_a_stream_that_grows_too_long_or_loses_its_beginning_goes_on_with_half(
    service, monkeypatch
):
    monkeypatch.setattr(drift_module, "IMAGES", 20)
    put(service, 20, 10)
    assert asked(service)["found"]["images"] == 20
    put(service, 1, 11)
    assert asked(service)["found"]["images"] == 10
    put(service, 3, 12)
    assert asked(service)["found"]["images"] == 13  # it began anew once, not with every image
    begun = json.loads((service.store.folder / "drift.json").read_text())
    service.drifts = drift_module.Drifts(service.store, service.models, service.metrics)
    assert asked(service)["found"]["images"] == 13  # nor with a start of the service
    first = service.results.get(begun[f"m/{PRINT}"][1])
    service.jobs.delete(first["job"])
    put(service, 1, 13)
    assert asked(service)["found"]["images"] == 6


def test_it_is_not_looked_at_anew_before_it_has_rested_or_without_new_results(service, monkeypatch):
    looks = []
    find = service.drifts._find
    monkeypatch.setattr(service.drifts, "_find", lambda v: (looks.append(v), find(v))[1])
    put(service, 3, 14)
    asked(service)
    asked(service)
    assert len(looks) == 1
    put(service, 1, 15)
    (kept,) = service.drifts._kept.values()
    object.__setattr__(kept, "until", time.monotonic() + 60)
    assert service.client.get("/v1/models/m/drift").json()["found"]["images"] == 3
    assert asked(service)["found"]["images"] == 4


def test_the_worker_keeps_what_is_watched(client, shared):
    finished(client, send(client, ("a.png", picture(1))).json()["id"])
    said = client.get("/v1/models/disc/drift").json()
    assert said["found"]["images"] >= 1
    with contextlib.closing(sqlite3.connect(shared.store / "serve.sqlite")) as db:
        (detail,) = db.execute("SELECT detail FROM results WHERE kind = 'picture'").fetchone()
    told = json.loads(detail)["images"][0]["covariates"]
    assert told["brightness"] > 0 and (told["width"], told["height"]) == (64, 64)


def test_the_server_starts_without_what_watches():
    code = "import sys, scrd.serve.run; print({'numpy', 'scipy', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

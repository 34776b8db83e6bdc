"""Several models, by what they know; versions that are tried, let answer, and called back."""

import shutil
import signal
import time

import pytest
from serving import finished, picture, send

from scrd.errors import ConfigError
from scrd.serve.models import Version, parse_models, sibling
from synthetic_volumes import head, write_dicom


@pytest.fixture
def versions(exports, tmp_path):
    folder = tmp_path / "models"
    for name in ("first", "second"):
        shutil.copytree(exports / name, folder / name)
    return folder


def scored(client, **fields):
    job = finished(client, send(client, ("a.png", picture(1, spot=True)), **fields).json()["id"])
    (row,) = job["results"]
    return row


def test_each_image_goes_to_the_model_that_knows_it(client, tmp_path):
    write_dicom(tmp_path / "mr", head(3), 3)
    mr = [(f.name, f.read_bytes()) for f in (tmp_path / "mr").iterdir()]
    write_dicom(tmp_path / "ct", head(4), 4, modality="CT")
    ct = [(f.name, f.read_bytes()) for f in (tmp_path / "ct").iterdir()]
    assert scored(client)["model"] == "disc"
    (row,) = finished(client, send(client, *mr).json()["id"])["results"]
    assert row["model"] == "head" and row["score"] is not None
    (row,) = finished(client, send(client, *ct).json()["id"])["results"]
    assert row["score"] is None and row["refusal"].startswith("not what the model knows")
    (row,) = finished(client, send(client, *mr, model="disc").json()["id"])["results"]
    assert row["model"] == "disc" and "not what the model knows" in row["refusal"]


def test_a_version_is_loaded_tried_let_answer_and_called_back(serve, versions):
    server = serve(f"disc={versions / 'first'}")
    with server.client() as client:
        before = scored(client)
        first = before["fingerprint"]
        loaded = client.post("/v1/models/disc", json={"folder": "second"})
        assert loaded.status_code == 201 and loaded.json()["role"] == "standby"
        second = loaded.json()["fingerprint"]
        assert scored(client)["fingerprint"] == first != second

        place = f"/v1/models/disc/{second}"
        assert client.put(place, json={"role": "shadow"}).status_code == 200
        row = scored(client)
        assert (row["fingerprint"], row["score"]) == (first, before["score"])
        found = client.get(f"/v1/results/{row['id']}").json()
        other = client.get(f"/v1/results/{found['counterpart']}").json()
        assert other["shadow"] and other["fingerprint"] == second
        assert other["score"] == pytest.approx(row["score"] / 2, rel=1e-5)
        listed = client.get("/v1/results", params={"limit": 1000}).json()["results"]
        assert other["id"] not in [r["id"] for r in listed]
        assert client.get(f"/v1/results/{other['id']}/dicom/sr").status_code == 404
        wrong = client.put(f"/v1/results/{other['id']}/mark", json={"verdict": "right"})
        assert wrong.status_code == 404
        (pair,) = client.get("/v1/models/disc/comparison").json()
        assert (pair["flag"], pair["shadow_flag"]) == (1, 0)

        assert client.put(place, json={"role": "active"}).status_code == 200
        assert scored(client)["fingerprint"] == second
        resting = client.put(place, json={"role": "standby"})
        assert resting.status_code == 409 and "another one answer" in resting.json()["detail"]
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(30)
    server.start()
    with server.client() as client:
        assert scored(client)["fingerprint"] == second  # the choice outlives a restart
        back = client.put(f"/v1/models/disc/{first}", json={"role": "active"})
        assert back.status_code == 200
        assert scored(client)["fingerprint"] == first
        # what the version before said is still to be seen
        assert client.get(f"/v1/results/{row['id']}/overlay.png").status_code == 200


def test_a_version_that_cannot_be_loaded_changes_nothing(serve, versions):
    server = serve(f"disc={versions / 'first'}")
    network = versions / "second" / "model.onnx"
    network.write_bytes(network.read_bytes()[:-10])
    with server.client() as client:
        answer = client.post("/v1/models/disc", json={"folder": "second"})
        assert answer.status_code == 422 and "model.onnx" in answer.json()["detail"]
        assert client.post("/v1/models/disc", json={"folder": "third"}).status_code == 422
        assert client.post("/v1/models/none", json={"folder": "second"}).status_code == 404
        assert client.get("/readyz").status_code == 200
        assert scored(client)["model"] == "disc"


def test_a_new_model_on_the_command_line_answers(serve, versions):
    server = serve(f"disc={versions / 'first'}")
    with server.client() as client:
        first = scored(client)["fingerprint"]
    server.stop()
    server.models = [f"disc={versions / 'second'}"]
    server.start()
    with server.client() as client:
        assert scored(client)["fingerprint"] != first
        roles = {v["folder"]: v["role"] for v in client.get("/v1/models").json()}
        assert roles == {"first": "standby", "second": "active"}


def test_a_model_that_cannot_be_loaded_ends_the_command(tmp_path, exports):
    import subprocess
    import sys

    shutil.copytree(exports / "first", tmp_path / "bad")
    (tmp_path / "bad" / "calibration.json").write_text("{}")
    done = subprocess.run(
        [sys.executable, "-c", "from scrd.cli import run; run()", "serve", tmp_path / "bad"]
        + ["--store", tmp_path / "store", "--port", "0"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2 and "calibration.json" in done.stderr


def test_names_and_folders_of_models(tmp_path):
    (tmp_path / "chest").mkdir()
    (tmp_path / "a b").mkdir()
    folder = tmp_path / "chest"
    assert parse_models([str(folder), f"x={folder}"]) == [("chest", folder), ("x", folder)]
    for given in (f"a b={folder}", str(tmp_path / "a b"), str(tmp_path / "none"), f"../x={folder}"):
        with pytest.raises(ConfigError):
            parse_models([given])
    version = Version("chest", "0" * 64, folder, "active", 0.0)
    (tmp_path / "v2").mkdir()
    assert sibling([version], "v2") == tmp_path / "v2"
    for name in ("..", "../v2", "/etc", "v2/..", "absent", ""):
        with pytest.raises(ConfigError):
            sibling([version], name)


def test_no_torch_for_an_export_and_ready_in_time(serve, exports):
    begun = time.monotonic()
    server = serve(f"disc={exports / 'first'}")
    seconds = time.monotonic() - begun
    for pid in [server.process.pid, *server.children("worker")]:
        with open(f"/proc/{pid}/maps") as maps:
            assert "libtorch" not in maps.read()
    assert seconds < 15  # on a busy machine; see docs/service.md for a quiet one

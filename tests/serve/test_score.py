"""What is sent is scored as `scrd score` scores it, and what cannot be is refused by name."""

import io
import json
import zipfile

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from serving import finished, picture, send, zipped

from scrd.export.runtime import ExportedScorer
from synthetic_volumes import head, write_dicom, write_nifti


@pytest.fixture(scope="module")
def scorer(exports):
    return ExportedScorer.load(exports / "first", threads=1)


@pytest.fixture(scope="module")
def result(shared):
    with shared.client() as client:
        answer = send(client, ("spot.png", picture(7, spot=True)))
        assert answer.status_code == 202
        assert answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
        return finished(client, answer.json()["id"])["results"][0]


def test_scores_are_those_of_the_model(client, scorer, tmp_path):
    names = [f"{i}.png" for i in range(5)]
    files = [(name, picture(i, spot=i % 2 == 1)) for i, name in enumerate(names)]
    for name, content in files:
        (tmp_path / name).write_bytes(content)
    expected = list(scorer.score([tmp_path / name for name in names]))
    found = finished(client, send(client, *files).json()["id"])
    assert [r["name"] for r in found["results"]] == names
    for row, scored in zip(found["results"], expected, strict=True):
        assert row["score"] == pytest.approx(scored.score, rel=1e-6)
        assert (row["p_value"], row["flag"]) == (scored.p_value, scored.flag)
        assert row["fingerprint"] == scorer.fingerprint and row["model"] == "disc"
        assert row["doubts"] == len(scored.doubts)
    assert [row["flag"] for row in found["results"]] == [False, True, False, True, False]


def test_the_map_is_the_one_that_was_scored(client, scorer, result, tmp_path):
    (tmp_path / "spot.png").write_bytes(picture(7, spot=True))
    (scored,) = scorer.score([tmp_path / "spot.png"])
    answer = client.get(f"/v1/results/{result['id']}/map.npy")
    found = np.load(io.BytesIO(answer.content), allow_pickle=False)
    np.testing.assert_array_equal(found, scorer.source_map(scored))
    assert 'filename="map.npy"' in answer.headers["content-disposition"]


def test_pictures_are_drawn(client, result):
    place = f"/v1/results/{result['id']}"
    overlay = Image.open(io.BytesIO(client.get(f"{place}/overlay.png").content))
    assert overlay.width > 2 * 320
    source = Image.open(io.BytesIO(client.get(f"{place}/source.png").content))
    assert source.size == (64, 64) and source.getextrema() == (
        Image.open(io.BytesIO(picture(7, spot=True))).getextrema()
    )
    dark = client.get(f"{place}/source.png", params={"low": 200, "high": 255}).content
    assert np.asarray(Image.open(io.BytesIO(dark))).mean() < 20
    assert client.get(f"{place}/source.png", params={"low": 5}).status_code == 422
    thumb = Image.open(io.BytesIO(client.get(f"{place}/thumbnail.jpg").content))
    assert max(thumb.size) <= 128
    assert client.get(f"{place}/overlay.png", params={"slice": 1}).status_code == 404


def test_the_viewers_file_holds_picture_map_and_reasons(client, result):
    content = client.get(f"/v1/results/{result['id']}/view.bin").content
    length = int.from_bytes(content[:4], "little")
    header = json.loads(content[4 : 4 + length])
    assert (header["width"], header["height"], header["bits"]) == (64, 64, 8)
    at = -(-(4 + length) // 8) * 8
    pixels = np.frombuffer(content, np.uint8, 64 * 64, at).reshape(64, 64)
    sent = np.asarray(Image.open(io.BytesIO(picture(7, spot=True))))
    np.testing.assert_array_equal(pixels, sent)
    at = -(-(at + 64 * 64) // 8) * 8
    values = np.frombuffer(content, np.float32, -1, at)
    assert values.size == header["map"]["width"] * header["map"]["height"]
    assert any("normal images" in sentence for sentence in header["why"])
    assert header["map"]["unit"] == "standard deviations of normals"


def test_a_study_in_a_zip_has_verdicts_a_volume_and_objects(client, tmp_path):
    write_dicom(tmp_path / "study", head(1), 1)
    files = [(f"a/{f.name}", f.read_bytes()) for f in sorted((tmp_path / "study").iterdir())]
    job = finished(client, send(client, ("study.zip", zipped(files))).json()["id"])
    (row,) = job["results"]
    assert (row["images"], row["kind"], row["name"], row["model"]) == (8, "MR", "a", "head")
    place = f"/v1/results/{row['id']}"
    found = client.get(place).json()
    assert found["study"]["uid"] == "1.2.3.1" and found["series"]["uid"] == "1.2.3.1.1"
    assert found["series"]["verdict"]["score"] == row["score"]
    assert found["study"]["verdict"]["images"] == 8 and found["series"]["volume"]
    scores = [image["score"] for image in found["per_image"]]
    assert max(scores) == pytest.approx(row["score"], rel=1e-6)  # of 8 images one is a tenth
    volume = client.get(f"{place}/map.nii.gz").content
    (tmp_path / "map.nii.gz").write_bytes(volume)
    assert nib.load(tmp_path / "map.nii.gz").shape == (48, 40, 8)
    pydicom = pytest.importorskip("pydicom")
    pytest.importorskip("highdicom", reason="no highdicom: no objects")
    report = client.get(f"{place}/dicom/sr")
    assert report.status_code == 200, report.text
    dataset = pydicom.dcmread(io.BytesIO(report.content))
    assert dataset.Modality == "SR" and dataset.StudyInstanceUID == "1.2.3.1"
    overlays = client.get(f"{place}/dicom/sc")
    content = io.BytesIO(overlays.content)
    if overlays.headers["content-type"] == "application/zip":
        assert len(zipfile.ZipFile(content).namelist()) > 1
    else:
        assert pydicom.dcmread(content).Modality == "OT"


def test_a_nifti_volume_is_one_result(client, tmp_path):
    write_nifti(tmp_path / "head.nii.gz", head(2))
    content = (tmp_path / "head.nii.gz").read_bytes()
    job = finished(client, send(client, ("head.nii.gz", content)).json()["id"])
    (row,) = job["results"]
    assert (row["images"], row["kind"], row["model"]) == (8, "NIfTI", "head")
    volume = client.get(f"/v1/results/{row['id']}/map.nii.gz").content
    (tmp_path / "map.nii.gz").write_bytes(volume)
    source = nib.load(tmp_path / "head.nii.gz")
    assert nib.load(tmp_path / "map.nii.gz").shape == source.shape
    assert client.get(f"/v1/results/{row['id']}/dicom/sr").status_code == 404


def test_what_is_no_image_is_refused_by_name_and_costs_only_itself(client):
    files = [("good.png", picture(3)), ("notes.txt", b"hello"), ("empty.png", b"")]
    job = finished(client, send(client, *files).json()["id"])
    rows = {row["name"]: row for row in job["results"]}
    assert rows["good.png"]["score"] is not None and rows["good.png"]["refusal"] is None
    assert "not a PNG" in rows["notes.txt"]["refusal"]
    assert rows["empty.png"]["refusal"] == "the file is empty"
    assert job["images"] == job["images_done"] == 3
    bad = client.get(f"/v1/results/{rows['notes.txt']['id']}/overlay.png")
    assert bad.status_code == 404 and "not a PNG" in bad.json()["detail"]


def test_progress_is_told_until_the_end(client):
    job = send(client, *[(f"{i}.png", picture(i)) for i in range(6)]).json()["id"]
    events = []
    with client.stream("GET", f"/v1/jobs/{job}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith("data: "):
                events.append(json.loads(line.removeprefix("data: ")))
    assert events[-1]["status"] == "done" and events[-1]["job"] == job
    with client.stream("GET", f"/v1/jobs/{job}/events") as stream:
        assert '"done"' in "".join(stream.iter_text())


def test_one_may_wait_for_the_end_of_a_job(client):
    job = send(client, ("a.png", picture(9))).json()["id"]
    answer = client.get(f"/v1/jobs/{job}", params={"wait": 30}).json()
    assert answer["status"] == "done" and len(answer["results"]) == 1
    assert client.get(f"/v1/jobs/{job}", params={"wait": 300}).status_code == 422
    assert client.get("/v1/jobs/" + "0" * 32, params={"wait": 1}).status_code == 404


def test_the_list_is_filtered_sorted_and_paged(client):
    files = [(f"list {i}.png", picture(i + 50, spot=i % 3 == 0)) for i in range(7)]
    job = finished(client, send(client, *files).json()["id"])["id"]
    everything = client.get("/v1/results", params={"job": job, "sort": "score"}).json()
    scores = [row["score"] for row in everything["results"]]
    assert everything["total"] == 7 and scores == sorted(scores, reverse=True)
    flagged = client.get("/v1/results", params={"job": job, "flag": True}).json()
    assert flagged["total"] == sum(row["flag"] for row in everything["results"]) > 0
    parts = [
        client.get("/v1/results", params={"job": job, "sort": "name", "limit": 3, "offset": at})
        for at in (0, 3, 6)
    ]
    names = [row["name"] for part in parts for row in part.json()["results"]]
    assert names == sorted(name for name, _ in files)
    found = client.post("/v1/results/search", json={"name": "LIST 3"}).json()
    assert [row["name"] for row in found["results"]] == ["list 3.png"]
    assert client.get("/v1/results", params={"limit": 5000}).status_code == 422


def test_a_mark_is_kept_and_exported(client, result):
    place = f"/v1/results/{result['id']}/mark"
    comment = '=SUM(A1) "quoted", and\nanother line'
    assert client.put(place, json={"verdict": "wrong", "comment": comment}).status_code == 204
    found = client.get(f"/v1/results/{result['id']}").json()
    assert found["mark"] == {"verdict": "wrong", "comment": comment}
    table = client.get("/v1/marks.csv").text
    assert table.splitlines()[0].startswith("result,model,fingerprint,score")
    assert result["id"] in table and "'=SUM" in table
    assert client.put(place, json={"verdict": "maybe"}).status_code == 422
    unknown = "/v1/results/" + "0" * 32 + "/mark"
    assert client.put(unknown, json={"verdict": "right"}).status_code == 404
    assert client.delete(place).status_code == 204
    assert client.get(f"/v1/results/{result['id']}").json()["mark"] is None


def test_a_job_sent_twice_under_one_key_is_one_job(client):
    headers = {"idempotency-key": "the same"}
    files = [("files", ("a.png", picture(1)))]
    first = client.post("/v1/score", files=files, headers=headers)
    second = client.post("/v1/score", files=files, headers=headers)
    assert first.status_code == second.status_code == 202
    assert first.json()["id"] == second.json()["id"]


def test_the_client_of_the_package(shared, tmp_path):
    from scrd.serve.client import Client, ServiceError

    (tmp_path / "a.png").write_bytes(picture(4, spot=True))
    with Client(shared.url) as client:
        job = client.score([tmp_path / "a.png"])
        assert job.status == "done" and job.results[0].name == "a.png"
        client.mark(job.results[0], "right", "a spot")
        assert client.details(job.results[0])["mark"]["comment"] == "a spot"
        drift = client.drift(job.results[0].model)
        assert drift["name"] == job.results[0].model and drift["alarm"] == 0
        with pytest.raises(ServiceError, match="404"):
            client.drift("no/such model")
        path = client.download(job.results[0], "overlay.png", tmp_path / "o.png")
        assert Image.open(path).format == "PNG"
        with pytest.raises(ServiceError, match="404"):
            client.job("0" * 32)
        with pytest.raises(ServiceError, match="no model of this name"):
            client.score([tmp_path / "a.png"], model="other")

"""A study fetched and results stored, through the DICOMweb plugin of a real Orthanc."""

import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pydicom
import pytest
from archives import OrthancServer, Study, missing, result_uid, write_result
from pydicom.uid import RLELossless, generate_uid

from scrd.archive.connection import Address, ArchiveError
from scrd.archive.dicomweb import fetch_study, store
from scrd.errors import ScrdError


def test_what_was_pushed_is_fetched(server, tmp_path):
    study, other = Study(tmp_path / "a"), Study(tmp_path / "b")
    server.push(*study.add(3), *other.add(1), study.add_report())
    server.push(write_result(tmp_path / "own.dcm", study.uid))
    files = fetch_study(server.dicomweb, study.uid, tmp_path / "fetched")
    assert [f.name for f in files] == ["000001.dcm", "000002.dcm", "000003.dcm"]
    fetched = {pydicom.dcmread(f).SOPInstanceUID: pydicom.dcmread(f) for f in files}
    for path in study.files:
        pushed = pydicom.dcmread(path)
        assert fetched[pushed.SOPInstanceUID] == pushed


def test_compressed_images_are_fetched_as_they_are(server, tmp_path):
    study = Study(tmp_path / "a")
    (file,) = study.add()
    compressed = pydicom.dcmread(file)
    compressed.compress(RLELossless, generate_instance_uid=False)
    compressed.save_as(file)
    server.push(file)
    (fetched,) = fetch_study(server.dicomweb, study.uid, tmp_path / "fetched")
    back = pydicom.dcmread(fetched)
    assert back.file_meta.TransferSyntaxUID == RLELossless
    assert back.PixelData == compressed.PixelData


def test_results_are_found_in_the_study(server, tmp_path):
    study = Study(tmp_path / "a")
    server.push(*study.add(2))
    files = [write_result(tmp_path / f"{i}.dcm", study.uid, number=i) for i in range(2)]
    for _ in range(2):
        store(server.dicomweb, files)
        assert server.results(study.uid) == sorted(result_uid(study.uid, i) for i in range(2))


def test_a_study_that_is_not_there_is_an_error(server, tmp_path):
    with pytest.raises(ArchiveError, match="no image of it") as e:
        fetch_study(server.dicomweb, generate_uid(), tmp_path / "fetched")
    assert server.url in str(e.value)
    with pytest.raises(ArchiveError, match="not a Study Instance UID"):
        fetch_study(server.dicomweb, "../../etc", tmp_path / "fetched")


def test_a_result_that_is_not_taken_is_an_error(server, tmp_path):
    path = write_result(tmp_path / "r.dcm", generate_uid())
    broken = pydicom.dcmread(path)
    del broken.StudyInstanceUID
    broken.save_as(path)
    with pytest.raises(ArchiveError, match="storing result 1 of 1") as e:
        store(server.dicomweb, [path])
    assert e.value.status is not None
    assert not e.value.away


class Refusing(BaseHTTPRequestHandler):
    """An archive that takes nothing and says so in the answer's body only (PS3.18, I.2)."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        item = {"00081197": {"vr": "US", "Value": [0xC122]}}
        body = json.dumps({"00081198": {"vr": "SQ", "Value": [item]}}).encode()
        self.send_response(202)
        self.send_header("Content-Type", "application/dicom+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_a_refusal_in_the_body_of_the_answer_is_an_error(tmp_path):
    path = write_result(tmp_path / "r.dcm", generate_uid())
    with HTTPServer(("127.0.0.1", 0), Refusing) as archive:
        threading.Thread(target=archive.serve_forever, daemon=True).start()
        with pytest.raises(ArchiveError, match="1 of 1: refused, failure reason 0xC122"):
            store(f"http://127.0.0.1:{archive.server_port}", [path])
        archive.shutdown()


def test_another_service_is_an_error(server, tmp_path):
    elsewhere = server.dicomweb.replace("dicom-web", "nowhere")
    with pytest.raises(ArchiveError, match="searching the study's series: HTTP 404"):
        fetch_study(elsewhere, generate_uid(), tmp_path / "fetched")
    server.kill()
    with pytest.raises(ArchiveError, match="no connection") as e:
        fetch_study(server.dicomweb, generate_uid(), tmp_path / "fetched")
    assert e.value.away


def test_passwords_log_in_and_are_never_said(tmp_path, monkeypatch, caplog):
    if missing():
        pytest.skip(missing())
    server = OrthancServer(
        tmp_path / "orthanc", AuthenticationEnabled=True, RegisteredUsers={"me": "p@ss word"}
    )
    server.auth = ("me", "p@ss word")
    server.start()
    try:
        study = Study(tmp_path / "a")
        server.push(*study.add(1))
        with caplog.at_level(logging.DEBUG):
            with_password = server.dicomweb.replace("://", "://me:p%40ss%20word@")
            assert len(fetch_study(with_password, study.uid, tmp_path / "f1")) == 1
            with pytest.raises(ArchiveError, match="HTTP 401") as e:
                fetch_study(with_password.replace("p%40", "p%41"), study.uid, tmp_path / "f2")
            assert "ss%20word" not in str(e.value)
            monkeypatch.setenv("SCRD_DICOMWEB_USER", "me")
            monkeypatch.setenv("SCRD_DICOMWEB_PASSWORD", "p@ss word")
            assert len(fetch_study(server.dicomweb, study.uid, tmp_path / "f3")) == 1
    finally:
        server.kill()
    assert "ss%20word" not in caplog.text
    assert "ss word" not in caplog.text
    assert "secret-17" not in caplog.text


def test_a_token_is_sent(monkeypatch):
    monkeypatch.setenv("SCRD_DICOMWEB_TOKEN", "t0ken")
    address = Address.parse("dicomwebs://host/dicom-web/", "DICOMWEB")
    assert address.url == "https://host/dicom-web"
    assert address.session().headers["Authorization"] == "Bearer t0ken"
    assert "t0ken" not in repr(address)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("dicomweb://host:8042/a/b/", "http://host:8042/a/b"),
        ("https://u:p@host", "https://host"),
        ("http://u@[::1]:80/x", "http://[::1]:80/x"),
    ],
)
def test_addresses(url, place):
    address = Address.parse(url, "ORTHANC")
    assert address.url == place
    assert "login" not in repr(address)


@pytest.mark.parametrize(
    "url", ["host:8042", "ftp://u:hush@host", "http://", "http://h:hush", "http://h?token=hush", ""]
)
def test_what_is_no_address_is_refused_without_being_quoted(url):
    with pytest.raises(ScrdError, match="not of the form") as e:
        Address.parse(url, "ORTHANC")
    assert "hush" not in str(e.value)

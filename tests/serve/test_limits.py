"""What is too large, too slow or broken gets its refusal, and the rest goes on."""

import socket
import struct
import time
import zipfile
from io import BytesIO

import anyio
import pytest
from serving import changed, finished, holding, picture, send, zipped

from scrd.serve.archives import unpack
from scrd.serve.limits import Limits
from scrd.serve.uploads import Received, Refused, receive, text_of

KIND = {"content-type": "multipart/form-data; boundary=x"}
USUAL = Limits()
PART = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'


def received(folder, chunks, limits=USUAL, kind=KIND["content-type"], length=None):
    async def stream():
        for chunk in chunks:
            if isinstance(chunk, float):
                await anyio.sleep(chunk)
            else:
                yield chunk

    return anyio.run(receive, stream(), kind, length, folder, limits)


def refused(status, folder, chunks, **given):
    with pytest.raises(Refused) as caught:
        received(folder, chunks, **given)
    assert caught.value.status == status, caught.value.reason
    return caught.value.reason


def body(*parts):
    return b"".join(parts) + b"\r\n--x--\r\n"


def test_a_body_is_the_same_in_any_pieces(tmp_path):
    content = bytes(range(256)) * 4
    whole = body(
        PART + content + b'\r\n--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nchest'
    )
    for size in (1, 7, 64, len(whole)):
        folder = tmp_path / str(size)
        folder.mkdir()
        found = received(folder, [whole[i : i + size] for i in range(0, len(whole), size)])
        assert (folder / "0").read_bytes() == content
        assert (found.names, found.fields, found.size) == (["a.png"], {"model": "chest"}, 1024)


def test_bodies_that_are_none(tmp_path):
    refused(415, tmp_path, [], kind="application/json")
    refused(400, tmp_path, [], kind="multipart/form-data")
    refused(400, tmp_path, [b"hello"])
    refused(400, tmp_path, [PART + b"half of"])
    refused(400, tmp_path, [b"--x\r\nContent-Disposition: attachment\r\n\r\na\r\n--x--\r\n"])
    refused(422, tmp_path, [body(b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb')])
    refused(413, tmp_path, [body(PART, bytes(2000))], limits=Limits(body_bytes=1000))
    refused(413, tmp_path, [], length=str(5 << 30))
    refused(413, tmp_path, [body(PART, b"1\r\n", PART, b"2")], limits=Limits(files=1))
    slow = Limits(idle_seconds=0.05)
    assert "slowly" in refused(408, tmp_path, [PART, 1.0, b"x"], limits=slow)
    slow = Limits(upload_seconds=0.1)
    refused(408, tmp_path, [PART, *[b"x", 0.03] * 20], limits=slow)
    field = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\n' + bytes(9000)
    refused(413, tmp_path, [body(field)])


def test_names_are_texts():
    assert text_of(b"../../etc/passwd") == "../../etc/passwd"
    assert text_of(b"a\r\nSet-Cookie: x\0\x1b[31m") == "a\ufffd\ufffdSet-Cookie: x\ufffd\ufffd[31m"
    assert text_of("Müller^Jürgen".encode()) == "Müller^Jürgen"
    assert len(text_of(b"a" * 5000)) == 1024
    assert text_of(b"\xff\xfe") == "\ufffd\ufffd"


def packed(folder, *contents):
    found = Received(folder, Limits())
    for i, content in enumerate(contents):
        (folder / str(i)).write_bytes(content)
        found.names.append(f"sent {i}")
        found.size += len(content)
    return found


def test_a_zip_becomes_its_files_and_no_name_a_path(tmp_path):
    members = [("../../evil.dcm", b"one"), ("/abs", b"two"), ("a\\b", b"three"), (".hid", b"x")]
    members += [("__MACOSX/._a", b"x"), ("folder/", b"")]
    found = packed(tmp_path, b"plain", zipped(members), b"last")
    unpack(found, Limits())
    assert found.names == ["sent 0", "sent 2", "../../evil.dcm", "/abs", "a\\b"]
    assert [p.read_bytes() for p in sorted(tmp_path.iterdir())] == [
        *(b"plain", b"last", b"one", b"two", b"three"),
    ]
    assert found.size == len(b"plainlastonetwothree")
    assert not (tmp_path.parent / "evil.dcm").exists()


def lying(content):
    """A zip whose directory says that its file is small."""
    raw = bytearray(zipped([("a", content)]))
    at = raw.rindex(b"PK\x01\x02")
    raw[at + 24 : at + 28] = struct.pack("<I", 10)
    raw[22:26] = struct.pack("<I", 10)
    return bytes(raw)


def locked():
    raw = bytearray(zipped([("a", b"secret")]))
    raw[6] |= 1
    raw[raw.rindex(b"PK\x01\x02") + 8] |= 1
    return bytes(raw)


@pytest.mark.parametrize(
    ("content", "limits", "status"),
    [
        (zipped([("a", bytes(3 << 20))]), Limits(unzip_free_bytes=1 << 20), 413),
        (zipped([("a", bytes(3 << 20))]), Limits(unzipped_bytes=1 << 20), 413),
        (lying(bytes(3 << 20)), Limits(unzip_free_bytes=1 << 20), (413, 422)),
        (zipped([(str(i), b"") for i in range(20)]), Limits(files=10), 413),
        (zipped([("inner.zip", zipped([("a", b"b")]))]), Limits(), 422),
        (zipped([("a", b"hello" * 100)])[:-30], Limits(), 422),
        (zipped([]), Limits(), 422),
        (locked(), Limits(), 422),
    ],
    ids=["ratio", "bytes", "lying", "files", "nested", "truncated", "empty", "locked"],
)
def test_zips_that_are_not_taken(tmp_path, content, limits, status):
    with pytest.raises(Refused) as caught:
        unpack(packed(tmp_path, content), limits)
    assert caught.value.status in (status if isinstance(status, tuple) else (status,))


def test_a_bomb_costs_no_more_than_the_lid(tmp_path):
    file = BytesIO()
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("bomb", "w", force_zip64=True) as member,
    ):
        for _ in range(400):
            member.write(bytes(1 << 20))
    limits = Limits(unzip_free_bytes=4 << 20, unzip_ratio=10)
    with pytest.raises(Refused, match="swells"):
        unpack(packed(tmp_path, file.getvalue()), limits)
    written = sum(p.stat().st_size for p in tmp_path.iterdir())
    assert written < 8 << 20


# -------------------------------------------------------------------- against a running server


def raw(server, text, content=b"", wait=10.0):
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=wait) as line:
        line.sendall(text.replace("\n", "\r\n").encode() + content)
        return b"".join(iter(lambda: line.recv(65536), b"")).decode(errors="replace")


def test_five_gigabytes_are_refused_before_they_come(shared):
    begun = time.monotonic()
    answer = raw(
        shared,
        f"POST /v1/score HTTP/1.1\nHost: {shared.url[7:]}\nContent-Length: {5 << 30}\n"
        "Content-Type: multipart/form-data; boundary=x\n\n",
    )
    assert answer.startswith("HTTP/1.1 413") and time.monotonic() - begun < 5
    assert "2,147,483,648 bytes" in answer


def test_who_still_sends_sees_the_refusal(shared):
    """Two megabytes are on their way when the refusal is clear from the first bytes."""
    host, port = shared.url.removeprefix("http://").split(":")
    for _ in range(5):
        with socket.create_connection((host, int(port)), timeout=10) as line:
            line.sendall(
                f"POST /v1/score HTTP/1.1\r\nHost: {host}\r\nContent-Length: 2000000\r\n".encode()
                + b"Origin: https://evil.example\r\nConnection: close\r\n\r\n"
            )
            time.sleep(0.05)
            line.sendall(bytes(2_000_000))
            answer = b"".join(iter(lambda: line.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 403")


def test_headers_cannot_be_injected(shared, client):
    name = "a\r\nX-Injected: yes\r\n.png"
    part = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    sent = client.post("/v1/score", content=body(part.encode(), picture(0)), headers=KIND)
    if sent.status_code == 202:  # else the parser refused it
        row = finished(client, sent.json()["id"])["results"][0]
        assert "\n" not in row["name"] and "\r" not in row["name"]
        for what in ("map.npy", "source.png"):
            headers = client.get(f"/v1/results/{row['id']}/{what}").headers
            assert "x-injected" not in headers
    else:
        assert sent.status_code == 400


def test_a_client_that_hangs_up_leaves_nothing(shared, client):
    host, port = shared.url.removeprefix("http://").split(":")
    before = sorted((shared.store / "uploads").iterdir())
    for _ in range(3):
        line = socket.create_connection((host, int(port)))
        line.sendall(
            f"POST /v1/score HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100000\r\n".encode()
            + b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
            + PART
            + bytes(500)
        )
        time.sleep(0.1)
        line.close()
    end = time.monotonic() + 10
    while sorted((shared.store / "uploads").iterdir()) != before:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert finished(client, send(client, ("a.png", picture(0))).json()["id"])["status"] == "done"


def test_a_full_queue_says_when_to_come_again(serve, exports, tmp_path):
    small = (
        "from dataclasses import fields\n"
        "from scrd.serve.limits import Limits\n"
        "small = {'waiting_jobs': 3}\n"
        "given = [small.get(f.name, f.default) for f in fields(Limits)]\n"
        "Limits.__init__.__defaults__ = tuple(given)\n"
    )
    go = tmp_path / "go"
    held = holding(tmp_path / "held", until=f"os.path.exists({str(go)!r})")
    server = serve(exports / "first", program=changed(tmp_path, server=small, worker=held))
    with server.client() as client:
        answers = [send(client, (f"{i}.png", picture(i))) for i in range(12)]
        assert [a.status_code for a in answers] == [202] * 3 + [429] * 9
        assert all(1 <= int(a.headers["retry-after"]) <= 120 for a in answers[3:])
        go.touch()
        for answer in answers:
            if answer.status_code == 202:
                assert finished(client, answer.json()["id"])["status"] == "done"
        assert send(client, ("a.png", picture(0))).status_code == 202

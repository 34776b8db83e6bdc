"""Nobody gets in without a token, nobody does more than it may, and nothing leads outside."""

import re
import ssl
import subprocess
import sys

import httpx
import pytest
from serving import finished, picture, send

from scrd.errors import ConfigError
from scrd.serve.auth import Auth, check_address, new_token, read_tokens, store_secret

OPEN = {"/", "/healthz", "/readyz"}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    """A tokens file, and the tokens by role."""
    file = tmp_path_factory.mktemp("tokens") / "tokens"
    made = {role: new_token(f"{role}er", role) for role in ("read", "write", "manage")}
    file.write_text("# ours\n\n" + "".join(f"{line}\n" for _, line in made.values()))
    return file, {role: token for role, (token, _) in made.items()}


@pytest.fixture(scope="module")
def closed(exports, tokens, tmp_path_factory):
    """A server with tokens."""
    from serving import Server

    store = tmp_path_factory.mktemp("closed") / "store"
    server = Server(store, [f"disc={exports / 'first'}"], "--tokens", tokens[0])
    yield server.start()
    server.kill()


def bearing(server, token):
    return server.client(authorization=f"Bearer {token}")


@pytest.fixture(scope="module")
def result(closed, tokens):
    with bearing(closed, tokens[1]["write"]) as client:
        job = send(client, ("a.png", picture(1, spot=True))).json()["id"]
        return finished(client, job)["results"][0]


def routes(server):
    with server.client() as client:
        client.headers["authorization"] = "x"
    from scrd.serve import routes_results, routes_score, routes_state

    for module in (routes_results, routes_score, routes_state):
        for route in module.router.routes:
            for method in route.methods - {"HEAD"}:
                yield method, route.path


def test_no_route_answers_without_a_token(closed, result):
    fill = {"result": result["id"], "job": result["job"], "kind": "sr", "name": "disc"}
    fill["fingerprint"] = result["fingerprint"]
    asked = 0
    with closed.client() as client:
        for method, path in routes(closed):
            address = re.sub(r"{(\w+)}", lambda m: fill[m[1]], path)
            for headers in ({}, {"authorization": "Bearer scrd_wrong"}, {"cookie": "x=y"}):
                status = client.request(method, address, headers=headers).status_code
                if path in OPEN:
                    assert status == 200
                elif path == "/v1/session" and method != "GET":
                    assert status in (204, 422)
                else:
                    assert status == 401, (method, path)
                asked += 1
        assert client.get("/v1/openapi.json").status_code == 401
        assert client.get("/nothing").status_code == 401
    assert asked > 60


def test_a_token_does_what_its_role_may(closed, tokens, result):
    mark = f"/v1/results/{result['id']}/mark"
    body = {"verdict": "right"}
    for role, may in (("read", 0), ("write", 1), ("manage", 2)):
        with bearing(closed, tokens[1][role]) as client:
            assert client.get("/v1/results").status_code == 200
            assert client.get("/metrics").status_code == 200
            statuses = [
                send(client, ("a.png", picture(0))).status_code,
                client.put(mark, json=body).status_code,
            ]
            assert statuses == ([202, 204] if may >= 1 else [403, 403]), role
            assert client.get("/v1/audit").status_code == (200 if may >= 2 else 403)
            loaded = client.post("/v1/models/disc", json={"folder": "absent"}).status_code
            assert loaded == (422 if may >= 2 else 403)


def test_the_audit_says_who_read_what_and_nothing_of_patients(closed, tokens):
    with bearing(closed, tokens[1]["write"]) as client:
        job = send(client, ("Doe^Jane 1970.png", picture(5))).json()["id"]
        row = finished(client, job)["results"][0]
        client.get(f"/v1/results/{row['id']}/source.png")
        client.post("/v1/results/search", json={"name": "Doe"})
    with bearing(closed, tokens[1]["manage"]) as client:
        lines = client.get("/v1/audit").json()
    assert {"who": "writeer", "object": row["id"], "status": 200}.items() <= next(
        line for line in lines if line["action"] == "GET /v1/results/{result}/source.png"
    ).items()
    assert any(line["action"] == "POST /v1/results/search" for line in lines)
    assert "Doe" not in str(lines) and "Doe" not in closed.text()
    assert any(line["who"] == "nobody" and line["status"] == 401 for line in lines)


def test_the_page_signs_in_and_changes_nothing_without_its_own_word(closed, tokens, result):
    with closed.client() as client:
        assert client.post("/v1/session", json={"token": "wrong"}).status_code == 401
        signed = client.post("/v1/session", json={"token": tokens[1]["write"]})
        cookie = signed.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=strict" in cookie
        assert tokens[1]["write"] not in cookie
        csrf = signed.json()["csrf"]
        assert client.get("/v1/session").json()["csrf"] == csrf
        place, body = f"/v1/results/{result['id']}/mark", {"verdict": "wrong"}
        assert client.put(place, json=body).status_code == 403
        assert client.put(place, json=body, headers={"x-scrd-csrf": "0" * 64}).status_code == 403
        assert client.put(place, json=body, headers={"x-scrd-csrf": csrf}).status_code == 204
        name, value = cookie.split(";")[0].split("=", 1)
        forged = value.replace("writeer", "manageer")
        client.cookies.clear()
        assert client.get("/v1/session", headers={"cookie": f"{name}={forged}"}).status_code == 401
        assert client.get("/v1/session", headers={"cookie": f"{name}=||"}).status_code == 401


def test_a_session_ends_with_its_token(tmp_path, monkeypatch):
    token, line = new_token("anna", "read")
    (tmp_path / "tokens").write_text(line)
    secret = store_secret(tmp_path)
    assert store_secret(tmp_path) == secret and len(secret) == 32
    auth = Auth(read_tokens(tmp_path / "tokens", {}), secret)
    cookie = auth.session(auth.by_token(token))
    assert auth.by_session(cookie).name == "anna"
    _, other = new_token("anna", "read")
    (tmp_path / "tokens").write_text(other)
    assert Auth(read_tokens(tmp_path / "tokens", {}), secret).by_session(cookie) is None
    assert Auth([], secret).by_session(cookie) is None
    monkeypatch.setattr("scrd.serve.auth.time.time", lambda: 1e11)
    assert auth.by_session(cookie) is None


@pytest.mark.parametrize("headers", [{"origin": "https://evil.example"}, {"origin": "null"}])
def test_a_page_of_another_site_changes_nothing(client, headers):
    files = [("files", ("a.png", picture(0)))]
    assert client.post("/v1/score", files=files, headers=headers).status_code == 403
    cross = {"sec-fetch-site": "cross-site"}
    assert client.post("/v1/score", files=files, headers=cross).status_code == 403


def test_another_name_for_this_machine_is_not_answered_without_tokens(client):
    assert client.get("/v1/results", headers={"host": "evil.example"}).status_code == 421
    assert client.get("/", headers={"host": "evil.example:80"}).status_code == 421
    assert client.get("/v1/results", headers={"host": "[::1]:1"}).status_code == 200


def test_every_answer_is_guarded(client):
    for path in ("/", "/v1/results", "/page/index.html", "/nothing", "/v1/jobs/x"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert "server" not in headers


@pytest.mark.parametrize(
    "path",
    [
        "/page/../app.py",
        "/page/..%2fapp.py",
        "/page/%2e%2e/auth.py",
        "/page//etc/passwd",
        "/v1/results/..%2f..%2fsecret/source.png",
        "/v1/jobs/..%2f..%2fserve.sqlite",
    ],
)
def test_no_path_leads_outside(shared, path):
    import socket

    host, port = shared.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as line:
        line.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: line.recv(65536), b""))
    assert re.match(rb"HTTP/1.1 (404|405)", answer), answer[:200]
    assert b"import" not in answer and b"root:" not in answer


def test_markup_in_names_is_kept_as_text(client):
    name = '<img src=x onerror="alert(1)">.png'
    job = send(client, (name, picture(2))).json()["id"]
    row = finished(client, job)["results"][0]
    # the browser's escape of a quote in a header is taken as it is
    assert row["name"].startswith("<img src=x onerror=") and "alert(1)" in row["name"]
    for what in ("", "/source.png", "/map.npy"):
        answer = client.get(f"/v1/results/{row['id']}{what}")
        assert "text/html" not in answer.headers["content-type"]
        assert "onerror" not in str(answer.headers)


def test_tokens_are_read_with_care(tmp_path):
    token, line = new_token("anna", "write")
    assert token.startswith("scrd_") and len(token) > 40 and token not in line
    found = read_tokens(None, {"SCRD_TOKENS": f"{line};# x"})
    assert [(t.name, t.role) for t in found] == [("anna", "write")]
    for text in ("anna write plain", f"{line}\n{line}", "anna admin sha256:" + "0" * 64):
        (tmp_path / "tokens").write_text(text)
        with pytest.raises(ConfigError, match=r"tokens, line \d"):
            read_tokens(tmp_path / "tokens", {})
    with pytest.raises(ConfigError, match="name"):
        new_token("a b", "read")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "pacs.example"])
def test_beyond_this_machine_only_with_tokens_and_tls(host):
    for tokens, tls, proxy in ((False, True, True), (True, False, False), (False, False, False)):
        with pytest.raises(ConfigError, match=re.escape(host)):
            check_address(host, tokens=tokens, tls=tls, behind_proxy=proxy)
    check_address(host, tokens=True, tls=True, behind_proxy=False)
    check_address(host, tokens=True, tls=False, behind_proxy=True)


def test_behind_a_proxy_there_are_tokens():
    with pytest.raises(ConfigError, match="--behind-proxy"):
        check_address("127.0.0.1", tokens=False, tls=False, behind_proxy=True)
    check_address("127.0.0.1", tokens=True, tls=False, behind_proxy=True)


def test_loopback_needs_nothing():
    for host in ("127.0.0.1", "localhost", "::1"):
        check_address(host, tokens=False, tls=False, behind_proxy=False)


def test_tls_is_spoken(serve, exports, tmp_path):
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
        + ["-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"]
        + ["-subj", "/CN=localhost"],
        capture_output=True,
    )
    if made.returncode:
        pytest.skip("no openssl to make a certificate with")
    options = ("--tls-cert", tmp_path / "cert.pem", "--tls-key", tmp_path / "key.pem")
    server = serve(f"disc={exports / 'first'}", options=options)
    assert server.url.startswith("https://")
    with server.client() as client:
        answer = client.get("/healthz")
        assert answer.status_code == 200 and "strict-transport-security" in answer.headers
    with pytest.raises((httpx.TransportError, ssl.SSLError)):
        httpx.get(server.url.replace("https", "http") + "/healthz")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "--tokens"),
        (["--tls-cert", "nothing.pem"], "go together"),
        (["--tokens", "nothing"], "nothing"),
    ],
)
def test_the_command_refuses_what_is_not_safe(exports, tmp_path, arguments, said):
    done = subprocess.run(
        [sys.executable, "-c", "from scrd.cli import run; run()", "serve", exports / "first"]
        + ["--store", tmp_path / "store", *arguments],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and said in done.stderr
    assert not (tmp_path / "store").exists()


def test_a_token_is_made_by_a_command(tmp_path):
    command = [sys.executable, "-c", "from scrd.cli import run; run()", "token", "anna"]
    file = tmp_path / "tokens"
    done = subprocess.run([*command, "--tokens", file], capture_output=True, text=True)
    token = re.search(r"token: (\S+)", done.stdout)[1]
    assert token not in file.read_text() and file.stat().st_mode & 0o077 == 0
    assert Auth(read_tokens(file, {}), b"").by_token(token).name == "anna"
    again = subprocess.run([*command, "--tokens", file], capture_output=True, text=True)
    assert again.returncode == 2 and "anna" in again.stderr

"""The units and container files, as far as they can be tried without a container runtime."""

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from scrd.cli import app

ROOT = Path(__file__).parent.parent
CONTRIB = ROOT / "contrib"
COMMANDS = typer.main.get_command(app).commands
UNITS = sorted((CONTRIB / "systemd").glob("*.service"))
each_unit = pytest.mark.parametrize("unit", UNITS, ids=lambda p: p.stem)

# keys of the compose specification, as far as they are used
SERVICE = {
    *("image", "build", "restart", "read_only", "tmpfs", "cap_drop", "security_opt", "pids_limit"),
    *("environment", "env_file", "volumes", "ports", "networks", "command", "depends_on"),
    *("mem_limit", "stop_grace_period", "healthcheck", "secrets"),
}
TOP = {"name", "services", "networks", "volumes", "secrets", "x-scrd"}
HEALTH = {"test", "interval", "timeout", "start_period", "retries"}


def check_call(words):
    """The command and its options exist."""
    name, *rest = words
    if name == "serve" and name not in COMMANDS:
        pytest.skip("this tree has no scrd serve")
    params = COMMANDS[name].params
    known = {option for p in params for option in p.opts if p.param_type_name == "option"}
    assert {word for word in rest if word.startswith("--")} <= known, words


def options(unit):
    parser = configparser.RawConfigParser(strict=False, delimiters="=")
    parser.optionxform = str
    parser.read_string(unit.read_text(encoding="utf-8"))
    return parser


@pytest.fixture(scope="module")
def compose():
    yaml = pytest.importorskip("yaml", reason="needs PyYAML")
    return yaml.safe_load((CONTRIB / "container" / "compose.yaml").read_text(encoding="utf-8"))


def test_both_units_are_there():
    assert [unit.stem for unit in UNITS] == ["scrd-serve", "scrd-watch"]


@each_unit
def test_systemd_understands_a_unit_and_finds_it_hardened(unit, tmp_path):
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd-analyze here (Debian package: systemd)")
    text = unit.read_text(encoding="utf-8").replace("/opt/scrd/bin/scrd", sys.executable)
    copy = tmp_path / unit.name
    copy.write_text(text, encoding="utf-8")
    done = subprocess.run([analyze, "verify", copy], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    judged = subprocess.run(
        [analyze, "security", "--offline=true", "--threshold=20", copy],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    if "unrecognized option" in judged.stderr:
        pytest.skip("this systemd-analyze judges running units alone")
    assert judged.returncode == 0, judged.stdout


@each_unit
def test_a_unit_has_limits_and_calls_what_is_there(unit):
    service = options(unit)["Service"]
    for name, value in {
        "Restart": "on-failure",
        "DynamicUser": "yes",
        "ProtectSystem": "strict",
        "NoNewPrivileges": "yes",
        "PrivateTmp": "yes",
        "LimitCORE": "0",
        "StateDirectory": unit.stem,
    }.items():
        assert service[name] == value
    assert service["MemoryMax"] and service["RestrictAddressFamilies"]
    program, *words = shlex.split(service["ExecStart"])
    assert program == "/opt/scrd/bin/scrd"
    check_call(words)


@each_unit
def test_a_unit_names_no_variable_that_nobody_sets(unit):
    text = unit.read_text(encoding="utf-8")
    used = set(re.findall(r"\$\{(\w+)\}", options(unit)["Service"]["ExecStart"]))
    said = set(re.findall(r"^#\s+(SCRD_\w+)=", text, re.MULTILINE))
    assert used - {"STATE_DIRECTORY", "CREDENTIALS_DIRECTORY"} <= said


def test_the_compose_file_has_known_keys_and_names_what_it_declares(compose):
    assert set(compose) == TOP
    assert sorted(compose["services"]) == ["orthanc", "serve", "watch"]
    for service in compose["services"].values():
        assert set(service) <= SERVICE
        assert set(service.get("healthcheck", {})) <= HEALTH
        assert set(service["networks"]) <= set(compose["networks"])
        assert set(service.get("secrets", ())) <= set(compose["secrets"])
        assert set(service.get("depends_on", ())) <= set(compose["services"])
        sources = {volume.split(":")[0] for volume in service["volumes"]}
        assert {s for s in sources if not s.startswith("./")} <= set(compose["volumes"])
    build = compose["services"]["watch"]["build"]
    context = CONTRIB / "container" / build["context"]
    assert context.resolve() == ROOT and (context / build["dockerfile"]).is_file()


def test_docker_understands_the_compose_file(compose, tmp_path):
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"]).returncode:
        pytest.skip("no docker compose here")
    shutil.copytree(CONTRIB / "container", tmp_path / "container")
    (tmp_path / "container" / "orthanc.env").touch()
    file = tmp_path / "container" / "compose.yaml"
    done = subprocess.run(
        [docker, "compose", "-f", file, "config", "-q"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["watch", "serve"])
def test_a_container_calls_what_is_there(compose, name):
    check_call(compose["services"][name]["command"])


@pytest.mark.parametrize(("code", "healthy"), [(0, 0), (4, 0), (2, 1), (3, 1), (5, 1), (6, 1)])
@pytest.mark.skipif(os.name != "posix", reason="a shell is needed")
def test_drift_alone_does_not_make_a_container_unhealthy(compose, code, healthy, tmp_path):
    kind, line = compose["services"]["watch"]["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    call, *_ = line.split(";")
    check_call(shlex.split(call)[1:])
    stub = tmp_path / "scrd"
    stub.write_text(f"#!/bin/sh\nexit {code}\n")
    stub.chmod(0o700)
    path = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-c", line.replace("$$", "$")], env=path)
    assert done.returncode == healthy


def test_the_containerfile_copies_what_is_there_and_installs_known_extras():
    text = (CONTRIB / "container" / "Containerfile").read_text(encoding="utf-8")
    copied = re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE)
    assert len(copied) == 2
    for name in " ".join(copied).split():
        assert (ROOT / name).exists(), name
    (extras,) = re.findall(r"^ARG EXTRAS=(.+)$", text, re.MULTILINE)
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    known = set(
        re.findall(r"^(\w+) = \[", project.split("[project.optional-dependencies]")[1], re.M)
    )
    if "serve" not in COMMANDS:
        known.add("serve")
    assert set(extras.split(",")) <= known


def test_the_settings_of_orthanc_hold_no_password():
    text = (CONTRIB / "container" / "orthanc.json").read_text(encoding="utf-8")
    settings = json.loads(text)
    assert settings["AuthenticationEnabled"] is True
    assert settings["RegisteredUsers"] == {"scrd": "${SCRD_ORTHANC_PASSWORD}"}

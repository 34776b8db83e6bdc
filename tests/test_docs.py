"""The documentation says what the software does: commands, options, keys, constants, links."""

import ast
import importlib
import json
import math
import re
from collections import defaultdict
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import typer.main
from PIL import Image
from scipy.stats import beta
from typer.testing import CliRunner

import scrd
from scrd.archive.pulse import BEAT_SECONDS
from scrd.archive.state import State
from scrd.archive.status import AWAY_SECONDS, SILENT_SECONDS, STUDY_SECONDS
from scrd.audit.report import CheckReport
from scrd.bench.material import read_material
from scrd.bench.measure import measure
from scrd.bench.suite import Run
from scrd.bench.suite_file import ROW_KEYS, SUITE_KEYS, read_suite
from scrd.cli import app
from scrd.config import Config
from scrd.data.series import list_sources
from scrd.detector import Detector
from scrd.evaluation.test_set import evaluate
from scrd.model.scores import POOLINGS
from scrd.monitor.drift import find_drift
from scrd.monitor.stream import read_stream
from scrd.objectives import OBJECTIVES
from scrd.outputs import history
from scrd.outputs.covariates import COLUMNS as COVARIATES
from scrd.outputs.pictures import Outputs
from scrd.outputs.score_folder import score_all, write_scores
from scrd.storage.known import read_known
from scrd.synthesis.probes import PROBES
from scrd.system.console import BROKEN, DEAD, DRIFTED, INTERRUPTED, REFUSED, SKIPPED, STUCK

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"]
PAGES += sorted((ROOT / "docs").glob("*.md"))
README, COMMANDS, METHOD, DATA = (
    (ROOT / name).read_text(encoding="utf-8")
    for name in ("README.md", "docs/commands.md", "docs/method.md", "docs/your-data.md")
)
CLI = typer.main.get_command(app)

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)


def flattened(group, prefix=""):
    """Full name, such as ``bench run``, → command; groups are not among them."""
    found = {}
    for name, command in group.commands.items():
        inner = hasattr(command, "commands")
        found |= flattened(command, f"{name} ") if inner else {prefix + name: command}
    return found


ALL = flattened(CLI)
each_command = pytest.mark.parametrize("command", sorted(ALL))


def options_of(command):
    """Option string, such as ``--out``, → its parameter."""
    params = [p for p in command.params if p.param_type_name == "option"]
    return {name: p for p in params for name in (*p.opts, *p.secondary_opts)} | {"--help": None}


def fences(text, language=r"\w*"):
    """Contents of the fenced blocks."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def code_fragments(text):
    """Code spans, and the single commands of fenced blocks."""
    for block in fences(text):
        yield from (part.strip() for line in block.splitlines() for part in line.split("&&"))
    yield from re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


def tables(text):
    """Header cell that comes first → rows of cells; tables of the same header are joined."""
    found = defaultdict(list)
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        header, _, *rows = (
            [cell.strip() for cell in line.strip().strip("|").split(" | ")]
            for line in block.splitlines()
        )
        found[header[0].strip()] += rows
    return found


def names(rows, column=0):
    """What stands in backticks in a column."""
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row[column])]


def section(text, heading):
    """The text under a heading of the second level."""
    return re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)[1]


def slugs(text):
    """Anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


# -------------------------------------------------------------------------- commands and options


@each_page
def test_named_commands_and_options_exist(page):
    everything = set().union(*(options_of(c) for c in ALL.values()), options_of(CLI))
    for fragment in code_fragments(page.read_text(encoding="utf-8")):
        call = re.match(
            r"(?:\S*/)?scrd(?:\s+((?:(?:bench|dataset) )?[a-z][\w-]*))?(?=\s|$)", fragment
        )
        options = re.findall(r"(?<!\S)--[a-z][a-z0-9-]*", fragment)
        if call and call[1]:
            assert call[1] in (*ALL, *CLI.commands), fragment
            known = options_of(ALL.get(call[1]) or CLI.commands[call[1]])
        elif call:
            known = options_of(CLI)
        elif fragment.startswith("--"):
            known = everything
        else:
            continue  # another tool's
        assert set(options) <= set(known), fragment


@each_command
def test_every_option_is_documented_with_its_default(command):
    rows = tables(section(COMMANDS, f"scrd {command}"))["option"]
    params = options_of(ALL[command])
    del params["--help"]
    assert sorted(names(rows)) == sorted(params)
    for row in rows:
        param = params[names([row])[0]]
        if param.required:
            expected = "required"
        elif isinstance(param.default, bool):
            expected = "on" if param.default else "off"
        else:
            expected = "none" if param.default is None else f"`{param.default}`"
        assert row[1] == expected, row


def test_the_table_of_commands_is_complete():
    listed = {
        re.match("scrd ((?:(?:bench|dataset) )?[a-z][a-z0-9-]*)", name)[1]
        for name in names(tables(COMMANDS)["command"])
    }
    assert listed == set(ALL)


def test_exit_codes_are_those_of_the_code():
    assert [int(row[0]) for row in tables(COMMANDS)["code"]] == [
        0,
        SKIPPED,
        REFUSED,
        BROKEN,
        DRIFTED,
        DEAD,
        STUCK,
        INTERRUPTED,
    ]


# ------------------------------------------------------------------------------------- outputs


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """A folder in which the README's example ran, on tiny images and for two iterations."""
    folder = tmp_path_factory.mktemp("readme")
    rng = np.random.default_rng(0)
    rows = ["path,label,class,split,patient,study,series,view,mask"]
    for split, kind, count in (
        ("train", "normal", 48),
        ("test", "normal", 4),
        ("test", "lesion", 4),
    ):
        directory = folder / "my-data" / split / kind
        directory.mkdir(parents=True)
        for i in range(count):
            name = f"{split}/{kind}/{i}.png"
            pixels = rng.integers(0, 256, (64, 64), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "my-data" / name)
            mask = "mask.png" if kind == "lesion" else ""
            label = int(kind == "lesion")
            case = f"{split}{kind}{i // 2}"
            rows.append(f"{name},{label},{kind},{split},{case},{case},{case},view {i % 2},{mask}")
    marked = np.zeros((64, 64), dtype=np.uint8)
    marked[8:16, 8:16] = 255
    Image.fromarray(marked).save(folder / "my-data" / "mask.png")
    (folder / "my-data" / "split.csv").write_text("\n".join(rows), encoding="utf-8")
    (code,) = fences(README, "python")
    code, sized = re.subn(r"image_size=\d+, iterations=\d+", "image_size=64, iterations=2", code)
    assert sized == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(compile(code, "README.md", "exec"), {})
    return folder


def test_metrics_are_documented(example):
    metrics = evaluate(Detector.load(example / "my-model"), example / "my-data").metrics
    nested = {
        f"{outer}.{inner}" for outer in ("localisation", "settings") for inner in metrics[outer]
    }
    documented = names(tables(section(COMMANDS, "scrd eval"))["key"])
    assert sorted(documented) == sorted({*metrics, *nested})


def test_files_of_a_model_are_documented(example):
    documented = names(tables(section(COMMANDS, "scrd train"))["file"])
    assert sorted(documented) == sorted(f.name for f in (example / "my-model").iterdir())


def test_columns_of_scores_are_documented(tmp_path):
    write_scores(tmp_path / "scores.csv", [], [])
    written = (tmp_path / "scores.csv").read_text(encoding="utf-8").strip()
    assert names(tables(COMMANDS)["column of `scores.csv`"]) == written.split(",")
    assert f"`{written}`" in README


def test_columns_of_covariates_and_keys_of_monitor_are_documented(example, tmp_path):
    assert names(tables(COMMANDS)["column of `covariates.csv`"]) == list(COVARIATES)
    model, images = example / "my-model", example / "my-data" / "test" / "normal"
    detector = Detector.load(model)
    score_all(detector, list_sources([images]), tmp_path, Outputs(overlays=False))
    known = read_known(model)
    written = find_drift(read_stream([tmp_path], known.fingerprint), known).to_dict()
    documented = names([row[:1] for row in tables(COMMANDS)["key of `monitor.json`"]])
    assert documented == list(written)


def test_keys_of_status_are_documented(tmp_path):
    State(tmp_path / "state", name="there", model="m").close()
    result = CliRunner().invoke(app, ["status", str(tmp_path / "state"), "--json"])
    documented = names([row[:1] for row in tables(COMMANDS)["key of `--json`"]])
    assert documented == list(json.loads(result.stdout)[0])


def test_limits_of_operations_are_those_of_the_code():
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert f"At most {history.DAYS} days and {history.IMAGES:,} images" in text
    times = (SILENT_SECONDS, AWAY_SECONDS, STUDY_SECONDS, BEAT_SECONDS)
    assert times == (60, 600, 1800, 10)
    for words in ("for a minute", "for ten minutes", "for half an hour", "every ten seconds"):
        assert words in text


def test_keys_of_check_are_documented():
    documented = names([row[:1] for row in tables(COMMANDS)["key of `check.json`"]])
    assert documented == ["has_leak", *(f.name for f in fields(CheckReport))]


def test_keys_of_a_benchmark_line_are_documented(example):
    run = Run("my-data", "rd", Config(image_size=64, iterations=2, batch_size=4))
    line = measure(run, read_material(example / "my-data", run.config), "cpu")
    documented = names([row[:1] for row in tables(COMMANDS)["key of a line"]])
    assert documented[0] == "key"
    assert sorted(documented[1:]) == sorted(line)


def test_the_example_of_a_suite_is_one_and_every_key_is_documented(tmp_path):
    text = section(COMMANDS, "scrd bench run")
    (example,) = fences(text, "toml")
    path = tmp_path / "example.toml"
    path.write_text(example, encoding="utf-8")
    assert len(read_suite(str(path)).runs("small")) == 2 * 2 * 3
    for key in (*SUITE_KEYS, *ROW_KEYS):
        assert re.search(rf"\b{key}\b", example) or f"`{key}`" in text or f"`{key} =" in text, key


# ------------------------------------------------------------------------------------ the method


def test_constants_are_those_of_the_code():
    rows = tables(METHOD)["symbol"]
    constants = [row for row in rows if row[1].startswith("`scrd.")]
    assert len(constants) >= 5
    for _, path, value in constants:
        module, name = path.strip("`").rsplit(".", 1)
        assert getattr(importlib.import_module(module), name) == float(value), path


def test_every_objective_pooling_and_probe_is_described():
    found = tables(METHOD)
    assert names([row[:1] for row in found["name"]]) == list(OBJECTIVES)
    assert names([row[:1] for row in found["pooling"]]) == list(POOLINGS)
    described = {kind: names([[probes]]) for kind, probes in found["kind"]}
    for kind in ("lesion", "harmless"):
        assert described[kind] == [n for n, p in PROBES.items() if p.kind == kind]


def test_intervals_of_the_false_alarm_rate():
    rows = tables(DATA)["calibration groups"]
    assert rows
    for groups, *bounds in rows:
        n = int(groups)
        flagged = math.floor(0.05 * (n + 1) + 1e-9)
        expected = beta.ppf([0.025, 0.975], flagged, n + 1 - flagged)
        assert bounds == [f"{100 * rate:.1f} %" for rate in expected]


@each_page
def test_named_tests_exist(page):
    text = "".join(f.read_text(encoding="utf-8") for f in (ROOT / "tests").rglob("test_*.py"))
    for name in set(re.findall(r"`(test_\w+)`", page.read_text(encoding="utf-8"))):
        assert f"def {name}(" in text, name


# ---------------------------------------------------------------------------------------- pages


@each_page
def test_python_blocks_compile(page):
    for block in fences(page.read_text(encoding="utf-8"), "python"):
        ast.parse(block)


@each_page
def test_relative_links_resolve(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file) if file else page
        assert target.exists(), link
        if anchor:
            assert anchor in slugs(target.read_text(encoding="utf-8")), link


@each_page
def test_no_paths_of_a_machine(page):
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"(?<![\w.])/(work|tmp|home|root|Users|mnt)/|localhost|127\.0", text)


def test_continuous_integration_runs_the_test_command_of_the_readme():
    run = ROOT / ".ci" / "run"
    if not run.is_file():
        pytest.skip(".ci/run is not part of a source distribution")
    (command,) = (
        line for block in fences(README, "sh") for line in block.splitlines() if "pytest" in line
    )
    assert command in run.read_text(encoding="utf-8").splitlines()


def test_the_citation_names_this_version():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.+)$", text, re.MULTILINE)[1] == scrd.__version__

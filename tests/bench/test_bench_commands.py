"""`scrd bench`: what the commands say and leave."""

import re

import pytest
from typer.testing import CliRunner

from scrd.bench.budgets import BUDGETS
from scrd.bench.results import read_results
from scrd.cli import app


def bench(*arguments):
    return CliRunner().invoke(app, ["bench", *(str(a) for a in arguments)])


def run(suite, data, results, *chosen):
    """A run at the small budget, which the suite of the tests makes smaller still."""
    arguments = ("--results", results, "--budget", "small", "--device", "cpu", *chosen)
    return bench("run", suite, data, *arguments)


def refused(result, *words):
    assert result.exit_code == 2, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    said = re.sub(r"\s+", " ", result.stderr)
    assert "error:" in said
    for word in words:
        assert str(word) in said
    return True


@pytest.fixture
def results(finished, tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text(finished, encoding="utf-8")
    return path


def test_run_says_what_it_did_and_what_is_there(suite_file, data, results, tmp_path):
    before = results.read_text(encoding="utf-8")
    chosen = ("--seed", 0, "--seed", 1, "--seed", 2)
    result = run(suite_file, data, results, *chosen)
    assert result.exit_code == 0, result.output
    assert f"12 of 12 runs are in {results}" in result.stdout.replace("\n", "")
    assert re.findall(r"seed (\d): AUROC", result.stdout) == ["2"] * 4
    assert results.read_text(encoding="utf-8").startswith(before)


def test_a_choice_of_runs(suite_file, data, tmp_path):
    path = tmp_path / "some.jsonl"
    chosen = ("--set", "skin", "--row", "bright", "--seed", 5, "--seed", 6)
    assert run(suite_file, data, path, *chosen).exit_code == 0
    keys = [line["key"] for line in read_results(path).lines]
    assert [(k["method"], k["data"], k["seed"]) for k in keys] == [
        ("brightness", "skin", 5),
        ("brightness", "skin", 6),
    ]
    more = ("--set", "skin", "--method", "corner", "--seed", 5)
    assert run(suite_file, data, path, *more).exit_code == 0
    assert len(read_results(path).lines) == 3


def test_a_failed_run_ends_with_1_and_the_cause(suite_file, data, tmp_path):
    suite_file.write_text(
        suite_file.read_text().replace('label = "later"', 'label = "b"\nmethod = "breaking"')
    )
    chosen = ("--set", "skin", "--seed", 0)
    result = run(suite_file, data, tmp_path / "r.jsonl", *chosen)
    assert result.exit_code == 1
    assert "2 of 3 runs are in" in result.stdout
    assert "skin, b, seed 0: RuntimeError: no weights today" in result.stderr


def test_run_refuses_what_it_cannot_use(suite_file, data, tmp_path):
    path = tmp_path / "r.jsonl"
    assert refused(bench("run", "nothing", data, "--results", path), "nothing", "paper-table1")
    nowhere = tmp_path / "nowhere"
    assert refused(bench("run", suite_file, nowhere, "--results", path), nowhere, "no such")
    result = run(suite_file, data, path, "--budget", "huge")
    assert refused(result, suite_file, "huge", "small")
    result = run(suite_file, data, path, "--set", "knee")
    assert refused(result, suite_file, "knee", "skin")
    result = run(suite_file, data, path, "--device", "abacus")
    assert refused(result, "abacus")
    assert not path.exists()
    path.write_text("milk\nbread\n")
    assert refused(bench("run", suite_file, data, "--results", path), path, "not a results file")


def test_the_list_names_suites(monkeypatch):
    monkeypatch.undo()  # the bundled suites want the real methods
    result = bench("list")
    assert result.exit_code == 0
    for name in ("paper-table1", "paper-figure4", "objectives", "lesions", "effects", "vit"):
        assert name in result.stdout
    assert all(budget in result.stdout for budget in BUDGETS)


def everything(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_report_writes_page_tables_and_figures(results, suite_file, data, tmp_path):
    out = tmp_path / "docs"
    call = ("report", results, "--suite", suite_file, "--out", out)
    assert bench(*call).exit_code == 0
    page = (out / "results.md").read_text(encoding="utf-8")
    for text in ("## Tiny", "### Tiny: small", "8 runs", "image_size 64", "implemented: later"):
        assert text in page
    linked = set(re.findall(r"\]\(([^)#]+)\)", page))
    assert "[Tiny](#tiny)" in page
    written = {p.as_posix() for p in everything(out)} - {"results.md"}
    assert linked == written
    assert len([name for name in written if name.endswith(".svg")]) == 5
    assert str(tmp_path) not in page and str(data) not in page
    before = everything(out)
    assert bench(*call).exit_code == 0
    assert everything(out) == before  # to the byte


def test_report_says_which_suites_have_no_runs(results, suite_file, tmp_path):
    assert bench("report", results, "--suite", suite_file, "--out", tmp_path / "a").exit_code == 0
    text = suite_file.read_text().replace("iterations = 3", "iterations = 4")
    (tmp_path / "other.toml").write_text(text)
    call = ("report", results, "--suite", tmp_path / "other.toml", "--out", tmp_path / "b")
    assert bench(*call).exit_code == 0
    page = (tmp_path / "b" / "results.md").read_text()
    assert "No runs yet: `scrd bench run other DATA --results FILE`" in page
    assert not (tmp_path / "b" / "results").exists()


def test_report_leaves_out_and_names_rows_that_were_not_run(results, suite_file, tmp_path):
    more = '\n[[row]]\nlabel = "Not yet"\nmethod = "paper"\n'
    suite_file.write_text(suite_file.read_text() + more)
    bench("report", results, "--suite", suite_file, "--out", tmp_path / "o")
    page = (tmp_path / "o" / "results.md").read_text(encoding="utf-8")
    assert "Not run at this budget: Not yet." in page and "| Not yet" not in page


def test_report_of_mixed_data_says_so(results, suite_file, tmp_path):
    first, rest = results.read_text().split("\n", 1)
    fingerprint = re.search(r'"fingerprint": "(\w+)"', first)[1]
    results.write_text(first.replace(fingerprint, "0" * 64) + "\n" + rest)
    bench("report", results, "--suite", suite_file, "--out", tmp_path / "o")
    page = (tmp_path / "o" / "results.md").read_text()
    assert "Runs on different contents of brain-tumor-mri are mixed: 000000000000" in page


def test_report_names_damaged_lines_and_refuses_a_missing_file(results, suite_file, tmp_path):
    results.write_bytes(results.read_bytes()[:-30])
    result = bench("report", results, "--suite", suite_file, "--out", tmp_path / "o")
    assert result.exit_code == 0
    assert "line 8 is damaged" in result.stderr
    gone = tmp_path / "gone.jsonl"
    assert refused(bench("report", gone, "--out", tmp_path / "p"), gone, "no such file")
    assert not (tmp_path / "p").exists()

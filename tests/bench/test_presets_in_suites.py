"""Rows that are trained as published: whose settings they have, and what a table says of them."""

import json

import pytest

from scrd.bench.found import cell, find
from scrd.bench.results import BY_SAMPLE, read_results
from scrd.bench.runner import run_missing
from scrd.bench.suite import SuiteError
from scrd.bench.suite_file import read_suite
from scrd.bench.tables import accuracy_table, csv_table, findings_table
from scrd.presets.files import read_preset

ROWS = """
[budget.paper]
window = "image"
learning_rate = 0.1

[[row]]
label = "printed"
preset = "paper"

[[row]]
label = "ratio, strong"
method = "ratio"
preset = "paper"
settings = { noise = { strength = 0.4 }, iterations = 4 }

[[row]]
label = "corner, printed"
method = "corner"
preset = "paper"
"""


@pytest.fixture
def suite(suite_file):
    suite_file.write_text(suite_file.read_text() + ROWS)
    return read_suite(str(suite_file))


def config_of(suite, label, budget):
    (run,) = suite.runs(budget, rows=[label], sets=["skin"], seeds=[7])
    return run.method, run.config


def test_the_budget_paper_changes_nothing_of_a_preset(suite):
    preset = read_preset("paper")
    assert config_of(suite, "printed", "paper") == ("paper", preset.config(seed=7))
    expected = preset.config(seed=7, objective="ratio", iterations=4, noise={"strength": 0.4})
    assert config_of(suite, "ratio, strong", "paper") == ("ratio", expected)


def test_a_smaller_budget_changes_the_size_alone(suite):
    method, config = config_of(suite, "printed", "small")
    assert read_preset("paper").changed(config) == [
        *("teacher", "image_size", "iterations", "batch_size"),
    ]
    assert (config.image_size, config.iterations, config.batch_size) == (64, 3, 4)
    assert config_of(suite, "ratio, strong", "small")[1].iterations == 4
    # a baseline takes what it has of it
    method, config = config_of(suite, "corner, printed", "small")
    assert (method, config.window, config.held_out, config.iterations) == ("corner", "data", 0, 3)
    assert config_of(suite, "corner", "small")[1].held_out == 0.25


def test_an_unknown_preset_is_named_with_file_and_row(suite_file):
    suite_file.write_text(suite_file.read_text() + ROWS.replace('"paper"', '"papers"'))
    with pytest.raises(SuiteError, match=r"tiny\.toml: row 'printed', preset: .*rd4ad, released"):
        read_suite(str(suite_file))


def test_what_holds_nothing_out_has_no_sensitivity(suite, data, tmp_path):
    wanted = suite.runs(
        "small", rows=["printed", "corner", "corner, printed"], sets=["skin"], seeds=[0]
    )
    problems = run_missing(wanted, data, tmp_path / "r.jsonl", device="cpu", say=lambda _: None)
    assert problems == []
    found = find(suite, "small", read_results(tmp_path / "r.jsonl").lines)
    rows = {row.label: row for row in suite.rows}
    for label in ("printed", "corner, printed"):
        assert cell(found, rows[label], "skin", "auroc") is not None
        for metric in ("sensitivity", "false_alarm_rate"):
            assert cell(found, rows[label], "skin", metric) is None
    assert cell(found, rows["corner"], "skin", "sensitivity") is not None
    (verdicts,) = [
        x for x in findings_table(found, "skin").split("\n") if x.startswith("| printed")
    ]
    assert verdicts.split(" | ")[-2:] == ["–", "– |"]
    assert all("nan" not in t for t in (accuracy_table(found, "auroc"), csv_table(found)))
    (line,) = found.runs["printed", "skin"].values()
    assert line["normals"] == {"trained": 24, "calibrated": 0, "unreadable": 0}
    assert line["pooling"] == "mean"


def test_lines_of_before_mean_what_they_did(suite, tmp_path):
    (run,) = suite.runs("small", rows=["ratio, strong"], sets=["skin"], seeds=[0])
    key = json.loads(json.dumps(run.key("print")))
    for name in ("noisy_statistics", "smoothing"):
        del key["settings"][name]
    del key["settings"]["noise"]["field"]
    older = {**key, "method": "released"}
    (tmp_path / "r").write_text("\n".join(json.dumps({"key": k}) for k in (key, older)) + "\n")
    same, other = (line["key"] for line in read_results(tmp_path / "r").lines)
    assert same == json.loads(json.dumps(run.key("print")))
    assert other["method"] == BY_SAMPLE  # then a ratio for each image

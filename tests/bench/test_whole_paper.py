"""Every table and figure of the paper by its one command, on a few images at 64 px."""

import csv
import re

import pytest
from typer.testing import CliRunner

from scrd.bench.budgets import BUDGETS
from scrd.bench.found import find
from scrd.bench.results import read_results
from scrd.bench.suite_file import bundled_suites, read_suite
from scrd.cli import app
from scrd.data.sample import even

SETS = ("rsna-cxr", "brain-tumor-mri", "brain-tumor-boxes", "lgg-flair", "isic2018")
PARTS = {("train", "0"): 20, ("test", "0"): 6, ("test", "1"): 6}
TINY = {"image_size": 64, "iterations": 2, "batch_size": 4, "held_out": 0.25}
LEFT_OUT = ("lesions", "resolution", "precision", "intensity", "objectives")
"""Suites that are not the paper's, whose kinds of rows are in others."""
ALL_VIT = "vit"
"""The suite that has no run at all where its teacher is not installed."""
TEACHERS = "the package scrd-benchmark-teachers|the weights of DINOv2 are not here"


@pytest.fixture
def few(shared_data, tmp_path):
    """The shared data sets with a few images of each part, as links."""
    for name in SETS:
        for table in ("split.csv", "boxes.csv"):
            source = shared_data / name / table
            if not source.is_file():
                continue
            with open(source, newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            if table == "split.csv":
                chosen = []
                for (split, label), count in PARTS.items():
                    part = [r for r in rows if (r["split"], r["label"]) == (split, label)]
                    chosen += even(part, count)
                linked = {r["path"] for r in chosen}
            else:
                chosen = [r for r in rows if r["path"] in linked]
            (tmp_path / name).mkdir(exist_ok=True)
            with open(tmp_path / name / table, "w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, rows[0])
                writer.writeheader()
                writer.writerows(chosen)
            for path in {r[c] for r in chosen for c in ("path", "mask") if r.get(c)}:
                (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
                if not (tmp_path / name / path).exists():
                    (tmp_path / name / path).symlink_to(shared_data / name / path)
    return tmp_path


def test_tables_and_figures_by_their_one_command(few, tmp_path, monkeypatch, methods):
    monkeypatch.undo()  # the real methods
    monkeypatch.setitem(BUDGETS, "small", {**BUDGETS["small"], **TINY})
    results, out = tmp_path / "r.jsonl", tmp_path / "docs"
    names = [name for name in bundled_suites() if name not in LEFT_OUT]
    not_here = set()
    for name in names:
        sets = () if name == "heat-maps" else ("--set", "rsna-cxr")
        call = ("run", name, few, "--results", results, "--budget", "small", "--seed", 0, *sets)
        result = CliRunner().invoke(app, ["bench", *map(str, call), "--device", "cpu"])
        for problem in re.findall(r"^  (\[.*)", result.stderr, re.M):
            # what an extra, its files or another package bring; all else has to run
            assert re.search(r"FastFlow|CFLOW-AD|EfficientAD|" + TEACHERS, problem), problem
        if name == ALL_VIT and re.search(TEACHERS, result.stderr):
            not_here.add(name)
    call = ["bench", "report", str(results), "--out", str(out)]
    for name in names:
        call += ["--suite", name]
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0, result.output
    page = (out / "results.md").read_text(encoding="utf-8")
    idle = re.findall(r"scrd bench run (\S+) DATA", "".join(re.findall("No runs yet.*", page)))
    assert set(idle) == not_here and "left out: no maps" not in page
    names = [name for name in names if name not in not_here]
    assert page.index("## What of the paper reproduces") < page.index("## Contents")
    lines = read_results(results).lines
    for name in names:
        suite = read_suite(name)
        section = page[page.index(f"### {suite.title}: small") :]
        section = section[: section.find("\n## ")] if "\n## " in section else section
        found = find(suite, "small", lines)
        for row in found.rows() if suite.metrics else ():
            assert f"| {row.label.replace('|', chr(92) + '|')} |" in section, (name, row.label)
        pictures = re.findall(r"!\[.*?\]\((results/[^)]+\.svg)\)", section, re.S)
        assert all((out / picture).read_text().startswith("<svg") for picture in pictures)
        for figure in suite.figures:
            assert any(f"{name}-small-{figure}" in picture for picture in pictures), figure
        if suite.costs:
            assert "scoring, ms an image" in section
        if suite.effects:
            assert "what each choice adds to it" in section
    heat = (out / "results" / "heat-maps-small-heatmaps.svg").read_text()
    # image and marked image, six methods, two cases of each of four sets, and the colour bar
    assert heat.count("<image") >= 8 * 8

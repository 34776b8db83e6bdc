"""The first screen and the table of effects: every number from the lines."""

import json
import re

import numpy as np
import pytest
from test_tables import made_up, rows_of

from scrd import baselines
from scrd.bench.effects import effects_table, selection_notes, split_notes
from scrd.bench.found import find
from scrd.bench.page import write_page
from scrd.bench.standing import standing
from scrd.bench.suite_file import read_suite
from scrd.bench.verdict import printed_figures, verdict
from scrd.bench.words import points


@pytest.fixture(autouse=True)
def real_methods(methods, monkeypatch):
    monkeypatch.undo()
    assert "rdpp" in baselines.BASELINES


def lines_of(name, budget, value, **chosen):
    """A line a run, whose AUROC is ``value(label of the first row, data, seed)``."""
    rng = np.random.default_rng(0)
    lines = []
    for run in read_suite(name).runs(budget, **chosen):
        line = made_up(run, rng)
        known = line["by_pooling"]["own"]
        auroc = value(run.rows[0].label, run.data, run.config.seed)
        line["by_pooling"] = {row.pooling: {**known, "auroc": auroc} for row in run.rows}
        lines.append(line)
    return lines


def test_figures_are_those_of_the_largest_budget():
    chosen = {"rows": ["RD++"], "sets": ["rsna-cxr"]}
    small = lines_of("paper-table1", "small", lambda *_: 0.7, **chosen)
    standard = lines_of("paper-table1", "standard", lambda *_: 0.87, **chosen)
    suite = read_suite("paper-table1")
    (figure,) = printed_figures(suite, [*small, *standard])
    assert (figure.found.budget, figure.here.mean) == ("standard", pytest.approx(0.87))
    text = verdict([suite], [*small, *standard])
    assert "| RD++ | 88.0 → 87.0 (−1.0) |" in text
    assert "All with efficientnet_lite0, 256 px, 1,000 iterations, 3 seeds." in text
    assert "Reached: RD++ on rsna-cxr." in text and "Farthest below" not in text
    text = verdict([suite], small)
    assert "RD++ on rsna-cxr, printed 88.0, here 70.0 (efficientnet_lite0, 128 px" in text
    assert "3 seeds), gap −18.0" in text
    assert "Teacher: wide_resnet50_2 in the paper, here efficientnet_lite0." in text
    assert "Iterations: 4,000 in the paper, here 300." in text
    assert "not measured yet" in text
    scrd = lines_of("paper-table1", "small", lambda *_: 0.6, rows=["SCRD as printed"])
    text = verdict([suite], [*small, *scrd])
    assert (
        "**SCRD as printed on rsna-cxr: printed 91.0, here 60.0 (efficientnet_lite0, 128 px, 300 "
        "iterations, 3 seeds), gap −31.0**; of the 2 methods measured alike number 1 in print, "
        "number 2 here."
    ) in text
    assert verdict([suite], []).startswith("Nothing that the paper prints was measured")


def test_ours_stands_beside_the_best_other_row_whatever_its_pooling():
    suite = read_suite("paper-table1")
    rows = {"sets": ["lgg-flair", "rsna-cxr"], "seeds": [0]}
    rows["rows"] = ["ours", "RD4AD", "RD4AD, mean", "PatchCore"]
    values = {"ours": 0.9, "RD4AD": 0.6, "PatchCore": 0.7}
    lines = lines_of("paper-table1", "standard", lambda label, *_: values[label], **rows)
    for line in lines:
        if line["key"]["method"] == "rd" and line["key"]["data"] == "rsna-cxr":
            line["by_pooling"]["mean"]["auroc"] = 0.95
    section = standing(suite, lines)
    assert "`standard`: 256 px, 1,000 iterations, teacher efficientnet_lite0, 1 seed." in section
    (lgg,) = re.findall(r"\| lgg-flair \| (.*) \|", section)
    (cxr,) = re.findall(r"\| rsna-cxr \| (.*) \|", section)
    assert lgg.startswith("90.0") and "70.0 (PatchCore)" in lgg and lgg.endswith("| 2")
    assert cxr.startswith("90.0") and "95.0 (RD4AD, mean)" in cxr
    # a set without rivals, a budget without ours, and none at all say nothing
    alone = [line for line in lines if line["key"]["method"] == "scrd"]
    assert standing(suite, alone) == standing(suite, []) == ""
    rivals = [line for line in lines if line["key"]["method"] != "scrd"]
    assert standing(suite, rivals) == ""
    assert verdict([suite], lines).startswith("## `ours` beside the others")


def test_the_steps_of_the_ablation_are_differences():
    values = {"neither": 0.80, "contrast": 0.83, "contrast + scale": 0.81}
    lines = lines_of("paper-table2", "small", lambda label, *_: values.get(label, 0.5))
    lines += lines_of("paper-table1", "small", lambda *_: 0.8, rows=["AE"])
    text = verdict([read_suite("paper-table1"), read_suite("paper-table2")], lines)
    assert "From “neither” to “contrast” of Table 2: rsna-cxr printed +5.6, here +3.0" in text
    assert "From “contrast” to “contrast + scale” of Table 2: rsna-cxr printed +1.1, here −2.0" in (
        text
    )


def test_effects_are_differences_seed_by_seed(tmp_path):
    rng = np.random.default_rng(5)
    drawn = {}

    def value(label, data, seed):
        return drawn.setdefault((label, data, seed), float(rng.uniform(0.6, 0.9)))

    lines = lines_of("effects", "small", value)
    for line in lines:
        if line["key"].get("select"):
            line["selection"] = {"iteration": 150, "iterations": [150, 300], "auroc": [0.9, 0.8]}
        if line["key"]["data"] == "isic2018":
            line["split"] = {"tested": 8, "grouped": 0, "torn": 0, "train_grouped": 0}
    lines = [x for x in lines if (x["key"]["data"], x["key"]["seed"]) != ("isic2018", 2)]
    found = find(read_suite("effects"), "small", lines)
    header, rows = rows_of(effects_table(found))
    assert header == ["choice", "rsna-cxr", "isic2018", "brain-tumor-mri", "seeds"]
    for label in ("split at random", "best on test", "α inert", "4 times the iterations"):
        for data, seeds in (("rsna-cxr", 3), ("isic2018", 2)):
            apart = [
                value(label, data, seed) - value("as printed", data, seed) for seed in range(seeds)
            ]
            text = f"{points(np.mean(apart))} ± {100 * np.std(apart, ddof=1):.1f}"
            assert rows[label][data] == text
    assert rows["no α"]["seeds"] == "2 to 3"
    for line in lines:  # what one machine's rounding does to a seed is no effect
        run = (line["key"]["method"], line["key"]["data"], line["key"]["seed"])
        other = run == ("ratio", "rsna-cxr", 1) or run[1:] == ("isic2018", 0)
        line["machine"] = {**line["machine"], "device": "GPU" if other else "CPU"}
    _, apart = rows_of(effects_table(found))
    left = [value("no α", "rsna-cxr", s) - value("as printed", "rsna-cxr", s) for s in (0, 2)]
    text = f"{points(np.mean(left))} ± {100 * np.std(left, ddof=1):.1f}"
    assert apart["no α"]["rsna-cxr"] == text != rows["no α"]["rsna-cxr"]
    assert apart["no α"]["isic2018"] == rows["no α"]["isic2018"]
    base = [value("as printed", "rsna-cxr", seed) for seed in range(3)]
    assert rows["as printed"]["rsna-cxr"].startswith(f"{100 * np.mean(base):.1f} ±")
    notes = list(split_notes(found))
    assert notes[0] == (
        "rsna-cxr: at random 25.0 % of the test normals have an image of their group among the "
        "train normals, as far as groups are known: of 80.0 % of the normals."
    )
    assert notes[1].startswith("isic2018: no groups are known")
    assert "iteration 150, 150, 150 of 300, out of 2 checkpoints" in next(selection_notes(found))
    table1 = lines_of("paper-table1", "small", lambda *_: 0.8, rows=["AE"])
    text = verdict([read_suite(n) for n in ("paper-table1", "effects")], [*lines, *table1])
    assert f"split at random: rsna-cxr {rows['split at random']['rsna-cxr']}" in (text)
    assert not effects_table(find(read_suite("effects"), "cpu", lines))


def test_points_have_a_sign_unless_they_are_nothing():
    assert [points(x) for x in (0.0123, -0.0123, 0.0004, -0.0004)] == ["+1.2", "−1.2", "0.0", "0.0"]


def test_the_page_opens_with_it_then_contents_then_tables(tmp_path):
    lines = lines_of("paper-table1", "small", lambda *_: 0.8, rows=["AE", "RD4AD"])
    path = tmp_path / "r.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_page([path], [read_suite(n) for n in ("paper-table1", "effects", "heat-maps")], tmp_path)
    page = (tmp_path / "results.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)", page, re.M)
    assert headings[:3] == ["What of the paper reproduces", "Contents", "How to read the tables"]
    # RD4AD of Table 1 is one of the rows of the heat maps
    assert headings[3:] == ["Table 1: methods", "Heat maps"]
    assert "The figure of heat maps is left out: no maps lie beside the results file." in page
    assert "- [Table 1: methods](#table-1-methods): small" in page
    assert "No runs yet: `scrd bench run effects DATA --results FILE`" in page
    first_screen = page[: page.index("## Contents")]
    assert len(first_screen.splitlines()) < 45
    assert "| – | – | – |" not in page


@pytest.mark.parametrize(
    ("name", "row", "sets", "stays"),
    [
        ("paper-table5", "ours", ["rsna-cxr"], False),
        ("paper-table1", "ours", ["rsna-cxr", "isic2018"], True),
        ("paper-table1", "RD4AD", ["rsna-cxr", "isic2018"], False),
    ],
)
def test_one_row_stands_on_the_page_where_it_is_scrd_or_there_is_no_comparison(
    tmp_path, name, row, sets, stays
):
    suite = read_suite(name)
    chosen = {"sets": sets, "seeds": [0]}
    alone = lines_of(name, "shipped", lambda *_: 0.9, rows=[row], **chosen)
    several = lines_of(name, "standard", lambda *_: 0.8, rows=["ours", "RD4AD"], **chosen)
    both = ["shipped", "standard"] if stays else ["standard"]
    for lines, budgets in ((alone, ["shipped"]), ([*alone, *several], both)):
        path = tmp_path / "results.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        write_page([path], [suite], tmp_path)
        page = (tmp_path / "results.md").read_text(encoding="utf-8")
        assert re.findall(f"### {suite.title}: (.*)", page) == budgets

"""Tables and figures against numpy, from written lines alone."""

import csv
import io
import itertools
import re

import numpy as np
import pytest

from scrd.bench.figures import figures
from scrd.bench.found import find
from scrd.bench.suite_file import read_suite
from scrd.bench.tables import (
    accuracy_table,
    cost_table,
    csv_table,
    findings_table,
    weights_table,
)


def made_up(run, rng, fingerprint="f"):
    def ranks():
        auroc = rng.uniform(0.6, 0.9)
        return {
            "auroc": auroc,
            "auroc_ci95": [auroc - rng.uniform(0, 0.1), auroc + rng.uniform(0, 0.1)],
            "ap": 0.5,
            "f1": rng.uniform(0.5, 0.8),
            "acc": 0.7,
            "sensitivity": rng.uniform(),
            "false_alarm_rate": rng.uniform(0, 0.1),
        }

    pooled = ["own"] if run.method == "corner" else ["own", "mean", "top", "max"]
    return {
        "key": run.key(fingerprint),
        "metrics": {"false_alarm_rate": rng.uniform()},
        "by_pooling": {name: ranks() for name in pooled},
        "pooling": None,
        "split": {"tested": 8, "grouped": 8, "torn": 2, "train_grouped": 24},
        "selection": None,
        "normals": {"trained": 24, "calibrated": 8, "unreadable": 0},
        "curves": {
            "roc": np.linspace(0, 1, 51).tolist(),
            "histogram": {"low": 0.0, "high": 2.0, "normal": [3, 1], "abnormal": [0, 4]},
            "by_pooling": {
                "top": {
                    "roc": np.linspace(0, 1, 51).tolist(),
                    "histogram": {"low": 0.0, "high": 1.0, "normal": [2, 2], "abnormal": [1, 3]},
                }
            },
            "scale_weights": [[5, 1], [3, 3], [2, 4]],
        },
        "scale_weights": [0.2, 0.3, 0.5],
        "localisation": {
            "pointing_hit_rate": rng.uniform(),
            "pixel_ap": rng.uniform(),
            "aupro": rng.uniform(),
            "brightest_place_hit_rate": 0.19,
            "centre_hit_rate": 0.17,
        },
        "cost": {
            "fit_seconds": rng.uniform(1, 90),
            "seconds_per_image": rng.uniform(0.001, 0.1),
            "parameters_trained": 3,
            "parameters": 5,
            "bytes": 2_500_000,
            "peak_memory_fit": None,
            "peak_memory_score": 2**30,
        },
        "machine": {"device": "a CPU", "threads": 1},
        "versions": {"scrd": "0", "torch": "0"},
    }


@pytest.fixture
def suite(suite_file):
    return read_suite(str(suite_file))


@pytest.fixture
def lines(suite):
    rng = np.random.default_rng(0)
    return [made_up(run, rng) for run in suite.runs("small")]


def rows_of(table):
    rows = [[c.strip() for c in line[2:-2].split(" | ")] for line in table.splitlines()]
    return rows[0], {row[0]: dict(zip(rows[0], row, strict=True)) for row in rows[2:]}


def values(lines, method, data, pooling, metric):
    chosen = [x for x in lines if (x["key"]["method"], x["key"]["data"]) == (method, data)]
    return [
        x["by_pooling"][pooling][metric] for x in sorted(chosen, key=lambda x: x["key"]["seed"])
    ]


METHODS = {"bright": ("brightness", "own"), "bright, top": ("brightness", "top")}
METHODS["corner"] = ("corner", "own")
SETS = ("brain-tumor-mri", "skin")


@pytest.mark.parametrize("metric", ["auroc", "f1"])
def test_numbers_are_numpys(suite, lines, metric):
    header, rows = rows_of(accuracy_table(find(suite, "small", lines), metric))
    assert header[:5] == ["method", *SETS, "mean", "seeds"]
    for label, data in itertools.product(METHODS, SETS):
        found = values(lines, METHODS[label][0], data, METHODS[label][1], metric)
        text = f"{100 * np.mean(found):.1f} ± {100 * np.std(found, ddof=1):.1f}"
        if metric == "auroc":
            ends = values(lines, METHODS[label][0], data, METHODS[label][1], "auroc_ci95")
            text += " ({:.1f} to {:.1f})".format(*(100 * np.mean(ends, axis=0)))
        assert rows[label][data].replace("**", "") == text
        assert rows[label]["seeds"] == "2"
    for label, (method, pooling) in METHODS.items():
        by_seed = np.mean([values(lines, method, d, pooling, metric) for d in SETS], axis=0)
        text = f"{100 * by_seed.mean():.1f} ± {100 * by_seed.std(ddof=1):.1f}"
        assert rows[label]["mean"].replace("**", "") == text
    for column in (*SETS, "mean"):
        numbers = {
            k: float(r[column].strip("*").split()[0]) for k, r in rows.items() if k in METHODS
        }
        bold = {k for k, r in rows.items() if "**" in r[column]}
        assert bold == {k for k, v in numbers.items() if v == max(numbers.values())}


def test_places_of_what_is_not_there(suite, lines):
    kept = [x for x in lines if (x["key"]["method"], x["key"]["data"]) != ("corner", "skin")]
    kept = [x for x in kept if x["key"]["seed"] == 0 or x["key"]["data"] == "skin"]
    _, rows = rows_of(accuracy_table(find(suite, "small", kept), "auroc"))
    assert "later" not in rows  # nothing was run
    assert rows["corner"]["skin"] == rows["corner"]["mean"] == "–"
    assert "±" not in rows["corner"][SETS[0]]  # one seed has no deviation
    assert rows["bright"]["seeds"] == "1 to 2"
    # the mean of what stands beside it, of whichever seeds that is
    both = [np.mean(values(kept, "brightness", d, "own", "auroc")) for d in SETS]
    assert rows["bright"]["mean"].strip("*") == f"{100 * np.mean(both):.1f}"
    assert rows["bright"]["paper"] == "– / 81.2"
    assert rows["corner"]["paper"] == "–"


def test_a_single_result_is_not_the_best(suite, lines):
    table = accuracy_table(find(suite, "small", lines[:1]), "auroc")
    rows = rows_of(table)[1]
    assert "**" in rows["bright"][SETS[0]] or "**" in rows["bright, top"][SETS[0]]
    only = [x for x in lines if x["key"]["method"] == "corner"]
    assert "**" not in accuracy_table(find(suite, "small", only), "auroc")


def test_the_pooling_is_the_rows(suite, lines):
    for line in lines:
        line["by_pooling"].pop("top", None)
    _, rows = rows_of(accuracy_table(find(suite, "small", lines), "auroc"))
    assert "bright, top" not in rows and "bright" in rows


def test_runs_of_other_settings_are_not_the_suites(suite, lines):
    assert not find(suite, "paper", lines).runs
    for line in lines:
        line["key"]["settings"]["iterations"] += 1
    assert not find(suite, "small", lines).runs


def test_the_last_of_several_lines_counts(suite, lines):
    newer = made_up(suite.runs("small")[0], np.random.default_rng(9), "other data")
    found = find(suite, "small", [*lines, newer])
    assert found.superseded == 1
    assert found.runs["bright", SETS[0]][0] is newer
    assert len(found.lines) == len(lines)


def test_csv_has_everything(suite, lines):
    found = list(csv.DictReader(io.StringIO(csv_table(find(suite, "small", lines)))))
    assert [(r["label"], r["data"]) for r in found] == [
        (label, data) for label in (*METHODS, "later") for data in SETS
    ]
    row = next(r for r in found if (r["label"], r["data"]) == ("bright, top", "skin"))
    expected = values(lines, "brightness", "skin", "top", "auroc")
    assert float(row["auroc"]) == pytest.approx(np.mean(expected), rel=1e-5)
    assert float(row["auroc_sd"]) == pytest.approx(np.std(expected, ddof=1), rel=1e-5)
    ends = values(lines, "brightness", "skin", "top", "auroc_ci95")
    assert float(row["auroc_low"]) == pytest.approx(np.mean(ends, axis=0)[0], rel=1e-5)
    assert row["seeds"] == "2"
    for name in ("sensitivity", "false_alarm_rate"):  # of the row's pooling, not of the own score
        expected = np.mean(values(lines, "brightness", "skin", "top", name))
        assert float(row[name]) == pytest.approx(expected, rel=1e-5)
    assert 0 < float(row["pixel_ap"]) < 1 and 0 < float(row["aupro"]) < 1
    assert (
        next(r for r in found if r["label"] == "bright" and r["data"] == "skin")["paper_auroc"]
        == "0.8125"
    )
    assert all(not r["auroc"] for r in found if r["label"] == "later")


def test_costs_are_means_over_the_runs(suite, lines):
    _, rows = rows_of(cost_table(find(suite, "small", lines)))
    runs = [x["cost"] for x in lines if x["key"]["method"] == "corner"]
    assert len(runs) == 4
    milliseconds = 1e3 * np.mean([c["seconds_per_image"] for c in runs])
    assert rows["corner"]["scoring, ms an image"] == f"{milliseconds:.2f}"
    assert rows["corner"]["training, s"] == f"{np.mean([c['fit_seconds'] for c in runs]):.0f}"
    assert rows["corner"]["learnt or remembered, MB"] == "2.5"
    assert rows["corner"]["memory scoring, MiB"] == "1024"
    # what no run has is no column
    assert "memory training, MiB" not in rows["corner"] and "paper, MB" not in rows["corner"]


def test_times_are_compared_on_one_machine(suite_file):
    text = suite_file.read_text().replace("costs = true", 'costs = true\nbase = "bright"')
    text = text.replace('method = "corner"', 'method = "corner"\nreference_times = 6')
    suite_file.write_text(text)
    suite = read_suite(str(suite_file))
    rng = np.random.default_rng(3)
    lines = [made_up(run, rng) for run in suite.runs("small")]
    slow = made_up(suite.runs("small", rows=["corner"], seeds=[7])[0], rng)
    slow["machine"], slow["cost"]["seconds_per_image"] = {"device": "old", "threads": 1}, 99.0
    _, rows = rows_of(cost_table(find(suite, "small", [*lines, slow])))
    corner, bright = (
        np.mean([x["cost"]["seconds_per_image"] for x in lines if x["key"]["method"] == method])
        for method in ("corner", "brightness")
    )
    assert rows["corner"]["scoring, times bright"] == f"{corner / bright:.2f} ×"
    assert rows["bright"]["scoring, times bright"] == "1.00 ×"
    assert (rows["corner"]["paper, times"], rows["bright"]["paper, times"]) == ("6 ×", "–")


def test_sets_and_columns_without_runs_are_left_out(suite, lines):
    kept = [line for line in lines if line["key"]["data"] == "skin"]
    header, rows = rows_of(accuracy_table(find(suite, "small", kept), "auroc"))
    assert header == ["method", "skin", "seeds", "paper"]
    assert rows["bright"]["paper"] == "81.2"


def test_findings_are_numpys(suite, lines):
    header, rows = rows_of(findings_table(find(suite, "small", lines), "skin"))
    places = {"pointing": "pointing_hit_rate", "pixel AP": "pixel_ap", "AUPRO": "aupro"}
    verdicts = {"sensitivity at 30 %": "sensitivity", "false alarms": "false_alarm_rate"}
    assert header == ["method", *places, *verdicts]
    for label in ("bright", "corner"):
        method, pooling = METHODS[label]
        runs = [x for x in lines if (x["key"]["method"], x["key"]["data"]) == (method, "skin")]
        for title, name in places.items():
            found = [x["localisation"][name] for x in runs]
            text = f"{100 * np.mean(found):.1f} ± {100 * np.std(found, ddof=1):.1f}"
            assert rows[label][title].strip("*") == text
        for title, name in verdicts.items():
            found = values(lines, method, "skin", pooling, name)
            text = f"{100 * np.mean(found):.1f} ± {100 * np.std(found, ddof=1):.1f}"
            assert rows[label][title] == text
    for title in places:
        shown = {label: rows[label][title] for label in ("bright", "corner")}
        best = max(shown, key=lambda x: float(shown[x].strip("*").split()[0]))
        assert {label for label, text in shown.items() if "**" in text} == {best}
    assert rows["brightest place"]["pointing"] == "19.0"
    assert rows["centre of the image"]["pointing"] == "17.0"


def test_rows_that_only_pool_otherwise_have_their_own_verdicts_on_the_same_map(suite, lines):
    found = find(suite, "small", lines)
    _, rows = rows_of(findings_table(found, "skin"))
    assert rows["bright, top"]["pointing"] == rows["bright, top"]["AUPRO"] == ""
    top = values(lines, "brightness", "skin", "top", "sensitivity")
    assert rows["bright, top"]["sensitivity at 30 %"].startswith(f"{100 * np.mean(top):.1f} ±")
    assert "| bright |" in weights_table(found) and "bright, top" not in weights_table(found)
    assert "0.20, 0.30, 0.50" in weights_table(found)


def test_auroc_within_a_column_is_over_pairs_of_the_same_stratum(suite, lines):
    def strata(first, second):
        return {
            "view": {
                "AP": {"auroc": first, "n_normal": 2, "n_abnormal": 3},
                "PA": {"auroc": second, "n_normal": 4, "n_abnormal": 1},
            }
        }

    for line in lines:
        line["metrics"]["within"] = strata(0.5, 1.0)  # older lines have it of the own score alone
        if "top" in line["by_pooling"]:
            line["by_pooling"]["top"]["within"] = strata(0.9, 0.4)
    found = find(suite, "small", lines)
    header, rows = rows_of(findings_table(found, "skin"))
    assert header[1] == "AUROC within view"
    assert rows["bright"]["AUROC within view"] == "**70.0 ± 0.0**"
    assert rows["bright, top"]["AUROC within view"] == "**70.0 ± 0.0**"
    assert rows["brightest place"]["AUROC within view"] == ""
    assert rows["brightest place"]["pointing"] == "19.0"
    table = list(csv.DictReader(io.StringIO(csv_table(found))))
    assert {row["auroc_within_view"] for row in table if row["label"] == "bright"} == {"0.7"}


def test_the_rate_by_image_has_columns_where_it_is_known(suite, lines):
    for line in lines:
        for pooled in line["by_pooling"].values():
            pooled |= {"sensitivity_by_image": 0.5, "false_alarm_rate_by_image": 0.0625}
    header, rows = rows_of(findings_table(find(suite, "small", lines), "skin"))
    assert header[-2:] == ["sensitivity at 30 %, by image", "false alarms, by image"]
    assert rows["bright"]["sensitivity at 30 %, by image"] == "50.0 ± 0.0"


def test_findings_without_marks_or_with_the_verdicts_of_old_lines(suite, lines):
    for line in lines:
        del line["localisation"]
        for pooled in line["by_pooling"].values():
            del pooled["sensitivity"], pooled["false_alarm_rate"]
        line["metrics"] = {"sensitivity": 0.25, "false_alarm_rate": 0.03125}
    found = find(suite, "small", lines)
    header, rows = rows_of(findings_table(found, "skin"))
    assert header == ["method", "sensitivity at 30 %", "false alarms"]
    assert list(rows["bright"].values())[1:] == ["25.0 ± 0.0", "3.1 ± 0.0"]
    assert list(rows["bright, top"].values())[1:] == ["–", "–"]
    assert "later" not in rows and "centre of the image" not in rows
    assert not findings_table(find(suite, "small", []), "skin")


def test_figures_show_the_drawn_rows(suite, lines):
    drawn = {f.name: f for f in figures(find(suite, "small", lines))}
    assert set(drawn) == {*(f"{kind}-{d}" for kind in ("roc", "histograms") for d in SETS), "cost"}
    for figure in drawn.values():
        assert figure.svg.startswith("<svg") and figure.svg.rstrip().endswith("</svg>")
        assert figure.caption
    again = {f.name: f for f in figures(find(suite, "small", lines))}
    assert again == drawn
    assert not list(figures(find(suite, "small", [])))


def test_the_curve_is_over_the_setting(suite_file):
    text = suite_file.read_text()
    text = re.sub(r"figures = .*", 'figures = ["curve", "alpha"]\ncurve = "noise.strength"', text)
    text = text[: text.index("[[row]]")]
    for strength in (0.1, 0.3):
        text += f'[[row]]\nlabel = "{strength}"\nmethod = "scrd"\n'
        text += f"settings = {{ noise = {{ strength = {strength} }} }}\n"
    suite_file.write_text(text)
    suite = read_suite(str(suite_file))
    lines = [made_up(run, np.random.default_rng(1)) for run in suite.runs("small")]
    for line in lines:
        line["by_pooling"]["own"] = {"auroc": line["key"]["settings"]["noise"]["strength"] + 0.5}
    found = find(suite, "small", lines)
    assert [f.name for f in figures(found)] == ["curve", *(f"alpha-{d}" for d in SETS)]
    upside_down = [dict(line) for line in lines]
    for line in upside_down:
        strength = line["key"]["settings"]["noise"]["strength"]
        line["by_pooling"] = {"own": {"auroc": 0.9 - strength}}
    assert next(figures(find(suite, "small", upside_down))).svg != next(figures(found)).svg

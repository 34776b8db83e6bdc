"""The console says what the table says, and no path of the machine enters a file."""

import json
import re

import pytest
import torch
from typer.testing import CliRunner

from scrd.bench.results import read_results
from scrd.cli import app
from scrd.model import teacher


def bench(*arguments):
    return CliRunner().invoke(app, ["bench", *(str(a) for a in arguments)])


def test_console_and_table_agree_to_the_letter(suite_file, data, tmp_path):
    results, chosen = tmp_path / "r.jsonl", ("--set", "skin", "--seed", 0)
    call = ("run", suite_file, data, "--results", results, "--budget", "small", *chosen)
    result = bench(*call, "--device", "cpu")
    assert result.exit_code == 0, result.output
    said = re.sub(r"\s+", " ", result.stdout)
    assert bench("report", results, "--suite", suite_file, "--out", tmp_path / "o").exit_code == 0
    page = (tmp_path / "o" / "results.md").read_text(encoding="utf-8")
    table = page[page.index("AUROC, %:") : page.index("F1, %:")].replace("**", "")
    rows = [[c.strip() for c in line[2:-2].split(" | ")] for line in table.splitlines()]
    shown = {row[0]: row[1] for row in rows if row[0] in ("bright", "bright, top", "corner")}
    assert len(shown) == 3
    assert f"skin, bright, seed 0: AUROC bright {shown['bright']}; bright, top " in said
    assert f"bright, top {shown['bright, top']}, " in said
    assert f"skin, corner, seed 0: AUROC {shown['corner']}, " in said


@pytest.fixture
def with_objective(suite_file):
    text = suite_file.read_text().replace(
        'label = "later"',
        'label = "rd"\nmethod = "rd"\nsettings = { pooling = "mean" }',
    )
    suite_file.write_text(text)
    return suite_file


def test_no_path_enters_results_maps_or_page(with_objective, data, tmp_path):
    import timm

    full = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    weights = tmp_path / "somewhere" / "mine.pth"
    weights.parent.mkdir()
    torch.save(full.state_dict(), weights)
    results, out = tmp_path / "r.jsonl", tmp_path / "o"
    call = ("run", with_objective, data.resolve(), "--results", results, "--budget", "small")
    chosen = ("--set", "skin", "--seed", 0, "--weights", weights.resolve(), "--device", "cpu")
    result = bench(*call, *chosen)
    assert result.exit_code == 0, result.output
    lines = read_results(results).lines
    assert {line["key"]["settings"]["weights"] for line in lines} == {"mine.pth"}
    assert bench("report", results, "--suite", with_objective, "--out", out).exit_code == 0
    assert "| rd |" in (out / "results.md").read_text(encoding="utf-8")  # told, whoseever weights
    left = [results, *(p for p in (*(tmp_path / "r.maps").iterdir(), *out.rglob("*")))]
    roots = [str(p).encode() for p in (tmp_path, data.parent)]
    for path in left:
        if path.is_file():
            assert not any(root in path.read_bytes() for root in roots), path
    for line in lines:
        texts = [t for t in re.findall(r'"([^"]*)"', json.dumps(line)) if t.startswith("/")]
        assert texts == []


def test_random_weights_are_no_row_of_a_table(with_objective, data, tmp_path):
    results = tmp_path / "r.jsonl"
    call = ("run", with_objective, data, "--results", results, "--budget", "small", "--row", "rd")
    result = bench(*call, "--set", "skin", "--seed", 0, "--weights", "random", "--device", "cpu")
    assert result.exit_code == 0, result.output
    bench("report", results, "--suite", with_objective, "--out", tmp_path / "o")
    assert "| rd |" not in (tmp_path / "o" / "results.md").read_text(encoding="utf-8")


def test_missing_weights_are_told_before_images_are_read(
    with_objective, data, tmp_path, monkeypatch
):
    from scrd.bench import runner

    def unread(*_, **__):
        raise AssertionError("images were read")

    monkeypatch.setattr(runner, "read_material", unread)
    call = ("run", with_objective, data, "--results", tmp_path / "r.jsonl", "--budget", "small")
    result = bench(*call, "--row", "rd", "--set", "skin", "--weights", tmp_path / "gone.pth")
    assert result.exit_code == 1
    said = re.sub(r"\s+", "", result.stderr)
    assert "nosuchweightsfile" in said and "imageswereread" not in said


def test_the_option_that_the_error_names_exists(monkeypatch, tmp_path):
    import timm

    from scrd.model.weights import TeacherError

    real = timm.create_model

    def offline(*names, **options):
        if options.get("pretrained"):
            raise OSError("no network")
        return real(*names, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(TeacherError) as e:
        teacher.build_teacher("resnet18")
    options = set(re.findall(r"--[a-z-]+", str(e.value)))
    assert options
    for command in (["bench", "run"], ["train"]):
        text = CliRunner().invoke(app, [*command, "--help"]).output
        assert all(option in text for option in options)

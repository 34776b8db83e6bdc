"""The commands: what they leave, what they say, and with which exit code they end."""

import csv
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import typer.main
from PIL import Image
from typer.testing import CliRunner

from scrd import __version__
from scrd.cli import app

TRAIN = [
    *("--image-size", "64", "--batch-size", "4", "--iterations", "6"),
    *("--far", "0.2", "--pooling", "top", "--device", "cpu"),
]


def scrd(*arguments):
    """Run a command in this process; the result has exit_code, stdout, stderr and output."""
    return CliRunner().invoke(app, [str(a) for a in arguments])


def refused(result, *words):
    """Exit code 2, the reason on standard error, and no traceback."""
    assert result.exit_code == 2, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    said = re.sub(r"\s+", " ", result.stderr)
    for word in words:
        assert str(word) in said
    return True


def picture(rng, path, spot=False, size=(64, 64)):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = 80 + np.mgrid[: size[0], : size[1]][1] % 32 + rng.normal(0, 5, size)
    if spot:
        image[10:22, 10:22] = 240
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("tree"), np.random.default_rng(0)
    for folder, count in (("train/normal", 30), ("test/normal", 6), ("test/tumour", 5)):
        for i in range(count):
            picture(rng, root / folder / f"{i}.png", spot="tumour" in folder)
    return root


@pytest.fixture(scope="module")
def model(tree, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "model"
    result = scrd("train", tree, "--out", folder, *TRAIN)
    assert result.exit_code == 0, result.output
    assert f"{folder}: trained on" in result.stdout.replace("\n", "")
    return folder


def rows(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


def test_help_is_quick_because_it_imports_no_torch():
    program = (
        "import sys; sys.argv = ['scrd', '--help']\n"
        "from scrd.cli import app\n"
        "try: app()\n"
        "finally: print('heavy:', [m for m in ('torch', 'timm', 'scipy') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "heavy: []" in run.stdout
    for command in ("check", "train", "score", "eval", "demo"):
        assert command in run.stdout


def test_the_version():
    result = scrd("--version")
    assert result.exit_code == 0
    assert result.stdout.strip() == __version__


def test_check_of_sound_data(tree, tmp_path):
    result = scrd("check", tree, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "check.json").read_text())
    assert report["images"] == 41
    assert "train: 30 normal (30 normal); test: 6 normal" in result.stdout
    assert not report["has_leak"]


def test_check_ends_with_1_on_a_leak_or_an_unreadable_file(tmp_path):
    rng = np.random.default_rng(1)
    for i in range(4):
        picture(rng, tmp_path / "data/train/normal" / f"{i}.png")
        picture(rng, tmp_path / "data/test/normal" / f"{i}.png")
    broken = tmp_path / "data/train/normal/9.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n")
    result = scrd("check", tmp_path / "data", "--out", tmp_path / "broken")
    assert result.exit_code == 1
    assert "9.png" in result.stdout
    broken.unlink()
    leaked = (tmp_path / "data/train/normal/0.png").read_bytes()
    (tmp_path / "data/test/normal/0.png").write_bytes(leaked)
    result = scrd("check", tmp_path / "data", "--out", tmp_path / "leak")
    assert result.exit_code == 1
    assert "LEAK" in result.stdout
    assert json.loads((tmp_path / "leak/check.json").read_text())["has_leak"]


def test_train_leaves_the_model_folder_and_nothing_else(model):
    assert sorted(p.name for p in model.iterdir()) == [
        "calibration.json",
        "card.md",
        "config.json",
        "training.jsonl",
        "weights.safetensors",
    ]
    assert list(model.parent.iterdir()) == [model]
    config = json.loads((model / "config.json").read_text())["config"]
    assert (config["iterations"], config["batch_size"], config["false_alarm_rate"]) == (6, 4, 0.2)


def test_every_file_of_a_model_may_be_read_by_whoever_may_read_the_others(model):
    modes = {p.stat().st_mode & 0o777 for p in model.iterdir()}
    assert len(modes) == 1


def test_options_reach_the_settings(tree, tmp_path):
    options = (
        "--objective rd --noise gaussian --noise-strength 0.3 --resize letterbox --channels rgb "
        "--window 10,200 --held-out 0.3 --learning-rate 0.002 --seed 5 --precision 32-true "
        "--pooling top --acquisition ignore --promise image"
    )
    result = scrd("train", tree, "--out", tmp_path / "m", *TRAIN, *options.split())
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "m" / "config.json").read_text())
    config = written["config"]
    assert (config["objective"], config["resize"], config["seed"]) == ("rd", "letterbox", 5)
    assert (config["noise"]["kind"], config["noise"]["strength"]) == ("gaussian", 0.3)
    assert (config["held_out"], config["learning_rate"]) == (0.3, 0.002)
    assert (config["pooling"], config["acquisition"]) == ("top", "ignore")
    assert config["promise"] == "image"
    assert json.loads((tmp_path / "m" / "calibration.json").read_text())["promise"] == "image"
    assert config["window"] == [10, 200]
    intensity = written["preprocessing"]["intensity"]
    expected = {"low": 10.0, "high": 200.0, "headroom": 0.0, "channels": "rgb", "scope": "data"}
    assert expected.items() <= intensity.items()


def test_a_model_is_overwritten_only_when_asked(tree, model, tmp_path):
    before = (model / "config.json").read_bytes()
    assert refused(scrd("train", tree, "--out", model, *TRAIN), model, "--overwrite")
    assert (model / "config.json").read_bytes() == before
    (tmp_path / "m").mkdir()
    for file in model.iterdir():
        (tmp_path / "m" / file.name).write_bytes(file.read_bytes())
    result = scrd("train", tree, "--out", tmp_path / "m", *TRAIN, "--seed", 3, "--overwrite")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "m" / "config.json").read_text())["config"]["seed"] == 3


def test_train_skips_broken_images_names_them_and_ends_with_1(tree, tmp_path):
    for file in (tree / "train/normal").iterdir():
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "data" / "7.png").write_bytes(b"")
    result = scrd("train", tmp_path / "data", "--out", tmp_path / "m", *TRAIN)
    assert result.exit_code == 1
    assert f"{tmp_path / 'data' / '7.png'}: the file is empty" in result.stderr
    assert (tmp_path / "m" / "config.json").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--image-size 100", ["multiple of 32", "100"]),
        ("--objective best", ["'best'", "released"]),
        ("--pooling median", ["'median'", "excess"]),
        ("--acquisition no", ["'no'", "adjust"]),
        ("--window 1", ["--window", "auto, image, series, data", "LOW,HIGH", "'1'"]),
        ("--window 9,3", ["low < high"]),
        ("--noise perlin", ["'perlin'", "simplex"]),
        ("--far 2", ["false_alarm_rate"]),
        ("--weights absent.safetensors", ["absent.safetensors", "no such"]),
        ("--teacher nothing50", ["nothing50"]),
        ("--device nonsense", ["nonsense"]),
        ("--precision 7-bit", ["7-bit"]),
    ],
)
def test_train_refuses_settings_without_meaning(tree, tmp_path, options, words):
    result = scrd("train", tree, "--out", tmp_path / "m", *TRAIN, *options.split())
    assert refused(result, *words)
    assert not (tmp_path / "m").exists()


def test_train_refuses_data_that_is_not_there(tmp_path):
    absent = tmp_path / "absent"
    assert refused(scrd("train", absent, "--out", tmp_path / "m"), absent, "no such")
    assert refused(scrd("check", absent, "--out", tmp_path), absent, "no such")
    (tmp_path / "empty").mkdir()
    result = scrd("train", tmp_path / "empty", "--out", tmp_path / "m")
    assert refused(result, tmp_path / "empty", "no images")


def test_train_refuses_the_folder_it_stands_in(tree, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    assert refused(scrd("train", tree, "--out", ".", *TRAIN), "not a model folder")


@pytest.fixture(scope="module")
def inbox(tmp_path_factory):
    """A folder with a subfolder, images of two sizes, and a broken file."""
    root, rng = tmp_path_factory.mktemp("inbox"), np.random.default_rng(2)
    picture(rng, root / "a.png")
    picture(rng, root / "sub" / "a.png", spot=True, size=(40, 90))
    (root / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00")
    (root / "notes.txt").write_text("no image")
    return root


def test_score_writes_rows_maps_and_errors(model, inbox, tmp_path):
    out, single = tmp_path / "out", picture(np.random.default_rng(3), tmp_path / "one.png")
    result = scrd("score", model, inbox, single, "--out", out, "--raw-maps")
    assert result.exit_code == 1
    assert f"{inbox / 'b.png'}: " in result.stderr
    header, *found = rows(out / "scores.csv")
    assert header == ["path", "score", "p_value", "flag"]
    files = [inbox / "a.png", inbox / "b.png", inbox / "sub" / "a.png", single]
    assert [row[0] for row in found] == [str(f) for f in files]
    assert found[1][1:] == ["", "", ""]
    for i in (0, 2, 3):
        score, p_value, flag = found[i][1:]
        assert -9 < float(score) < 99 and 0 < float(p_value) <= 1
        assert flag == str(int(float(p_value) <= 0.2))
    assert rows(out / "errors.csv")[0] == ["path", "reason"]
    assert [row[0] for row in rows(out / "errors.csv")[1:]] == [str(inbox / "b.png")]
    maps = sorted(out.rglob("*.npy"))
    assert len(maps) == len(list((out / "overlays").rglob("*.jpg"))) == 3
    sizes = sorted(np.load(m).shape for m in maps)
    assert sizes == [(40, 90), (64, 64), (64, 64)]
    assert all(np.load(m).dtype == np.float32 for m in maps)
    for overlay in (out / "overlays").rglob("*.jpg"):
        assert Image.open(overlay).format == "JPEG"
    assert not [p for p in out.rglob(".*") if p.name != ".scrd-files"]  # no temporary file is left


def test_scoring_again_forgets_the_older_errors(model, inbox, tmp_path):
    assert scrd("score", model, inbox, "--out", tmp_path, "--no-overlays").exit_code == 1
    assert not (tmp_path / "overlays").exists()
    result = scrd("score", model, inbox / "a.png", "--out", tmp_path, "--no-overlays")
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "errors.csv").exists()
    assert len(rows(tmp_path / "scores.csv")) == 2


def test_a_missing_file_is_a_row_like_any_other_broken_one(model, inbox, tmp_path):
    result = scrd("score", model, inbox / "absent.png", inbox / "a.png", "--out", tmp_path)
    assert result.exit_code == 1
    assert "absent.png: no such file" in result.stderr
    assert rows(tmp_path / "scores.csv")[1] == [str(inbox / "absent.png"), "", "", ""]


def test_score_refuses_what_it_cannot_use(model, inbox, tmp_path):
    (tmp_path / "empty").mkdir()
    result = scrd("score", model, tmp_path / "empty", "--out", tmp_path / "o")
    assert refused(result, tmp_path / "empty", "no images")
    absent = tmp_path / "nowhere"
    assert refused(scrd("score", absent, inbox, "--out", tmp_path / "o"), absent, "no such model")
    (tmp_path / "nowhere.partial").mkdir()
    assert refused(scrd("score", absent, inbox, "--out", tmp_path / "o"), "--resume")
    result = scrd("score", inbox, inbox, "--out", tmp_path / "o")
    assert refused(result, inbox / "config.json", "missing")
    result = scrd("score", model, inbox, "--out", tmp_path / "o", "--device", "nonsense")
    assert refused(result, "nonsense")
    assert not (tmp_path / "o").exists()


def test_eval_writes_metrics_scores_and_report(model, tree, tmp_path):
    result = scrd("eval", model, tree, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "AUROC" in result.stdout
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert (metrics["n_normal"], metrics["n_abnormal"]) == (6, 5)
    assert f"AUROC {metrics['auroc']:.3f}" in result.stdout
    assert "train: 30 normal (30 normal); test: 6 normal" in result.stdout
    assert len(rows(tmp_path / "scores.csv")) == 12
    page = (tmp_path / "report.html").read_text()
    assert "data:image/svg" in page and "data:image/jpeg" in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)  # nothing beside it is needed


def test_eval_names_skipped_files_as_the_manifest_does(model, tree, tmp_path):
    lines = [f"{tree}/test/normal/{i}.png,0,normal,test" for i in range(4)]
    lines.insert(2, "sub/broken.png,1,tumour,test")
    lines += [f"{tree}/test/tumour/{i}.png,1,tumour,test" for i in range(3)]
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "broken.png").write_bytes(b"")
    table = tmp_path / "split.csv"
    table.write_text("\n".join(["path,label,class,split", *lines]) + "\n")
    result = scrd("eval", model, table, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "broken.png: the file is empty" in result.stderr
    assert json.loads((tmp_path / "out/metrics.json").read_text())["n_failed"] == 1
    assert [row[0] for row in rows(tmp_path / "out/errors.csv")[1:]] == ["sub/broken.png"]
    names = [row[0] for row in rows(tmp_path / "out/scores.csv")[1:]]
    assert sorted(names) == sorted(line.split(",")[0] for line in lines)


def test_eval_refuses_what_it_cannot_use(model, tree, tmp_path):
    result = scrd("eval", model, tree / "train" / "normal", "--out", tmp_path / "o")
    assert refused(result, "no image in the split 'test'")
    result = scrd("eval", tmp_path / "nowhere", tree, "--out", tmp_path / "o")
    assert refused(result, "nowhere")
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("name", ["[bold].png", "größe 1.png"])
def test_strange_file_names_are_told_as_they_are(model, tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    result = scrd("score", model, tmp_path / name, "--out", tmp_path / "o")
    assert result.exit_code == 1
    assert f"{os.sep}{name}: the file is empty" in result.stderr


def test_a_missing_package_is_named_with_its_extra(monkeypatch, tmp_path):
    def lacking(*_args, **_options):
        raise ModuleNotFoundError("No module named 'torch'", name="torch.nn")

    monkeypatch.setattr("scrd.data.manifest.read_manifest", lacking)
    result = CliRunner().invoke(app, ["check", str(tmp_path), "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert "pip install 'scrd[train]'" in result.stderr


def test_the_log_and_its_picture_are_there_while_training_runs(tree, tmp_path, monkeypatch):
    from scrd.training import fit

    seen = {}
    learn = fit.learn_normals

    def look(*arguments, **options):
        work = tmp_path / "model.partial"
        seen.update({file.name: file.read_text() for file in work.glob("training.*")})
        return learn(*arguments, **options)

    monkeypatch.setattr(fit, "learn_normals", look)
    result = scrd("train", tree, "--out", tmp_path / "model", *TRAIN)
    assert result.exit_code == 0, result.output
    assert seen["training.jsonl"] == (tmp_path / "model" / "training.jsonl").read_text()
    assert seen["training.svg"].startswith("<svg")
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    assert re.search(r"^training: 6 iterations in .*, loss .*images/s$", result.stderr, re.M)


def test_an_interrupted_training_says_how_to_go_on_and_does(tree, tmp_path, monkeypatch):
    import signal

    from scrd.training import step

    inputs_of = step.inputs_of

    def struck(run, number):
        if number == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return inputs_of(run, number)

    monkeypatch.setattr(step, "inputs_of", struck)
    result = scrd("train", tree, "--out", tmp_path / "model", *TRAIN)
    assert result.exit_code == 130
    assert "interrupted at iteration 4 of 6; the same command with --resume" in result.stderr
    monkeypatch.setattr(step, "inputs_of", inputs_of)
    result = scrd("train", tree, "--out", tmp_path / "model", *TRAIN, "--resume")
    assert result.exit_code == 0, result.output
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_logger_that_is_not_known_is_refused_before_the_work(tree, tmp_path):
    result = scrd("train", tree, "--out", tmp_path / "model", *TRAIN, "--logger", "paper")
    assert refused(result, "tensorboard or mlflow")
    assert not list(tmp_path.iterdir())


def test_tensorboard_is_written_beside_the_model(tree, tmp_path):
    pytest.importorskip("tensorboardX")
    result = scrd("train", tree, "--out", tmp_path / "m", *TRAIN, "--logger", "tensorboard")
    assert result.exit_code == 0, result.output
    (events,) = (tmp_path / "m.tensorboard").iterdir()
    assert b"loss" in events.read_bytes()


def test_every_command_that_computes_takes_threads_and_no_model_knows_of_them(
    model, tree, tmp_path, monkeypatch
):
    import torch

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    chosen = []
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    commands = dict(typer.main.get_command(app).commands)
    commands["bench run"] = commands["bench"].commands["run"]
    for name in ("train", "score", "eval", "demo", "check", "export", "watch", "bench run"):
        assert "--threads" in [o for p in commands[name].params for o in p.opts], name
    assert scrd("score", model, tree, "--out", tmp_path, "--threads", 0).exit_code == 2
    result = scrd("score", model, tree / "test", "--out", tmp_path, "--threads", 2)
    assert result.exit_code == 0, result.output
    assert chosen[-1] == 2 and os.environ["OMP_NUM_THREADS"] == "2"
    assert "threads" not in json.loads((model / "config.json").read_text())["config"]


@pytest.fixture
def small_demo(monkeypatch):
    pytest.importorskip("nilearn", reason="the template brain is in nilearn (extra: demo)")
    from functools import partial

    import scrd.config
    from scrd.datasets import mni152

    small = partial(mni152.make_mni152, train=24, test_normal=4, test_lesion=4, size=64)
    monkeypatch.setattr(mni152, "make_mni152", small)
    full = scrd.config.Config

    def tiny(**settings):
        return full(**{**settings, "image_size": 64, "iterations": 6, "batch_size": 4})

    monkeypatch.setattr(scrd.config, "Config", tiny)


def test_the_demonstration_tells_its_steps_and_goes_on_where_it_stopped(
    small_demo, tmp_path, monkeypatch
):
    from scrd.outputs import eval_folder as report

    write = report.write_evaluation

    def struck(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "write_evaluation", struck)
    result = scrd("demo", "--out", tmp_path)
    assert result.exit_code == 130
    assert "interrupted; the same command goes on" in result.stderr
    assert (tmp_path / "model.partial" / "training.svg").is_file()
    monkeypatch.setattr(report, "write_evaluation", write)
    result = scrd("demo", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    lines = result.stderr.splitlines()
    told = [line for line in lines if line.startswith("step ")]
    assert [line[:11] for line in told] == [f"step {n} of 4" for n in range(1, 5)]
    assert all(re.search(r", after \d+ s: ", line) for line in told)
    assert any(line.startswith("training: 6 iterations in ") for line in lines)
    assert not (tmp_path / "model.partial").exists()
    assert (tmp_path / "report.html").is_file()


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(28, "No space left on device", "/full"), 2, "/full: No space left on device"),
        (ZeroDivisionError("of Jane Doe"), 3, "a fault of the software"),
        (ModuleNotFoundError("no", name="scrd.nonsense"), 3, "ModuleNotFoundError"),
    ],
)
def test_whatever_stops_a_command_has_its_code(monkeypatch, tmp_path, error, code, told):
    def fail(*_args, **_options):
        raise error

    monkeypatch.setattr("scrd.data.manifest.read_manifest", fail)
    result = CliRunner().invoke(app, ["check", str(tmp_path), "--out", str(tmp_path)])
    assert result.exit_code == code
    assert told in result.stderr
    assert "Jane" not in result.stderr and "Traceback" not in result.stderr

"""The log on disk while training runs: lines, pictures, what an earlier run left, loggers."""

import json

import pytest

from scrd.errors import ConfigError
from scrd.report.figures import training_curve
from scrd.training import journal
from scrd.training.journal import Journal, to_lines
from scrd.training.log import LogEntry
from scrd.training.loggers import make_logger


def entry(iteration):
    return LogEntry(iteration, 1 / iteration, (0.2, 0.3, 0.5), 41.2)


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(journal.time, "monotonic", lambda: now[0])
    return now


def iterations(folder):
    lines = (folder / "training.jsonl").read_text().splitlines()
    return [json.loads(line)["iteration"] for line in lines]


def test_every_entry_is_on_disk_at_once_and_the_picture_is_of_all(tmp_path, clock):
    written = Journal(tmp_path, lambda log: f"<svg>{len(log)}</svg>")
    written.begin([])
    assert iterations(tmp_path) == []
    for done in (10, 20, 30):
        written.add(entry(done))
        assert iterations(tmp_path)[-1] == done
    # one at once, the next after a while
    assert (tmp_path / "training.svg").read_text() == "<svg>1</svg>"
    clock[0] += journal.REDRAW
    written.add(entry(40))
    assert (tmp_path / "training.svg").read_text() == "<svg>4</svg>"
    written.add(entry(50))
    written.draw()
    assert (tmp_path / "training.svg").read_text() == "<svg>5</svg>"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["training.jsonl", "training.svg"]


def test_drawing_takes_a_small_share_of_the_time(tmp_path, clock):
    drawn = []

    def slow(log):
        drawn.append(len(log))
        clock[0] += 10
        return "<svg/>"

    written = Journal(tmp_path, slow)
    for done in range(1, 600):
        clock[0] += 1
        written.add(entry(done))
    assert len(drawn) == 2


def test_what_came_after_the_checkpoint_of_an_earlier_run_goes(tmp_path):
    (tmp_path / "training.jsonl").write_text(to_lines([entry(n) for n in (10, 20, 30)]) + '{"ite')
    written = Journal(tmp_path, training_curve)
    written.begin([entry(10), entry(20)])
    written.add(entry(30))
    assert iterations(tmp_path) == [10, 20, 30]
    assert (tmp_path / "training.svg").read_text().startswith("<svg")


def test_an_entry_in_words_and_in_figures():
    assert str(entry(4)) == "loss 0.25, 41.2 images/s"
    figures = entry(4).figures()
    assert figures["loss"] == 0.25 and figures["scale_weight_3"] == 0.5
    assert all(isinstance(value, float) for value in figures.values())


def test_a_logger_that_is_unknown_or_not_installed_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="tensorboard or mlflow, not 'paper'"):
        make_logger("paper", "model", tmp_path)
    import lightning_fabric.loggers.tensorboard as fabric

    for name in ("_TENSORBOARD_AVAILABLE", "_TENSORBOARDX_AVAILABLE"):
        monkeypatch.setattr(fabric, name, False)
    with pytest.raises(ConfigError, match=r"pip install 'scrd\[tensorboard\]'"):
        make_logger("tensorboard", "model", tmp_path)


def test_tensorboard_gets_the_log(tmp_path):
    pytest.importorskip("tensorboardX")
    logger = make_logger("tensorboard", "model", tmp_path / "events")
    logger.log_metrics(entry(10).figures(), 10)
    logger.finalize("success")
    (events,) = (tmp_path / "events").iterdir()
    content = events.read_bytes()
    assert b"loss" in content and b"scale_weight_2" in content


def test_mlflow_gets_the_log(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    pytest.importorskip("pytorch_lightning")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI"):
        make_logger("mlflow", "model", tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "runs").as_uri())
    logger = make_logger("mlflow", "model", tmp_path)
    logger.log_hyperparams({"seed": 3})
    logger.log_metrics(entry(10).figures(), 10)
    logger.finalize("success")
    (line,) = (p.read_text() for p in tmp_path.rglob("metrics/loss"))
    assert line.split()[1:3] == ["0.1", "10"]

"""Tiny data sets, cheap methods that count their trainings, and suites of them."""

import numpy as np
import pytest
import torch
from PIL import Image

from scrd import baselines
from scrd.baselines.method import Answer, Baseline
from scrd.bench.runner import run_missing
from scrd.bench.suite_file import read_suite


class Brightness(Baseline):
    """Distance of the mean from that of the normals; maps are distances of pixels from it."""

    trained = []

    def __init__(self, budget):
        super().__init__(budget)
        self.register_buffer("centre", torch.zeros(()))
        self.gain = torch.nn.Parameter(torch.ones(3))

    def fit(self, images):
        type(self).trained.append(self.budget.seed)
        self.centre = images.mean()

    def score(self, images):
        maps = (images.mean(dim=1) - self.centre).abs()
        return Answer((images.mean(dim=(1, 2, 3)) - self.centre).abs(), maps)


class Corner(Brightness):
    """One pixel, and no map."""

    def score(self, images):
        return Answer((images[:, 0, 0, 0] - self.centre).abs(), None)


class Breaking(Brightness):
    def fit(self, images):
        raise RuntimeError("no weights today")


METHODS = {"brightness": Brightness, "corner": Corner, "breaking": Breaking}


@pytest.fixture(autouse=True)
def methods(monkeypatch):
    """Only the cheap methods exist; gives the list of the seeds that they were trained with."""
    monkeypatch.setattr(baselines, "BASELINES", METHODS, raising=False)
    Brightness.trained.clear()
    return Brightness.trained


def picture(rng, path, light):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = 90 + rng.normal(0, 12) + rng.normal(0, 5, (64, 64))
    if light:
        image[8:24, 40:56] += light
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path)


def data_set(root, rng, counts):
    for (folder, light), count in counts.items():
        for i in range(count):
            picture(rng, root / folder / f"{i}.png", light)


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Two data sets; `brain-tumor-mri` has `brain-tumor-boxes` beside it."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    counts = {("train/normal", 0): 24, ("test/normal", 0): 8, ("test/spot", 90): 7}
    for name in ("brain-tumor-mri", "skin"):
        data_set(root / name, rng, counts)
    boxes = root / "brain-tumor-boxes"
    data_set(boxes, rng, {("spot", 90): 4})
    rows = [f"spot/{i}.png,1,spot,test" for i in range(4)]
    (boxes / "split.csv").write_text("\n".join(["path,label,class,split", *rows]))
    rows = [f"spot/{i}.png,40,8,56,24" for i in range(4)]
    (boxes / "boxes.csv").write_text("\n".join(["path,x_min,y_min,x_max,y_max", *rows]))
    return root


SUITE = """
title = "Tiny"
text = "For tests."
sets = ["brain-tumor-mri", "skin"]
seeds = [0, 1]
metrics = ["auroc", "f1"]
costs = true
figures = ["roc", "histograms", "cost"]

[budget.small]
window = "data"
image_size = 64
iterations = 3
batch_size = 4
false_alarm_rate = 0.3

[[row]]
label = "bright"
method = "brightness"
drawn = true
reference = { skin = 81.25 }

[[row]]
label = "bright, top"
method = "brightness"
pooling = "top"

[[row]]
label = "corner"
method = "corner"

[[row]]
label = "later"
"""


def write_suite(folder):
    path = folder / "tiny.toml"
    path.write_text(SUITE, encoding="utf-8")
    return path


@pytest.fixture
def suite_file(tmp_path):
    return write_suite(tmp_path)


@pytest.fixture(scope="session")
def finished(data, tmp_path_factory):
    """Text of a results file with every run of the suite."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baselines, "BASELINES", METHODS, raising=False)
        runs = read_suite(str(write_suite(folder))).runs("small")
        assert run_missing(runs, data, folder / "r.jsonl", device="cpu", say=lambda _: None) == []
    return (folder / "r.jsonl").read_text(encoding="utf-8")

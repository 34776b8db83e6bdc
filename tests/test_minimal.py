"""The package against `examples/scrd_minimal.py`, a derivation that shares no code with it."""

import copy
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import scrd.training
from scrd.config import Config
from scrd.metrics import auroc
from scrd.model import build_model
from scrd.objectives import OBJECTIVES, StepFeatures
from scrd.runtime import make_fabric
from scrd.scoring import anomaly_map, map_statistics
from scrd.synthesis.perturbation import NoiseSettings, apply_perturbation, sample_perturbation
from scrd.training import batch_indices, train

SIZE, BATCH, STEPS = 64, 4, 3


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def minimal():
    path = Path(__file__).parents[1] / "examples" / "scrd_minimal.py"
    spec = importlib.util.spec_from_file_location("scrd_minimal", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def images():
    """Ten smooth colour images, so that the teacher has something to see."""
    coarse = torch.rand(10, 3, 9, 9, generator=torch.Generator().manual_seed(3))
    return nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bicubic").clamp(0, 1)


@pytest.fixture(scope="module")
def fresh_pair(minimal):
    torch.manual_seed(0)
    ours = build_model("efficientnet_lite0")
    nn.init.normal_(ours.scale_head.linear.weight, std=0.02)
    theirs = minimal.Model()
    copy_weights(ours, theirs)
    return ours, theirs


@pytest.fixture
def pair(fresh_pair):
    """The package's model and the example's, with the same weights and uneven scale weights."""
    return copy.deepcopy(fresh_pair)


def trained_tensors(model):
    """Name to tensor of all but the teacher, which both load for themselves."""
    return {k: v for k, v in model.state_dict().items() if not k.startswith("teacher.")}


def copy_weights(source, target):
    """Both list the same tensors in the same order, under different names."""
    source, target = trained_tensors(source), trained_tensors(target)
    assert [v.shape for v in source.values()] == [v.shape for v in target.values()]
    for a, b in zip(source.values(), target.values(), strict=True):
        b.copy_(a)


def step_generator(seed, step):
    """The draw of a training step depends on the run's seed and the step's number alone."""
    state = np.random.SeedSequence((seed, 2, step)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def test_same_seed_same_perturbation(minimal, images):
    drawn = sample_perturbation(10, (SIZE, SIZE), NoiseSettings(), step_generator(0, 0))
    perturbed, footprint = apply_perturbation(images, drawn, NoiseSettings())
    expected, expected_footprint = minimal.perturb(images, step_generator(0, 0))
    torch.testing.assert_close(perturbed, expected, atol=1e-6, rtol=0)
    assert torch.equal(footprint.float(), expected_footprint)
    assert (perturbed != images).any(dim=1).float().mean() > 0.9 * 100 / SIZE**2


@pytest.mark.parametrize("name", OBJECTIVES)
def test_same_loss_and_gradients(minimal, images, pair, name):
    ours, theirs = (model.train() for model in pair)
    x = images[:BATCH]
    drawn = sample_perturbation(BATCH, (SIZE, SIZE), NoiseSettings(), step_generator(0, 0))
    perturbed, footprint = apply_perturbation(x, drawn, NoiseSettings())
    clean, student, alpha = ours(x)
    step = StepFeatures(clean, student, ours.teacher(perturbed), alpha, footprint)
    loss = OBJECTIVES[name].function(step).mean()
    expected = minimal.loss_of(theirs, x, name, step_generator(0, 0))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)

    loss.backward()
    expected.backward()
    pairs = zip(ours.student.named_parameters(), theirs.student.named_parameters(), strict=True)
    for (label, a), (_, b) in [*pairs, *head_and_fusion(ours, theirs)]:
        # `released` gives the head rounding errors for gradients; `rd` and `ratio` give it none
        if a.grad is None or label == "head" and name == "released":
            assert name in ("rd", "ratio", "released") and label == "head"
            continue
        error = (a.grad - b.grad).norm() / b.grad.norm()
        assert b.grad.norm() > 0 and error < 1e-3, (label, error)


def head_and_fusion(ours, theirs):
    yield ("head", ours.scale_head.linear.weight), ("head", theirs.head.weight)
    yield ("fuse1", ours.bottleneck.fuse1[0][0].weight), ("fuse1", theirs.fuse1[0].weight)
    yield ("fuse2", ours.bottleneck.fuse2[0].weight), ("fuse2", theirs.fuse2[0].weight)


@pytest.mark.parametrize(("name", "cache"), [*((n, 4.0) for n in OBJECTIVES), ("scrd", 0.0)])
def test_training_loop_gives_the_same_losses(minimal, images, pair, name, cache, monkeypatch):
    monkeypatch.setattr(scrd.training, "LOG_EVERY", 1)
    ours, theirs = pair
    config = Config(
        image_size=SIZE,
        batch_size=BATCH,
        iterations=STEPS,
        objective=name,
        seed=7,
        feature_cache_gib=cache,
    )
    log = train(ours, images, config, fabric=make_fabric("32-true", "cpu"))

    optimizer, schedule = minimal.make_optimizer(theirs.train(), STEPS)
    for step, entry in enumerate(log):
        x = images[batch_indices(step, BATCH, len(images), seed=7)]
        loss = minimal.loss_of(theirs, x, name, step_generator(7, step))
        assert entry.loss == pytest.approx(loss.item(), rel=1e-4 if step else 1e-5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    assert len(log) == STEPS
    assert abs(log[-1].loss - log[0].loss) > 1e-4  # it did learn, or the rest shows nothing

    # BatchNorm saw the normal batches, once each, and nothing else
    theirs = list(trained_tensors(theirs).values())
    for i, (label, a) in enumerate(trained_tensors(ours).items()):
        if "running" in label:
            assert (a - theirs[i]).norm() < 1e-3 * theirs[i].norm(), label
        elif "num_batches" in label:
            assert a == theirs[i] == STEPS


def test_same_maps_and_scores(minimal, images, pair):
    ours, theirs = pair
    with torch.no_grad():
        ours.train()(images)  # BatchNorm statistics other than those it starts with
    copy_weights(ours, theirs)
    with torch.no_grad():
        clean, student, alpha = ours.eval()(images)
    assert alpha.std(dim=0).min() > 1e-3
    maps = anomaly_map(clean, student, alpha, SIZE)
    expected = minimal.anomaly_maps(theirs, images)
    torch.testing.assert_close(maps, expected, atol=1e-5, rtol=0)

    statistics = map_statistics(maps, torch.ones_like(maps, dtype=torch.bool))
    for kind, score in minimal.pool(expected).items():
        torch.testing.assert_close(statistics[kind], score, atol=1e-5, rtol=0)


def test_same_auroc(minimal):
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 12, 60).astype(float)  # with ties
    labels = rng.integers(0, 2, 60)
    values = torch.from_numpy(scores)
    expected = minimal.auroc(values[labels == 0], values[labels == 1])
    assert auroc(scores, labels) == pytest.approx(expected, abs=1e-12)


def test_example_runs_on_folders(minimal, images, tmp_path, monkeypatch, capsys):
    for i, image in enumerate(images):
        folder = ("train", "test/normal", "test/other")[i % 3]
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        pixels = (255 * image).byte().movedim(0, 2).numpy()
        Image.fromarray(pixels).save(tmp_path / folder / f"{i}.png")
    arguments = ["train", "test", "--size", "64", "--iterations", "1"]
    monkeypatch.setattr("sys.argv", ["scrd_minimal.py", *arguments])
    monkeypatch.chdir(tmp_path)
    minimal.main()
    printed = capsys.readouterr().out
    assert printed.count(".png  mean ") == 6
    assert "AUROC, mean pooling" in printed and "AUROC, top pooling" in printed

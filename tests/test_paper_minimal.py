"""The package against `examples/paper_minimal.py`, a derivation that shares no code with it."""

import copy
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import scrd.training.loop
from scrd.config import Config
from scrd.data.intensity import fit_intensity
from scrd.data.preprocess import Preprocessing, prepare
from scrd.data.reading import read_image
from scrd.metrics.ranks import auroc
from scrd.model import build_model
from scrd.model.scores import infer, measured, scale_excess
from scrd.model.teacher import build_teacher
from scrd.objectives import OBJECTIVES, StepFeatures
from scrd.synthesis.perturbation import apply_perturbation, sample_perturbation
from scrd.synthesis.probes import PROBES
from scrd.synthesis.settings import NoiseSettings
from scrd.system.devices import make_fabric
from scrd.training.batches import batch_indices
from scrd.training.loop import train
from scrd.training.normals import learn_normals

SIZE, BATCH, STEPS = 64, 4, 3


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


NAMES = [name for name, o in OBJECTIVES.items() if o.student]


@pytest.fixture(scope="module")
def minimal():
    path = Path(__file__).parents[1] / "examples" / "paper_minimal.py"
    spec = importlib.util.spec_from_file_location("paper_minimal", path)
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
    ours = build_model("efficientnet_lite0", image_size=SIZE)
    # with BatchNorm, as the example has it: a few steps of Adam make much of rounding
    ours.teacher = build_teacher("efficientnet_lite0", trainable=True)
    nn.init.normal_(ours.scale_head.linear.weight, std=0.02)
    theirs = minimal.Model()
    copy_weights(ours, theirs)
    return ours, theirs


@pytest.fixture
def pair(fresh_pair):
    """The package's model and the example's, with the same weights and uneven scale weights."""
    return copy.deepcopy(fresh_pair)


def trained_tensors(model):
    """Name to tensor of all but the teacher and the package's statistics of normals."""
    trained = {"bottleneck", "student", "scale_head", "fuse1", "fuse2", "embed", "head"}
    return {k: v for k, v in model.state_dict().items() if k.split(".")[0] in trained}


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


@pytest.mark.parametrize("name", NAMES)
def test_same_loss_and_gradients(minimal, images, pair, name):
    ours, theirs = (model.train() for model in pair)
    x = images[:BATCH]
    drawn = sample_perturbation(BATCH, (SIZE, SIZE), NoiseSettings(), step_generator(0, 0))
    perturbed, footprint = apply_perturbation(x, drawn, NoiseSettings())
    if OBJECTIVES[name].standardised:
        ours.scaler.fit(ours.teacher(part) for part in images.split(3))
        minimal.standardise(theirs, images)
    clean = ours.encode(x)
    student, alpha, _ = ours.reconstruct(clean)
    step = StepFeatures(clean, student, ours.encode(perturbed), alpha, footprint)
    loss = OBJECTIVES[name].function(step).mean()
    expected = minimal.loss_of(theirs, x, name, step_generator(0, 0))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)

    loss.backward()
    expected.backward()
    pairs = zip(ours.student.named_parameters(), theirs.student.named_parameters(), strict=True)
    for (label, a), (_, b) in [*pairs, *head_and_fusion(ours, theirs)]:
        # `released` gives the head rounding errors for gradients
        if a.grad is None or label == "head" and name == "released":
            assert label == "head" and name not in ("paper", "algorithm2")
            continue
        error = (a.grad - b.grad).norm() / b.grad.norm()
        assert b.grad.norm() > 0 and error < 1e-3, (label, error)


def head_and_fusion(ours, theirs):
    yield ("head", ours.scale_head.linear.weight), ("head", theirs.head.weight)
    yield ("fuse1", ours.bottleneck.fuse1[0][0].weight), ("fuse1", theirs.fuse1[0].weight)
    yield ("fuse2", ours.bottleneck.fuse2[0].weight), ("fuse2", theirs.fuse2[0].weight)


@pytest.mark.parametrize(("name", "cache"), [*((n, 4.0) for n in NAMES), ("margin", 0.0)])
def test_training_loop_gives_the_same_losses(minimal, images, pair, name, cache, monkeypatch):
    monkeypatch.setattr(scrd.training.loop, "LOG_EVERY", 1)
    ours, theirs = pair
    ours.objective = OBJECTIVES[name]
    config = Config(
        image_size=SIZE,
        batch_size=BATCH,
        iterations=STEPS,
        objective=name,
        seed=7,
        feature_cache_gib=cache,
    )
    log = train(ours, images, config, fabric=make_fabric("32-true", "cpu"))

    if OBJECTIVES[name].standardised:
        minimal.standardise(theirs, images)
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
            assert (a - theirs[i]).norm() < 5e-3 * theirs[i].norm(), label
        elif "num_batches" in label:
            assert a == theirs[i] == STEPS


@pytest.fixture
def trained_pair(minimal, images, pair):
    """Both with standardised features and BatchNorm statistics other than they start with."""
    ours, theirs = pair
    ours.scaler.fit([ours.teacher(images)])
    minimal.standardise(theirs, images)
    with torch.no_grad():
        ours.train()(images)
    copy_weights(ours, theirs)
    return ours.eval(), theirs.eval()


def everywhere(images):
    return torch.ones(len(images), SIZE, SIZE, dtype=torch.bool)


@pytest.mark.parametrize("colours", ["rgb", "grey"])
def test_same_maps_and_scores(minimal, images, trained_pair, colours):
    ours, theirs = trained_pair
    channels = slice(None) if colours == "rgb" else slice(1)
    normals, others = images[:6, channels], images[6:, channels]
    learn_normals(ours, normals, everywhere(normals), Config(image_size=SIZE, objective="rd"))
    minimal.learn_normals(theirs, normals.expand(-1, 3, -1, -1))
    assert bool(ours.expected.coefficients[1:].any()) is (colours == "grey")
    found = infer(ours, others, everywhere(others))
    assert found.scale_weights.std(dim=0).min() > 1e-3
    others = others.expand(-1, 3, -1, -1)
    expected = minimal.anomaly_maps(theirs, others)
    torch.testing.assert_close(found.maps, expected, atol=1e-5, rtol=0)
    plain = scale_excess(ours, measured(ours, others).maps, everywhere(others))
    torch.testing.assert_close(plain, minimal.excess(theirs, others), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.excess, minimal.unusual(theirs, others), atol=2e-3, rtol=0)
    scores = found.statistics["excess"]
    assert scores.std() > 0.1
    torch.testing.assert_close(scores, minimal.scores(theirs, others), atol=2e-3, rtol=0)


def test_same_probes(minimal, images):
    x = torch.cat([images, images[:, :1].expand(-1, 3, -1, -1)]).clamp(0, 1)
    expected = dict(zip(("lesion", "harmless"), minimal.probes(x, 5), strict=True))
    for kind, changed in expected.items():
        ours = [p for p in PROBES.values() if p.kind == kind]
        assert len(ours) == len(changed)
        for probe, theirs in zip(ours, changed, strict=True):
            found = probe(x, torch.Generator().manual_seed(5))
            torch.testing.assert_close(found, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("colours", ["rgb", "grey"])
def test_same_scale_weights(minimal, images, trained_pair, colours):
    ours, theirs = trained_pair
    ours.objective = OBJECTIVES["srd"]
    x = images if colours == "rgb" else images[:, :1]
    learn_normals(ours, x, everywhere(x), Config(image_size=SIZE, seed=4))
    alpha = infer(ours, x, everywhere(x)).scale_weights
    x = x.expand(-1, 3, -1, -1)
    minimal.learn_normals(theirs, x)
    expected = minimal.fit_scale_weights(theirs, x, seed=4)
    torch.testing.assert_close(alpha, expected.expand(len(x), 3), atol=2e-3, rtol=0)
    assert (expected - 1 / 3).abs().max() > 0.05


def test_same_auroc(minimal):
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 12, 60).astype(float)  # with ties
    labels = rng.integers(0, 2, 60)
    values = torch.from_numpy(scores)
    expected = minimal.auroc(values[labels == 0], values[labels == 1])
    assert auroc(scores, labels) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_same_model_input(minimal, images, tmp_path, mode):
    files = []
    for i, image in enumerate(images[:3]):
        pixels = (60 + 90 * image).byte().movedim(0, 2).numpy()[:, : 64 - 8 * i]
        pixels[0, 0] = 255  # beyond the headroom
        files.append(tmp_path / f"{i}.png")
        Image.fromarray(pixels).convert(mode).save(files[-1])
    found, read = minimal.read_folder(tmp_path, 32)
    assert found == files
    intensity = fit_intensity(map(read_image, files), window="image", channels="auto")
    for file, theirs in zip(files, read, strict=True):
        ours = torch.from_numpy(prepare(read_image(file), Preprocessing(intensity, 32)))
        assert len(ours) == len(mode)
        # percentiles are interpolated between pixels, of which three channels have three times more
        atol = 1e-5 if mode == "RGB" else 0.01
        torch.testing.assert_close(ours.expand(3, -1, -1), theirs, atol=atol, rtol=0)


@pytest.mark.parametrize("objective", ["srd", "paper"])
def test_example_runs_on_folders(minimal, images, tmp_path, monkeypatch, capsys, objective):
    for i, image in enumerate(images):
        folder = ("train", "test/normal", "test/other")[i % 3]
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        pixels = (255 * image).byte().movedim(0, 2).numpy()
        Image.fromarray(pixels).save(tmp_path / folder / f"{i}.png")
    arguments = ["train", "test", "--size", "64", "--iterations", "1", "--objective", objective]
    monkeypatch.setattr("sys.argv", ["paper_minimal.py", *arguments])
    monkeypatch.chdir(tmp_path)
    minimal.main()
    printed = capsys.readouterr().out
    assert printed.count(".png  ") == 6
    assert "AUROC: " in printed

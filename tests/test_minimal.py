"""The package against `examples/scrd_minimal.py`, a derivation that shares no code with it."""

import importlib.util
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from scrd.config import Config
from scrd.model import build_model
from scrd.model.scores import infer, measured
from scrd.objectives import OBJECTIVES, StepFeatures
from scrd.synthesis.lesions import apply_lesions, sample_lesions
from scrd.system.devices import make_fabric
from scrd.training.batches import batch_indices, generator_of
from scrd.training.loop import train
from scrd.training.normals import learn_normals

SIZE, BATCH, STEPS = 64, 4, 3


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


@pytest.fixture
def pair(minimal):
    """The package's model and the example's, with the same weights."""
    torch.manual_seed(0)
    ours = build_model("efficientnet_lite0", image_size=SIZE, objective="scrd")
    theirs = minimal.Model()
    copy_weights(ours, theirs)
    return ours, theirs


def copy_weights(ours, theirs):
    """Both list the same tensors in the same order, under different names."""
    source, target = ours.lesion_head.state_dict(), theirs.head.state_dict()
    assert [v.shape for v in source.values()] == [v.shape for v in target.values()]
    for a, b in zip(source.values(), target.values(), strict=True):
        b.copy_(a)


@pytest.mark.parametrize("colours", ["rgb", "grey"])
def test_same_lesions(minimal, images, colours):
    x = torch.cat([images, images.flip(2)])
    x = x if colours == "rgb" else x[:, :1]
    drawn = sample_lesions(20, torch.Generator().manual_seed(8))
    theirs = minimal.draw_lesions(20, torch.Generator().manual_seed(8))
    for name, values in theirs.items():
        assert torch.equal(getattr(drawn, name).view_as(values), values), name
    changed, where = apply_lesions(x, drawn)
    expected, covered = minimal.apply_lesions(x.expand(-1, 3, -1, -1), theirs)
    torch.testing.assert_close(changed.expand(-1, 3, -1, -1), expected, atol=1e-4, rtol=0)
    assert ((where[:, 0] - covered).abs() > 1e-3).float().mean() < 1e-3  # a change at the limit
    assert len(drawn.kind.unique()) == 7 and where.flatten(1).any(dim=1).sum() > 12


def test_same_loss_and_gradients(minimal, images, pair):
    ours, theirs = (model.train() for model in pair)
    x = images[:BATCH]
    changed, where = apply_lesions(
        x[::2], sample_lesions(BATCH, generator_of(0, 2, 0))[torch.tensor([0, 2])]
    )
    with_some, covered = x.clone(), torch.zeros(BATCH, 1, SIZE, SIZE)
    with_some[::2], covered[::2] = changed, where
    logits = ours.reconstruct(ours.encode(x), ours.encode(with_some)).lesions
    step = StepFeatures(
        (), (), (), torch.ones(BATCH, 2), None, logits, nn.functional.avg_pool2d(covered, 8)[:, 0]
    )
    loss = OBJECTIVES["scrd"].function(step).mean()
    expected = minimal.loss_of(theirs, x, generator_of(0, 2, 0))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    loss.backward()
    expected.backward()
    for (name, a), b in zip(
        ours.lesion_head.named_parameters(), theirs.head.parameters(), strict=True
    ):
        assert b.grad.norm() > 0 and (a.grad - b.grad).norm() < 1e-2 * b.grad.norm(), name


@pytest.mark.parametrize("cache", [4.0, 0.0])
def test_training_loop_gives_the_same_losses(minimal, images, pair, cache, monkeypatch):
    monkeypatch.setattr("scrd.training.loop.LOG_EVERY", 1)
    ours, theirs = pair
    config = Config(
        image_size=SIZE, batch_size=BATCH, iterations=STEPS, seed=7, feature_cache_gib=cache
    )
    log = train(ours, images, config, fabric=make_fabric("32-true", "cpu"))
    optimizer = torch.optim.Adam(theirs.train().head.parameters(), lr=5e-3, betas=(0.5, 0.999))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for step, entry in enumerate(log):
        x = images[batch_indices(step, BATCH, len(images), seed=7)]
        loss = minimal.loss_of(theirs, x, generator_of(7, 2, step))
        assert entry.loss == pytest.approx(loss.item(), rel=1e-2 if step else 1e-4)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    assert len(log) == STEPS


@pytest.mark.parametrize("colours", ["rgb", "grey"])
def test_same_maps_and_scores(minimal, images, pair, colours, monkeypatch):
    ours, theirs = pair
    with torch.no_grad():
        ours.train().reconstruct(ours.encode(images), ours.encode(images))
    copy_weights(ours.eval(), theirs.eval())
    x = images if colours == "rgb" else images[:, :1]
    everywhere = torch.ones(len(x), SIZE, SIZE, dtype=torch.bool)
    learn_normals(ours, x, everywhere, Config(image_size=SIZE, seed=4))
    # the package draws positions batch by batch; the example takes the same prototypes
    theirs.prototypes = ours.memory.prototypes.unique(dim=0)
    drawn = minimal.draw_lesions(len(x), generator_of(4, 4, 0))
    minimal.learn_normals(theirs, x.expand(-1, 3, -1, -1), drawn)
    others = x.flip(3)
    found = infer(ours, others, everywhere)
    wide = others.expand(-1, 3, -1, -1)
    for a, b in zip(measured(ours, others).maps, theirs.terms(wide), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.maps, theirs.maps(wide), atol=1e-2, rtol=1e-2)
    scores = found.statistics["areas"]
    assert scores.std() > 0.05
    torch.testing.assert_close(scores, theirs.scores(wide), atol=2e-2, rtol=1e-2)


def test_same_prototypes(minimal, images, pair):
    ours, theirs = pair
    vectors = ours.memory.describe(ours.teacher(images)).permute(0, 2, 3, 1).flatten(0, 2)
    expected = theirs.describe(theirs.teacher(images)).movedim(1, -1).flatten(0, 2)
    torch.testing.assert_close(vectors, expected)
    ours.memory.fit(vectors, torch.Generator().manual_seed(1))
    order = torch.randperm(len(vectors), generator=torch.Generator().manual_seed(1))
    expected = minimal.k_means(vectors[order], minimal.PROTOTYPES)
    assert len(expected) == len(vectors) // 20
    found = ours.memory.prototypes
    torch.testing.assert_close(found[: len(expected)], expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(found[len(expected) : 2 * len(expected)], expected)


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
    assert printed.count(".png  ") == 6
    assert "AUROC: " in printed

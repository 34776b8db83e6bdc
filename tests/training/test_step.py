"""The step on tensors that stay in place, as a GPU records it, against the step as it is."""

import dataclasses

import pytest
import torch

from scrd.config import Config
from scrd.model import build_model
from scrd.objectives import OBJECTIVES
from scrd.system.devices import make_fabric
from scrd.training import step as module
from scrd.training.checkpoint import save_checkpoint, trainable_state
from scrd.training.setup import set_up
from scrd.training.step import Steps, inputs_of

TRAINED = [name for name, o in OBJECTIVES.items() if o.function is not None]
BASE = Config(image_size=64, batch_size=4, iterations=4)


@pytest.fixture(scope="module")
def images():
    low = torch.rand(7, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(low, size=(64, 64), mode="bilinear")


def set_up_run(images, config, checkpoint=None):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(
            "efficientnet_lite0", rectify=False, image_size=64, objective=config.objective
        )
    return set_up(model, images, config, make_fabric("32-true", "cpu"), checkpoint, "{}")


def taken(run, fixed):
    return [(loss.item(), alpha.clone()) for _, loss, alpha in Steps(run, fixed=fixed)]


def recorded(work, device):
    """As on a GPU: done three times before it is recorded."""
    for _ in range(3):
        work()
    return work


@pytest.mark.parametrize("cache", [4.0, 0.0])
@pytest.mark.parametrize("objective", TRAINED)
def test_in_place_as_it_is(images, objective, cache, monkeypatch):
    monkeypatch.setattr(module, "captured", recorded)
    config = dataclasses.replace(BASE, objective=objective, feature_cache_gib=cache)
    plain, fixed = set_up_run(images, config), set_up_run(images, config)
    for (a, alpha), (b, beta) in zip(taken(plain, False), taken(fixed, True), strict=True):
        assert a == b
        assert torch.equal(alpha, beta)
    theirs = trainable_state(fixed.model)
    for name, values in trainable_state(plain.model).items():
        assert torch.equal(values, theirs[name]), name


def test_recording_leaves_a_resumed_run_as_it_was(images, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "captured", recorded)
    first = set_up_run(images, BASE)
    log = []
    for number, loss, _ in Steps(first, fixed=False):
        log.append(loss.item())
        if number == 1:
            save_checkpoint(tmp_path / "c", first.model, first.optimizer, [], 2, "{}")
    resumed = set_up_run(images, BASE, tmp_path / "c")
    assert [loss for loss, _ in taken(resumed, True)] == log[2:]


def test_what_cannot_be_recorded_is_done_as_it_is_and_said(images, monkeypatch):
    def refuses(work, device):
        work()
        raise RuntimeError("cannot be captured\nlong trace")

    expected = [loss for loss, _ in taken(set_up_run(images, BASE), False)]
    monkeypatch.setattr(module, "captured", refuses)
    with pytest.warns(UserWarning, match="without a CUDA graph.*cannot be captured"):
        found = taken(set_up_run(images, BASE), True)
    assert [loss for loss, _ in found] == expected


def test_a_step_is_drawn_from_seed_and_number_alone(images):
    run = set_up_run(images, BASE)
    later = inputs_of(run, 3)
    torch.rand(5)
    again = inputs_of(run, 3)
    assert torch.equal(later.own, again.own) and torch.equal(later.drawn.edge, again.drawn.edge)
    assert len(later.drawn.kind) == 2  # of every second image
    assert not torch.equal(later.drawn.edge, inputs_of(run, 2).drawn.edge)


@pytest.mark.parametrize("objective", ["scrd", "paper", "srd"])
def test_all_of_a_step_lies_in_one_piece(images, objective):
    config = dataclasses.replace(BASE, objective=objective, feature_cache_gib=0.0)
    apart = inputs_of(set_up_run(images, config), 1)
    whole = module.in_one_piece(apart, pinned=False)
    whole = module._laid_out(apart, whole.piece.clone())  # as after a copy to a device
    assert torch.equal(whole.own, apart.own) and torch.equal(whole.image, apart.image)
    if apart.drawn is not None:
        for name, values in apart.drawn.tensors().items():
            assert torch.equal(getattr(whole.drawn, name), values), name

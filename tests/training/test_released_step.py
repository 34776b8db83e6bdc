"""The step of the preset `released` against the same written out as a loop."""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F

from scrd.model import build_model
from scrd.presets.files import read_preset
from scrd.synthesis.perturbation import apply_perturbation
from scrd.system.devices import make_fabric
from scrd.training.log import TrainingError
from scrd.training.setup import set_up
from scrd.training.step import compute, inputs_of, moved

CONFIG = read_preset("released").config(
    teacher="efficientnet_lite0", image_size=96, batch_size=4, iterations=6
)


@pytest.fixture(scope="module")
def images():
    low = torch.rand(7, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return F.interpolate(low, size=(96, 96), mode="bilinear")


def prepared(images, config=CONFIG):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model("efficientnet_lite0", "random", False, 96, objective=config.objective)
    return set_up(model, images, config, make_fabric("32-true", "cpu"), None, "{}")


def flat(a, b):
    """1 - cos of two maps as vectors."""
    a, b = a.flatten(), b.flatten()
    return 1 - (a @ b) / (a.norm() * b.norm())


def written_out(model, image, noisy_image, optimizer):
    """One iteration of the released script, sample by sample; the loss."""
    model.train()
    u, z = model.encode(image), model.encode(noisy_image)
    phi = model.bottleneck(u)
    v, alpha = model.student(phi), model.scale_head(phi)
    model.student(model.bottleneck(z))  # moves the running statistics, and is not looked at
    losses = []
    for clean in (u, z):
        total = 0
        for k in range(3):
            each = [
                flat(alpha[b, k] * clean[k][b], alpha[b, k] * v[k][b]) for b in range(len(image))
            ]
            total = total + sum(each) / len(each)
        losses.append(total)
    loss = losses[0] / losses[1]
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def state(model):
    parts = (model.bottleneck, model.student, model.scale_head)
    return {f"{i}.{k}": v for i, p in enumerate(parts) for k, v in p.state_dict().items()}


@pytest.mark.parametrize("cache", [4.0, 0.0])
def test_steps_equal_the_loop(images, cache):
    run = prepared(images, dataclasses.replace(CONFIG, feature_cache_gib=cache))
    plain = copy.deepcopy(run.model)
    parameters = [p for part in plain.trained_parts() for p in part.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3, betas=(0.5, 0.999))
    start = {k: v.clone() for k, v in state(plain).items()}
    for number in range(2):
        if number == 1:  # of the weights of the second step Adam makes rounding errors large
            same_statistics(run.model, plain, start)
        inputs = moved(inputs_of(run, number), torch.device("cpu"))
        image = images[inputs.own].expand(-1, 3, -1, -1)
        noisy, _ = apply_perturbation(image, inputs.drawn, CONFIG.noise)
        expected = written_out(plain, image, noisy, optimizer)
        assert compute(run, inputs)[0].item() == pytest.approx(expected, rel=1e-4)
    assert {int(v) for k, v in state(run.model).items() if "num_batches" in k} == {4}


def same_statistics(ours, theirs, start):
    ours, theirs = state(ours), state(theirs)
    statistics = [k for k in ours if "running" in k]
    assert len(statistics) > 20
    for name in statistics:
        assert not torch.equal(theirs[name], start[name])
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-6)


def test_without_it_the_noisy_pass_moves_nothing(images):
    still = prepared(images, dataclasses.replace(CONFIG, noisy_statistics=False))
    moves = prepared(images)
    for run in (still, moves):
        compute(run, moved(inputs_of(run, 0), torch.device("cpu")))
    a, b = state(still.model), state(moves.model)
    assert all(torch.equal(a[k], b[k]) for k in a if "running" not in k and "num_" not in k)
    moved_means = [(a[k] - b[k]).abs().max() for k in a if "running_mean" in k]
    assert max(moved_means) > 1e-4
    assert {int(v) for k, v in a.items() if "num_batches" in k} == {1}


def test_one_field_for_the_whole_run(images):
    run = prepared(images)
    first, second = inputs_of(run, 0).drawn, inputs_of(run, 3).drawn
    assert torch.equal(first.noise, second.noise)
    assert (first.noise == first.noise[:1]).all()
    assert first.noise[0].sort().values.tolist() == list(range(256))
    assert not torch.equal(first.top, second.top)  # places are drawn all the same
    other = prepared(images, dataclasses.replace(CONFIG, seed=1))
    assert not torch.equal(inputs_of(other, 0).drawn.noise, first.noise)

    fresh = dataclasses.replace(CONFIG, noise=dataclasses.replace(CONFIG.noise, field="fresh"))
    run = prepared(images, fresh)
    a, b = inputs_of(run, 0).drawn, inputs_of(run, 3).drawn
    assert not torch.equal(a.noise, b.noise) and not torch.equal(a.noise[0], a.noise[1])


def test_one_field_of_white_noise(images):
    noise = dataclasses.replace(CONFIG.noise, kind="gaussian")
    run = prepared(images, dataclasses.replace(CONFIG, noise=noise))
    first, second = inputs_of(run, 0).drawn.noise, inputs_of(run, 1).drawn.noise
    assert torch.equal(first, second) and torch.equal(first[0], first[3])
    assert first.std().item() == pytest.approx(1, abs=0.2)


def test_processes_cannot_share_a_batch_of_means(images):
    class Two:
        world_size = 2

    model = build_model("efficientnet_lite0", "random", False, 96, objective="released")
    with pytest.raises(TrainingError, match="released is a ratio of means.*one device"):
        set_up(model, images, CONFIG, Two(), None, "{}")

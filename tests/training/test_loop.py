"""The training loop: replayable batches, a falling loss, an untouched teacher, exact resumption."""

import copy
import dataclasses
import json
import math

import pytest
import torch
from safetensors.torch import save_file

from scrd.config import Config
from scrd.model import build_model
from scrd.objectives import OBJECTIVES
from scrd.synthesis.settings import NoiseSettings
from scrd.system.devices import make_fabric
from scrd.training.batches import batch_indices
from scrd.training.log import TrainingError
from scrd.training.loop import train
from scrd.training.setup import learning_rate, spread

TRAINED = [name for name, o in OBJECTIVES.items() if o.function is not None]
BASE = Config(image_size=64, batch_size=4, iterations=6, checkpoint_every=3, objective="rd")


@pytest.fixture(scope="module")
def initial():
    """The network from which every run here starts."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_model("efficientnet_lite0", rectify=False, image_size=64)


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(1)
    low = torch.rand(7, 1, 8, 8, generator=generator)
    return torch.nn.functional.interpolate(low, size=(64, 64), mode="bilinear")


def of_objective(initial, name):
    """A copy, or a network with the parts of an objective without a student."""
    if OBJECTIVES[name].student:
        return copy.deepcopy(initial)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_model("efficientnet_lite0", image_size=64, objective=name)


def run(initial, images, config=BASE, **options):
    model = of_objective(initial, config.objective)
    log = train(model, images, config, fabric=make_fabric(config.precision, "cpu"), **options)
    return model, log


def same(a, b):
    return all(torch.equal(x, b[name]) for name, x in a.items()) and set(a) == set(b)


@pytest.mark.parametrize(("batch_size", "count"), [(4, 12), (4, 10), (7, 23), (16, 5), (3, 3)])
def test_each_epoch_is_a_permutation(batch_size, count):
    steps = 4 * count
    walk = torch.cat([batch_indices(s, batch_size, count, seed=2) for s in range(steps)])
    assert walk.dtype == torch.int64
    epochs = walk[: len(walk) // count * count].view(-1, count)
    assert (epochs.sort(dim=1).values == torch.arange(count)).all()
    assert len({tuple(e) for e in epochs.tolist()}) > 1  # a fresh one each time


def test_a_batch_depends_on_its_arguments_alone():
    expected = [batch_indices(s, 4, 10, seed=3) for s in range(8)]
    state = torch.random.get_rng_state()
    for step in (7, 0, 5, 5):
        torch.manual_seed(step)
        assert torch.equal(batch_indices(step, 4, 10, seed=3), expected[step])
    torch.manual_seed(9)
    before = torch.random.get_rng_state()
    batch_indices(0, 4, 10, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.random.set_rng_state(state)
    other = [batch_indices(s, 4, 10, seed=4) for s in range(8)]
    assert not torch.equal(torch.cat(other), torch.cat(expected))


@pytest.mark.parametrize("name", TRAINED)
def test_the_loss_falls(initial, images, name):
    # strong and large noise: the ratios hardly move where clean and noisy features are alike
    noise = NoiseSettings(strength=1.0, min_side=48, max_side_fraction=1.0)
    # two lesions a batch: the loss hangs on their sizes, and falls on average
    iterations = 200 if OBJECTIVES[name].lesions else 30
    config = dataclasses.replace(BASE, objective=name, noise=noise, iterations=iterations)
    _, log = run(initial, images, config)
    assert [entry.iteration for entry in log] == list(range(10, iterations + 1, 10))
    third = len(log) // 3
    assert sum(e.loss for e in log[-third:]) < sum(e.loss for e in log[:third])
    for entry in log:
        scales = 3 * OBJECTIVES[name].student
        assert len(entry.scale_weights) == scales
        assert not scales or sum(entry.scale_weights) == pytest.approx(1, abs=1e-5)
        assert entry.images_per_second > 0


def test_the_log_reaches_the_callback_and_the_last_iteration(initial, images):
    seen = []
    config = dataclasses.replace(BASE, iterations=12)
    _, log = run(initial, images, config, on_log=seen.append)
    assert [entry.iteration for entry in log] == [10, 12]
    assert seen == log


def test_what_trains_nothing_takes_no_step(images):
    model = of_objective(None, "memory")
    config = dataclasses.replace(BASE, objective="memory")
    assert train(model, images, config, fabric=make_fabric("32-true", "cpu")) == []
    assert not model.training and not model.trained_parts()


@pytest.mark.parametrize("objective", ["paper", "margin", "srd", "scrd"])
@pytest.mark.parametrize("feature_cache_gib", [0.0, 1.0])
def test_the_teacher_is_not_changed(initial, images, feature_cache_gib, objective):
    config = dataclasses.replace(BASE, objective=objective, feature_cache_gib=feature_cache_gib)
    model, _ = run(initial, images, config)
    assert not model.training
    assert same(model.teacher.state_dict(), initial.teacher.state_dict())
    parts = ("lesion_head",) if objective == "scrd" else ("bottleneck", "student")
    parts += ("scale_head",) if objective == "paper" else ()
    start = of_objective(initial, objective)
    for part in parts:
        trained, untrained = (dict(getattr(m, part).named_parameters()) for m in (model, start))
        assert not any(torch.equal(p, untrained[n]) for n, p in trained.items() if p.numel() > 9)


@pytest.mark.parametrize("objective", TRAINED)
def test_features_are_standardised_for_the_objectives_that_want_it(initial, images, objective):
    config = dataclasses.replace(BASE, objective=objective, iterations=1)
    model, _ = run(initial, images, config)
    wanted = OBJECTIVES[objective].standardised
    assert wanted is (objective in ("margin", "srd"))
    for k, u in enumerate(model.teacher(images)):
        if wanted:
            mean, std = u.double().mean(dim=(0, 2, 3)), u.double().std(dim=(0, 2, 3), correction=0)
        else:
            mean, std = torch.zeros(u.shape[1]), torch.ones(u.shape[1])
        found = [model.scaler.get_buffer(f"{name}{k}").flatten() for name in ("mean", "std")]
        torch.testing.assert_close(found[0], mean.float(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found[1], std.float(), rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize(("count", "at_most"), [(5, 8), (8, 8), (9, 8), (100, 8), (1537, 768)])
def test_a_sample_is_spread_over_the_whole_set(count, at_most):
    some = spread(torch.arange(count), at_most)
    assert len(some) == min(count, at_most)
    assert some[0] == 0 and some[-1] >= count - count / len(some) - 1
    steps = some.diff()
    assert steps.max() - steps.min() <= 1


def test_noisy_batches_never_reach_batchnorm(initial, images):
    def statistics(objective):
        config = dataclasses.replace(BASE, objective=objective, iterations=1)
        state = run(initial, images, config)[0].state_dict()
        return {n: b for n, b in state.items() if "running" in n and not n.startswith("teacher")}

    clean_only, contrastive = statistics("srd"), statistics("margin")
    assert any("student" in n for n in clean_only) and any("bottleneck" in n for n in clean_only)
    assert same(clean_only, contrastive)
    start = initial.state_dict()
    assert not any(torch.equal(b, start[n]) for n, b in clean_only.items())


@pytest.mark.parametrize("objective", ["rd", "srd", "scrd", "margin"])
def test_cached_features_give_the_same_losses(initial, images, objective):
    config = dataclasses.replace(BASE, objective=objective, iterations=10)
    losses = []
    for limit in (0.0, 1.0):
        chosen = dataclasses.replace(config, feature_cache_gib=limit)
        losses.append([entry.loss for entry in run(initial, images, chosen)[1]])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_the_same_seed_gives_the_same_weights_and_another_does_not(initial, images):
    config = dataclasses.replace(BASE, objective="margin", iterations=3)
    first = run(initial, images, config)[0].state_dict()
    torch.manual_seed(99)  # the global generator has no say
    assert same(first, run(initial, images, config)[0].state_dict())
    other = run(initial, images, dataclasses.replace(config, seed=1))[0].state_dict()
    assert not same(first, other)


@pytest.mark.parametrize("deterministic", [False, True])
def test_cudnn_tries_algorithms_out_where_the_same_bits_are_not_asked_for(
    initial, images, deterministic
):
    run(initial, images, dataclasses.replace(BASE, iterations=1, deterministic=deterministic))
    assert torch.backends.cudnn.deterministic is deterministic
    assert torch.backends.cudnn.benchmark is not deterministic


def test_the_learning_rate_falls_by_half_a_cosine_or_stays():
    cosine = Config(iterations=8, learning_rate=0.4)
    rates = [learning_rate(step, cosine) for step in range(9)]
    expected = [0.4 * math.cos(math.pi * step / 16) ** 2 for step in range(9)]
    assert rates == pytest.approx(expected)
    constant = dataclasses.replace(cosine, schedule="constant")
    assert {learning_rate(step, constant) for step in range(8)} == {0.4}


def test_the_schedule_acts_on_the_weights(initial, images):
    def weights(schedule):
        config = dataclasses.replace(BASE, schedule=schedule, iterations=3)
        return run(initial, images, config)[0].state_dict()

    assert not same(weights("cosine"), weights("constant"))


class Killed(Exception):
    pass


def interrupted(initial, images, config, checkpoint, at, identity="{}"):
    """Run until the checkpoint of iteration ``at`` is written."""

    def stop(entry):
        if entry.iteration > at:
            raise Killed

    with pytest.raises(Killed):
        run(initial, images, config, checkpoint=checkpoint, identity=identity, on_log=stop)
    assert checkpoint.exists()


@pytest.mark.parametrize("objective", ["rd", "srd", "scrd", "margin"])
def test_resuming_gives_the_weights_of_an_undisturbed_run(initial, images, tmp_path, objective):
    config = dataclasses.replace(BASE, objective=objective, iterations=12, checkpoint_every=4)
    undisturbed, log = run(initial, images, config)
    checkpoint = tmp_path / "checkpoint.safetensors"
    interrupted(initial, images, config, checkpoint, at=8)  # stops at the log of iteration 10
    (tmp_path / "checkpoint.tmp").write_bytes(b"half of a che")
    resumed, resumed_log = run(initial, images, config, checkpoint=checkpoint)
    assert same(resumed.state_dict(), undisturbed.state_dict())
    assert [(e.iteration, e.loss, e.scale_weights) for e in resumed_log] == [
        (e.iteration, e.loss, e.scale_weights) for e in log
    ]


def test_a_finished_run_resumes_to_itself(initial, images, tmp_path):
    checkpoint = tmp_path / "checkpoint.safetensors"
    finished, log = run(initial, images, checkpoint=checkpoint)
    again, again_log = run(initial, images, checkpoint=checkpoint)
    assert same(finished.state_dict(), again.state_dict())
    assert again_log == log


def test_checkpoints_leave_no_other_file(initial, images, tmp_path):
    checkpoint = tmp_path / "checkpoint.safetensors"
    run(initial, images, checkpoint=checkpoint)
    assert list(tmp_path.iterdir()) == [checkpoint]


def test_a_checkpoint_of_other_settings_or_data_is_refused_by_name(initial, images, tmp_path):
    checkpoint = tmp_path / "checkpoint.safetensors"
    identity = {"objective": "rd", "seed": 0, "data": "abc"}
    run(initial, images, checkpoint=checkpoint, identity=json.dumps(identity))
    changed = {**identity, "seed": 1, "data": "def"}
    with pytest.raises(TrainingError) as caught:
        run(initial, images, checkpoint=checkpoint, identity=json.dumps(changed))
    message = str(caught.value)
    assert message.startswith(str(checkpoint))
    assert "seed, data changed" in message
    assert "objective" not in message


@pytest.mark.parametrize("content", ["empty", "noise", "cut", "foreign"])
def test_a_corrupt_checkpoint_is_named(initial, images, tmp_path, content):
    checkpoint = tmp_path / "checkpoint.safetensors"
    if content == "cut":
        run(initial, images, checkpoint=checkpoint)
        data = checkpoint.read_bytes()
        checkpoint.write_bytes(data[: len(data) // 2])
    elif content == "foreign":  # sound safetensors, but of somebody else
        save_file({"x": torch.zeros(1)}, checkpoint)
    else:
        checkpoint.write_bytes(b"" if content == "empty" else b"\x07" * 100)
    with pytest.raises(TrainingError, match=r"checkpoint\.safetensors: not a readable checkpoint"):
        run(initial, images, checkpoint=checkpoint)


def test_a_loss_that_is_not_finite_stops_the_training(initial, images):
    broken = images.clone()
    broken[:, :, 0, 0] = math.nan
    with pytest.raises(TrainingError, match="loss became nan at iteration 6.*learning rate"):
        run(initial, broken)


def test_no_checkpoint_holds_weights_that_are_not_finite(initial, images, tmp_path):
    checkpoint = tmp_path / "checkpoint.safetensors"
    broken = images.clone()
    broken[:, :, 0, 0] = math.nan
    with pytest.raises(TrainingError, match="nan"):
        run(initial, broken, checkpoint=checkpoint)
    assert not checkpoint.exists()


def test_one_image_is_too_few(initial, images):
    with pytest.raises(TrainingError, match="at least 2.*got 1"):
        run(initial, images[:1])


def test_fewer_images_than_a_batch_train(initial, images):
    _, log = run(initial, images[:3], dataclasses.replace(BASE, batch_size=8))
    assert math.isfinite(log[-1].loss)


def test_precision_is_chosen_for_the_device():
    assert make_fabric("auto", "cpu")._precision.precision == "32-true"
    assert make_fabric("bf16-mixed", "cpu")._precision.precision == "bf16-mixed"


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_every_part_computes_in_the_chosen_precision(initial, images, precision):
    config = dataclasses.replace(BASE, objective="margin", precision=precision, iterations=3)
    model = copy.deepcopy(initial)
    found = {}
    for name in ("teacher", "bottleneck", "student"):
        for part in model.get_submodule(name).modules():
            if isinstance(part, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
                kinds = found.setdefault(name, set())
                part.register_forward_hook(lambda m, i, out, kinds=kinds: kinds.add(out.dtype))
    # what statistics and cached features are made of is in fp32 whatever the steps are
    config = dataclasses.replace(config, feature_cache_gib=0.0)
    log = train(model, images, config, fabric=make_fabric(precision, "cpu"))
    steps = torch.bfloat16 if precision == "bf16-mixed" else torch.float32
    assert found["bottleneck"] == found["student"] == {steps}
    assert steps in found["teacher"]
    assert math.isfinite(log[-1].loss)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_bf16_follows_fp32(initial, images):
    losses = []
    for precision in ("bf16-mixed", "32-true"):
        _, log = run(initial, images, dataclasses.replace(BASE, precision=precision))
        losses.append(log[-1].loss)
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)

import warnings

import pytest
import torch
import torch.nn.functional as F
from planted import assert_finds_planted, blobs, small_budget
from torch.testing import assert_close

from scrd.baselines.dinomaly import (
    Dinomaly,
    easy_share,
    learning_rate,
    loose_loss,
    scale_easy_gradient,
)
from scrd.baselines.layers import block_maps, encode, find_vit, spread
from scrd.model.teacher import build_teacher

VIT = "vit_tiny_patch16_224"


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def vit_teacher():
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore", UserWarning)
        torch.manual_seed(0)
        return build_teacher(VIT, "random")


def vit_model(**changes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return Dinomaly(small_budget(teacher=VIT, weights="random", **changes))


def test_schedules():
    rates = [learning_rate(step, 1000) for step in range(1000)]
    assert rates[0] < rates[4] < rates[9] < rates[10] == max(rates) == 2e-3
    assert rates[505] == pytest.approx((2e-3 + 2e-4) / 2)
    assert rates[999] == pytest.approx(2e-4, rel=1e-3)
    shares = [easy_share(step, 1000) for step in (0, 50, 100, 101, 999)]
    assert shares == pytest.approx([0, 0.45, 0.9, 0.9, 0.9])


def test_values_pass_and_easy_positions_have_a_tenth_of_the_gradient():
    target, decoded = drawn(2, 5, 4, 5), drawn(2, 5, 4, 5, seed=1).requires_grad_()
    weights = drawn(2, 5, 4, 5, seed=2)
    passed = scale_easy_gradient(target, decoded, 0.9)
    assert torch.equal(passed, decoded)
    (passed * weights).sum().backward()

    distances = {}
    for b in range(2):
        for y in range(4):
            for x in range(5):
                t, d = target[b, :, y, x], decoded[b, :, y, x].detach()
                distances[b, y, x] = 1 - float(t @ d / (t.norm() * d.norm()))
    hardest = sorted(distances, key=distances.__getitem__)[-4:]  # a tenth of forty
    for b, y, x in distances:
        factor = 1.0 if (b, y, x) in hardest else 0.1
        assert_close(decoded.grad[b, :, y, x], factor * weights[b, :, y, x])


def test_all_positions_learn_alike_before_the_warm_up():
    target, decoded = drawn(1, 5, 4, 4), drawn(1, 5, 4, 4, seed=1).requires_grad_()
    scale_easy_gradient(target, decoded, easy_share(0, 100)).sum().backward()
    assert (decoded.grad == 1).all()


def test_loss_is_the_distance_of_flattened_maps_averaged_over_groups():
    targets = (drawn(3, 4, 8, 8), drawn(3, 6, 8, 8))
    decoded = (drawn(3, 4, 8, 8, seed=1), drawn(3, 6, 8, 8, seed=1))
    expected = 0.0
    for t, d in zip(targets, decoded, strict=True):
        for a, b in zip(t.flatten(1), d.flatten(1), strict=True):
            expected += float(1 - a @ b / (a.norm() * b.norm())) / 6
    assert float(loose_loss(targets, decoded, 0.9)) == pytest.approx(expected, rel=1e-5)


def test_blocks_are_spread_up_to_the_last():
    assert spread(9) == tuple(range(1, 9))
    assert spread(18) == (3, 5, 7, 9, 11, 13, 15, 17)
    assert spread(6) == tuple(range(6))


def test_groups_are_means_of_four_blocks_of_a_vision_transformer():
    teacher = vit_teacher()
    image = torch.rand(2, 1, 64, 96, generator=torch.Generator().manual_seed(0))
    model = teacher.backbone.blocks.model
    normalised = (image.expand(-1, 3, -1, -1) - teacher.mean) / teacher.std
    with torch.no_grad():
        maps = model.forward_intermediates(
            normalised, indices=list(range(9)), output_fmt="NCHW", intermediates_only=True
        )
    encoded = encode(teacher, image)
    assert encoded.fused.shape == (2, 192, 4, 6)
    for group, chosen in zip(encoded.groups, (maps[1:5], maps[5:9]), strict=True):
        assert_close(group, torch.stack(chosen).mean(dim=0), atol=1e-5, rtol=1e-4)
    assert_close(encoded.fused, torch.stack(maps[1:9]).mean(dim=0), atol=1e-5, rtol=1e-4)
    # and the last block is the teacher's own deepest map
    assert_close(block_maps(teacher, find_vit(teacher), image)[-1].detach(), teacher(image)[2])
    assert not any(block._forward_hooks for block in model.blocks)


def test_maps_of_another_teacher_come_to_the_deepest_grid_with_unit_length():
    teacher = build_teacher("efficientnet_lite0")
    image = blobs(2, seed=0)
    encoded = encode(teacher, image)
    first, second, third = teacher(image)
    (shallow, deep), channels = encoded.groups, first.shape[1]
    assert shallow.shape == (2, channels + second.shape[1], 4, 4)
    means = first.view(2, channels, 4, 4, 4, 4).mean(dim=(3, 5))
    assert_close(shallow[:, :channels], F.normalize(means, dim=1))
    assert_close(deep, F.normalize(third, dim=1))
    assert torch.equal(encoded.fused, torch.cat([shallow, deep], dim=1))


def test_the_first_layers_of_the_decoder_stand_against_the_deep_group():
    model = vit_model().eval()
    image = blobs(1, seed=0)
    outputs = []
    for layer in model.decoder:
        layer.register_forward_hook(lambda _m, _a, out: outputs.append(out))
    with torch.no_grad():
        encoded = encode(model.teacher, image)
        shallow, deep = model.decode(encoded.fused)
    assert [t.shape for t in encoded.groups] == [shallow.shape, deep.shape] == [(1, 192, 4, 4)] * 2
    assert_close(deep.flatten(2).mT, torch.stack(outputs[:4]).mean(dim=0))
    assert_close(shallow.flatten(2).mT, torch.stack(outputs[4:]).mean(dim=0))


def test_only_bottleneck_and_decoder_learn():
    train, model = blobs(8, seed=0), vit_model(iterations=3)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.fit(train)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("teacher."), name


def test_the_score_is_the_mean_of_the_highest_hundredth_of_the_map():
    model = Dinomaly(small_budget())
    model.fit(blobs(8, seed=0))
    answer = model.score(blobs(3, seed=1))
    for score, found in zip(answer.scores, answer.maps, strict=True):
        highest = sorted(found.flatten().tolist())[-40:]  # of 4,096
        assert float(score) == pytest.approx(sum(highest) / 40, rel=1e-5)


def test_finds_planted_anomalies_and_where_they_are():
    assert_finds_planted(Dinomaly(small_budget(iterations=30, batch_size=8)))

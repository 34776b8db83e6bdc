import copy
from dataclasses import replace

import pytest
import torch
from planted import blobs, planted, small_budget
from torch.testing import assert_close

from scrd.baselines.recontrast import (
    ReContrast,
    drop_easy_gradient,
    hard_mined_distance,
    hardness,
)
from scrd.metrics.ranks import auroc


def features(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def trained():
    model = ReContrast(small_budget(iterations=30, batch_size=8))
    model.fit(blobs(48, seed=0))
    return model


def test_hardness_warms_up_over_a_tenth_and_stays():
    assert [hardness(step, 100) for step in (0, 5, 10, 11, 99)] == [-3, -1, 1, 1, 1]


def test_values_pass_and_easy_gradients_do_not():
    target, decoded = features(2, 5, 4, 4), features(2, 5, 4, 4, seed=1).requires_grad_()
    passed = drop_easy_gradient(target, decoded, alpha=0.5)
    assert torch.equal(passed, decoded)
    passed.sum().backward()

    distances = {}
    for b in range(2):
        for y in range(4):
            for x in range(4):
                t, d = target[b, :, y, x], decoded[b, :, y, x].detach()
                distances[b, y, x] = 1 - float(t @ d / (t.norm() * d.norm()))
    values = torch.tensor(list(distances.values()))
    threshold = float(values.mean() + 0.5 * values.std())
    for (b, y, x), distance in distances.items():
        assert (decoded.grad[b, :, y, x] == float(distance >= threshold)).all()
    assert 0 < sum(d >= threshold for d in distances.values()) < 16


def test_all_positions_learn_before_the_warm_up_and_few_after():
    target = [features(4, 6, 8, 8)]
    learning = {}
    for alpha in (-3.0, 1.0):
        decoded = (target[0] + 0.5 * features(4, 6, 8, 8, seed=1)).requires_grad_()
        hard_mined_distance(target, [decoded], alpha).backward()
        learning[alpha] = float((decoded.grad.abs().sum(dim=1) > 0).float().mean())
    assert learning[-3.0] == 1
    assert 0.02 < learning[1.0] < 0.3


def test_distance_is_global_and_summed_over_scales():
    encoded = [features(3, 4, 8, 8), features(3, 6, 4, 4)]
    decoded = [features(3, 4, 8, 8, seed=1), features(3, 6, 4, 4, seed=1)]
    expected = 0.0
    for e, d in zip(encoded, decoded, strict=True):
        for a, b in zip(e.flatten(1), d.flatten(1), strict=True):
            expected += float(1 - a @ b / (a.norm() * b.norm())) / 3
    assert float(hard_mined_distance(encoded, decoded, 1.0)) == pytest.approx(expected, rel=1e-5)


def test_pairs_are_crossed():
    model = ReContrast(small_budget()).eval()
    image = blobs(2, seed=1)
    with torch.no_grad():
        targets, decoded = model.pairs(image, model.teacher(image))
        for frozen, trainable in zip(targets[:3], targets[3:], strict=True):
            # before any training they agree
            assert_close(frozen, trainable, rtol=1e-3, atol=1e-4)
        changed = copy.deepcopy(model)
        for p in changed.encoder.parameters():
            p.mul_(1.1)
        new_targets, new_decoded = changed.pairs(image, changed.teacher(image))
    same = [torch.allclose(a, b) for a, b in zip(targets, new_targets, strict=True)]
    assert same == [True] * 3 + [False] * 3
    # what stands against the frozen encoder is made from the trainable one, and the reverse
    same = [torch.allclose(a, b) for a, b in zip(decoded, new_decoded, strict=True)]
    assert same == [False] * 3 + [True] * 3


def test_no_gradient_reaches_an_encoder_through_a_target():
    # in training mode the two halves of the batch touch through BatchNorm's statistics
    model = ReContrast(small_budget()).eval()
    image = blobs(2, seed=1)
    targets, decoded = model.pairs(image, model.teacher(image))
    hard_mined_distance(targets[3:], decoded[3:], -3.0).backward()
    assert all(p.grad is None or not p.grad.any() for p in model.encoder.parameters())
    targets, decoded = model.pairs(image, model.teacher(image))
    hard_mined_distance(targets[:3], decoded[:3], -3.0).backward()
    convolutions = [p for p in model.encoder.parameters() if p.ndim == 4]
    assert all(p.grad.any() for p in convolutions)
    assert all(p.grad is None for p in model.teacher.parameters())


@pytest.mark.parametrize("teacher", ["efficientnet_lite0", "resnet18"])
def test_the_decoder_ends_as_the_teacher_does(teacher):
    model = ReContrast(replace(small_budget(), teacher=teacher, weights="random"))
    some = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        frozen = model.teacher(some)
        decoded = model.decoder(model.bottleneck(frozen))
    for one, u in zip(decoded, frozen, strict=True):
        assert bool((one < 0).any()) == bool((u < 0).any())


def test_only_the_trainable_encoder_leaves_the_pretrained_weights(trained):
    start = ReContrast(small_budget())
    for name, weight in start.teacher.state_dict().items():
        assert torch.equal(trained.teacher.state_dict()[name], weight)
    pretrained = start.encoder.trained.backbone.state_dict()
    moved = trained.encoder.trained.backbone.state_dict()
    for name, weight in pretrained.items():
        assert not torch.equal(moved[name], weight), name
    # slowly: AdamW goes about its rate a step, here 30 times 1e-5 and not 2e-3
    for name, p in trained.encoder.trained.backbone.named_parameters():
        if p.ndim == 4:
            assert 1e-5 < (moved[name] - pretrained[name]).abs().median() < 3e-4, name


def test_finds_planted_anomalies_and_where_they_are(trained):
    images, labels = planted(10, seed=1)
    answer = trained.score(images)
    assert auroc(answer.scores.numpy(), labels) == 1
    assert answer.maps.flatten(1).amax(dim=1).equal(answer.scores)
    peaks = answer.maps[10:].flatten(1).argmax(dim=1)
    assert ((peaks // 64 - 20).abs() < 12).all()
    assert ((peaks % 64 - 42).abs() < 12).all()

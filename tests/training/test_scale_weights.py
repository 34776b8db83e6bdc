"""Scale weights against an optimiser of another kind, closed forms, and planted scales."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from scrd.data.sample import even_places
from scrd.synthesis.probes import PROBES
from scrd.training.scale_weights import HARM, PROBED, RIDGE, discriminant, scale_weights


def problem(normals, lesions, harmless):
    """(S, δ, unit) of the quadratic programme, by loops."""
    scales = range(normals.shape[1])
    unit = [normals[:, k].std() for k in scales]
    mean = [normals[:, k].mean() for k in scales]
    s, delta = np.zeros((len(unit), len(unit))), np.zeros(len(unit))
    for i in scales:
        for j in scales:
            products = [(e[i] - mean[i]) * (e[j] - mean[j]) for e in normals]
            s[i, j] = sum(products) / (len(normals) - 1)
            for change in harmless:
                s[i, j] += HARM / len(harmless) * sum(c[i] * c[j] for c in change) / len(change)
            s[i, j] /= unit[i] * unit[j]
        s[i, i] += RIDGE
    for change in lesions:
        response = np.array([sum(c[k] for c in change) / len(change) / unit[k] for k in scales])
        delta += response / max(sum(response) / len(unit), 0.05) / len(lesions)
    return s, delta, np.array(unit)


def random_case(seed, scales=3):
    rng = np.random.default_rng(seed)
    mixing = np.eye(scales) + 0.5 * rng.normal(size=(scales, scales))
    normals = 3 + rng.normal(size=(50, scales)) @ mixing
    lesions = [
        rng.normal(rng.normal(0.8, 0.6, scales), 0.5, (40, scales)) * rng.uniform(0.3, 2)
        for _ in range(3)
    ]
    harmless = [rng.normal(rng.normal(0, 1, scales), 1.0, (40, scales)) for _ in range(4)]
    return normals, lesions, harmless


def test_equals_a_bounded_quadratic_programme():
    some_zero = all_positive = 0
    for seed in range(40):
        case = random_case(seed)
        s, delta, unit = problem(*case)
        solved = minimize(
            lambda w, s=s, delta=delta: w @ s @ w / 2 - w @ delta,
            np.full(3, 0.1),
            jac=lambda w, s=s, delta=delta: s @ w - delta,
            bounds=[(0, None)] * 3,
            method="L-BFGS-B",
            options={"ftol": 1e-15, "gtol": 1e-12},
        )
        weights = solved.x / unit
        if solved.x.sum() < 1e-3:
            continue
        found = discriminant(*case)
        assert found.dtype == torch.float32
        np.testing.assert_allclose(found, weights / weights.sum(), atol=1e-4)
        assert found.min() >= 0
        some_zero += bool((found == 0).any())
        all_positive += bool((found > 0).all())
    assert some_zero > 5 and all_positive > 5


def test_is_fishers_linear_discriminant_where_that_has_no_negative_weight():
    rng = np.random.default_rng(1)
    normals = rng.normal(size=(400, 3)) * (0.5, 1.0, 4.0)
    lesions = [rng.normal((1.0, 1.5, 3.0), 0.1, (30, 3))]
    harmless = [0.1 * rng.normal(size=(30, 3))]
    s, delta, unit = problem(normals, lesions, harmless)
    fisher = np.linalg.inv(s) @ delta / unit
    assert fisher.min() > 0
    found = discriminant(normals, lesions, harmless)
    np.testing.assert_allclose(found, fisher / fisher.sum(), rtol=1e-5)


def independent(spread=(1.0, 1.0, 1.0), seed=2):
    return np.random.default_rng(seed).normal(size=(2000, 3)) * spread


def changes(*mean, count=60):
    return np.tile(np.array(mean, dtype=float), (count, 1))


def test_scales_that_show_lesions_alike_are_weighed_alike():
    none = [changes(0, 0, 0)]
    alike = discriminant(independent(), [changes(1, 1, 1)], none)
    torch.testing.assert_close(alike, torch.full((3,), 1 / 3), atol=0.02, rtol=0)
    # the unit of a scale does not matter: its weight undoes it
    spread = np.array([0.1, 1.0, 10.0])
    scaled = discriminant(independent(spread), [changes(*spread)], none)
    effective = scaled.double().numpy() * spread
    np.testing.assert_allclose(effective / effective.sum(), [1 / 3] * 3, atol=0.02)


@pytest.mark.parametrize("lesion", [(0, 0, 0), (-1, -1, -1), (-0.5, -2, 0)])
def test_uniform_where_no_lesion_shows(lesion):
    found = discriminant(independent(), [changes(*lesion)] * 3, [changes(0.1, 0.2, 0.3)] * 4)
    assert torch.equal(found, torch.full((3,), 1 / 3))


def test_a_scale_that_only_harmless_changes_move_gets_nearly_nothing():
    deaf = [changes(1, 1, 0)] * 3  # of lesions, the third scale hears nothing
    loud = [20 * np.random.default_rng(3).normal(size=(60, 3)) * (0, 0, 1)] * 4
    found = discriminant(independent(), deaf, loud)
    assert found[2] < 0.01
    # also where it hears lesions as well as the others do
    found = discriminant(independent(), [changes(1, 1, 1)] * 3, loud)
    assert found[2] < 0.02
    assert found[:2].min() > 0.45


def test_a_scale_that_moves_the_other_way_gets_nothing():
    found = discriminant(independent(), [changes(1, 0.5, -1)] * 3, [changes(0, 0, 0)] * 4)
    assert found[2] == 0
    assert found[0] > found[1] > 0


def test_a_loud_lesion_does_not_drown_the_others():
    quiet, loud = changes(0, 0.3, 0), changes(30, 0, 0)
    found = discriminant(independent(), [quiet, loud], [changes(0, 0, 0)])
    assert found[0] == pytest.approx(found[1].item(), abs=0.05)
    # but one that hardly shows is not blown up without bound
    found = discriminant(independent(), [changes(0, 1e-3, 0), loud], [changes(0, 0, 0)])
    assert found[1] < 0.1


# ------------------------------------------------------------------ from images to weights


def images(count=20, seed=0):
    coarse = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (64, 64), mode="bilinear")


def whole(x):
    return torch.ones(len(x), *x.shape[2:], dtype=torch.bool)


def excess(x, content=None):
    """Three scales: local contrast, fine grain, and mean brightness."""
    grey = x.mean(dim=1)
    smooth = torch.nn.functional.avg_pool2d(grey[:, None], 5, 1, 2)[:, 0]
    around = torch.nn.functional.avg_pool2d(grey[:, None], 31, 1, 15)[:, 0]
    return torch.stack(
        [
            (smooth - around).abs().flatten(1).mean(dim=1),
            (grey - smooth).abs().flatten(1).mean(dim=1),
            grey.flatten(1).mean(dim=1),
        ],
        dim=1,
    )


def test_the_probes_reach_the_discriminant_by_kind():
    x = images()
    normals = excess(images(30, seed=1))
    parts = {"lesion": [], "harmless": []}
    for probe in PROBES.values():
        changed = probe(x.expand(-1, 3, -1, -1), torch.Generator().manual_seed(7))
        parts[probe.kind].append((excess(changed) - excess(x)).double().numpy())
    expected = discriminant(normals.double().numpy(), parts["lesion"], parts["harmless"])
    found = scale_weights(excess, x, whole(x), normals, seed=7)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert (found - 1 / 3).abs().max() > 0.1
    assert found.sum() == pytest.approx(1)


def test_weights_hang_on_the_seed_alone():
    x, normals = images(), excess(images(30, seed=1))
    found = scale_weights(excess, x, whole(x), normals, seed=7)
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    assert torch.equal(scale_weights(excess, x, whole(x), normals, seed=7), found)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.equal(scale_weights(excess, x, whole(x), normals, seed=8), found)


def test_values_beyond_0_to_1_are_clamped_before_they_are_compared():
    beyond = 1.5 * images() - 0.25
    normals = excess(images(30, seed=1))
    seen = []

    def watching(x, content):
        seen.append((x.min().item(), x.max().item()))
        return excess(x)

    found = scale_weights(watching, beyond, whole(beyond), normals, seed=0)
    assert all(0 <= low < high <= 1 for low, high in seen)
    inside = beyond.clamp(0, 1)
    assert torch.equal(found, scale_weights(excess, inside, whole(inside), normals, seed=0))


@pytest.mark.parametrize("count", [1, PROBED, PROBED + 1, 3 * PROBED])
def test_a_bounded_number_of_images_is_probed(count):
    seen = []

    def counting(x, content):
        # an image keeps its own content
        assert torch.equal(content[:, 0, 0], kept[torch.from_numpy(even_places(count, PROBED))])
        seen.append(len(x))
        return excess(x)

    x, kept = images(count), torch.arange(count) % 3 == 0
    content = kept[:, None, None].expand(-1, 64, 64)
    scale_weights(counting, x, content, excess(images(9, seed=1)), seed=0)
    assert len(seen) == 1 + len(PROBES)
    assert set(seen) == {min(count, PROBED)}

"""Each objective against loops over samples, scales and positions, and what each does to alpha."""

import math
from dataclasses import replace

import pytest
import torch

from scrd import config
from scrd.objectives import OBJECTIVES, StepFeatures
from scrd.objectives.margin import MARGIN

SHAPES = [(3, 8, 6), (4, 4, 3), (5, 2, 3)]  # channels, height, width of each scale
IMAGE = (16, 12)
EPS = 1e-6
WITH_NOISE = ["ratio", "paper", "algorithm2", "released", "margin"]
WITH_LESIONS = ["lesions", "scrd"]
OF_A_STUDENT = ["rd", *WITH_NOISE, "srd"]
BY_SAMPLE = [name for name in OF_A_STUDENT if name != "released"]


def make_step(batch=3, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)

    def maps():
        return [torch.randn(batch, *s, generator=generator, dtype=dtype) for s in SHAPES]

    clean, student = maps(), maps()
    # z = u + something of the same size: the hinge of `margin` acts at some positions only
    noisy = [u + n for u, n in zip(clean, maps(), strict=True)]
    logits = torch.randn(batch, len(SHAPES), generator=generator, dtype=dtype)
    footprint = torch.zeros(batch, 1, *IMAGE, dtype=torch.bool)
    for b in range(batch):
        footprint[b, 0, 1 + 2 * b : 8 + 2 * b, 3 + b : 9 + b] = True
    lesion_logits = 2 * torch.randn(batch, 4, 3, generator=generator, dtype=dtype)
    lesions = torch.rand(batch, 4, 3, generator=generator, dtype=dtype) ** 4
    alpha = logits.softmax(dim=1)
    return StepFeatures(clean, student, noisy, alpha, footprint, lesion_logits, lesions)


def value(name, step):
    return OBJECTIVES[name].function(step)


def with_gradient(step):
    """The same step with a student and scale weights that collect gradients."""
    student = [v.detach().clone().requires_grad_() for v in step.student]
    return replace(
        step, student=student, scale_weights=step.scale_weights.detach().clone().requires_grad_()
    )


def student_gradient(name, step):
    step = with_gradient(step)
    return torch.autograd.grad(value(name, step).sum(), step.student)


# ---------------------------------------------------------------- the same in plain Python


def cosine_distance(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return 1 - dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def flat(a, b):
    return cosine_distance(a.flatten().tolist(), b.flatten().tolist())


def at(a, b, y, x):
    return cosine_distance(a[:, y, x].tolist(), b[:, y, x].tolist())


def positions(feature):
    return [(y, x) for y in range(feature.shape[1]) for x in range(feature.shape[2])]


def naive_rd(u, v, z, alpha, footprint):
    return sum(flat(u[k], v[k]) for k in range(3))


def naive_ratio(u, v, z, alpha, footprint):
    return sum(flat(u[k], v[k]) / (flat(z[k], v[k]) + EPS) for k in range(3))


def naive_paper(u, v, z, alpha, footprint):
    return sum(alpha[k] * flat(u[k], v[k]) / (flat(z[k], v[k]) + EPS) for k in range(3))


def naive_algorithm2(u, v, z, alpha, footprint):
    pull = sum(alpha[k] * flat(u[k], v[k]) for k in range(3))
    push = sum(alpha[k] * flat(z[k], v[k]) for k in range(3))
    return pull / (push + EPS)


def naive_released(step):
    """One value a batch: over the scales, the sums of means over the samples, divided."""
    pull = push = 0.0
    samples = range(len(step.scale_weights))
    for k, (u, v, z) in enumerate(zip(step.clean, step.student, step.noisy, strict=True)):
        a = step.scale_weights[:, k].tolist()
        pull += sum(flat(a[b] * u[b], a[b] * v[b]) for b in samples) / len(samples)
        push += sum(flat(a[b] * z[b], a[b] * v[b]) for b in samples) / len(samples)
    return pull / push


def covered_share(footprint, y, x, height, width):
    rows, columns = IMAGE[0] // height, IMAGE[1] // width
    pixels = [
        bool(footprint[0, y * rows + i, x * columns + j])
        for i in range(rows)
        for j in range(columns)
    ]
    return sum(pixels) / len(pixels)


def naive_contrast(u, v, z, footprint):
    hinge = area = 0.0
    for y, x in positions(u):
        w = covered_share(footprint, y, x, *u.shape[1:])
        area += w
        hinge += w * max(0.0, at(u, v, y, x) - at(z, v, y, x) + MARGIN * at(u, z, y, x))
    return hinge / area


def naive_margin(u, v, z, alpha, footprint):
    contrast = sum(naive_contrast(u[k], v[k], z[k], footprint) for k in range(3))
    return naive_rd(u, v, z, alpha, footprint) + contrast


NAIVE = {
    "rd": naive_rd,
    "ratio": naive_ratio,
    "paper": naive_paper,
    "algorithm2": naive_algorithm2,
    "margin": naive_margin,
    "srd": naive_rd,
}


def naive_lesions(logits, lesions):
    """Cross-entropy of each position, those of lesions five times."""
    total = 0.0
    for s, m in zip(logits.flatten().tolist(), lesions.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-s))
        total -= (1 + 4 * m) * (m * math.log(p) + (1 - m) * math.log(1 - p))
    return total / logits.numel()


@pytest.mark.parametrize("name", NAIVE)
def test_equals_plain_loops(name):
    step = make_step()
    expected = [
        NAIVE[name](
            *([f[b] for f in features] for features in (step.clean, step.student, step.noisy)),
            step.scale_weights[b].tolist(),
            step.footprint[b],
        )
        for b in range(3)
    ]
    actual = value(name, step)
    assert actual.shape == (3,)
    assert actual.tolist() == pytest.approx(expected, rel=1e-5)  # EPS under a mean: not exact


def test_the_released_code_divides_means_over_the_batch():
    step = make_step(5)
    found = value("released", step)
    assert found.shape == ()
    assert found.item() == pytest.approx(naive_released(step), rel=1e-9)
    alone = [value("released", sample(step, b)).item() for b in range(5)]
    assert abs(found.item() - sum(alone) / 5) > 1e-5  # no mean of ratios


def sample(step, b):
    one = slice(b, b + 1)
    return StepFeatures(
        [u[one] for u in step.clean],
        [v[one] for v in step.student],
        [z[one] for z in step.noisy],
        step.scale_weights[one],
    )


@pytest.mark.parametrize("name", WITH_LESIONS)
def test_lesions_are_told_from_the_rest(name):
    step = make_step()
    expected = torch.tensor(
        [naive_lesions(*pair) for pair in zip(step.lesion_logits, step.lesions, strict=True)]
    ).double()
    step = replace(step, clean=(), student=(), noisy=())
    torch.testing.assert_close(value(name, step), expected, rtol=1e-5, atol=0)
    right = replace(step, lesion_logits=torch.logit(step.lesions, eps=1e-9))
    assert (value(name, right) < value(name, step)).all()


# --------------------------------------------------------------------- what all of them share


def test_the_names():
    assert set(OBJECTIVES) == {*NAIVE, *WITH_LESIONS, "released", "memory"}

    def those_with(kind):
        return [name for name, o in OBJECTIVES.items() if getattr(o, kind)]

    assert those_with("contrastive") == [*WITH_NOISE, *WITH_LESIONS]
    assert those_with("student") == OF_A_STUDENT
    assert those_with("by_batch") == those_with("inert") == ["released"]
    assert those_with("lesions") == WITH_LESIONS
    assert those_with("memory") == ["memory", "scrd"]
    assert those_with("standardised") == ["margin", "srd"]
    assert those_with("weighed") == ["margin", "srd"]
    assert those_with("combined") == ["memory", *WITH_LESIONS] == list(config._COMBINED)
    assert OBJECTIVES["memory"].function is None


@pytest.mark.parametrize("name", sorted(set(NAIVE) - set(WITH_NOISE)))
def test_what_is_not_contrastive_does_without_the_noisy_path(name):
    step = make_step()
    alone = replace(step, noisy=(), footprint=None)
    assert torch.equal(value(name, alone), value(name, step))


@pytest.mark.parametrize("name", BY_SAMPLE)
def test_a_sample_does_not_see_the_others(name):
    step = make_step(4)
    together = value(name, step)
    for b in range(4):
        one = slice(b, b + 1)
        alone = StepFeatures(
            [u[one] for u in step.clean],
            [v[one] for v in step.student],
            [z[one] for z in step.noisy],
            step.scale_weights[one],
            step.footprint[one],
            step.lesion_logits[one],
            step.lesions[one],
        )
        torch.testing.assert_close(value(name, alone)[0], together[b])
    assert together.unique().numel() == 4


@pytest.mark.parametrize("name", OF_A_STUDENT)
@pytest.mark.parametrize("case", ["ordinary", "v = u", "v = z", "z = u", "v = 0", "one-hot alpha"])
def test_values_and_gradients_are_finite(name, case):
    step = make_step(dtype=torch.float32)
    if case == "v = u":
        step = replace(step, student=step.clean)
    elif case == "v = z":
        if name == "released":  # divides by what is then 0
            return
        step = replace(step, student=step.noisy)
    elif case == "z = u":
        step = replace(step, noisy=step.clean)
    elif case == "v = 0":
        step = replace(step, student=[torch.zeros_like(v) for v in step.student])
    elif case == "one-hot alpha":
        step = replace(step, scale_weights=torch.eye(3))
    step = with_gradient(step)
    result = value(name, step)
    result.sum().backward()
    assert result.isfinite().all()
    assert all(v.grad.isfinite().all() for v in step.student)
    alpha_gradient = step.scale_weights.grad
    assert alpha_gradient is None or alpha_gradient.isfinite().all()


@pytest.mark.parametrize("name", OF_A_STUDENT)
def test_a_step_downhill_brings_the_student_nearer_to_clean_than_to_noisy(name):
    step = make_step()

    def lead(student):
        distances = zip(step.clean, student, step.noisy, strict=True)
        return sum(flat(z, v) - flat(u, v) for u, v, z in distances)

    moved = [v - 0.5 * g for v, g in zip(step.student, student_gradient(name, step), strict=True)]
    assert lead(moved) > lead(step.student)


# -------------------------------------------------------------------------- the scale weights


def another_alpha(step):
    return replace(step, scale_weights=step.scale_weights.roll(1, dims=1))


@pytest.mark.parametrize("name", ["rd", "ratio", "released", "margin", "srd"])
def test_alpha_has_no_effect(name):
    step = make_step()
    torch.testing.assert_close(value(name, step), value(name, another_alpha(step)))
    gradients = student_gradient(name, step), student_gradient(name, another_alpha(step))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", ["paper", "algorithm2"])
def test_alpha_has_an_effect(name):
    step = make_step()
    assert (value(name, step) - value(name, another_alpha(step))).abs().min() > 1e-3
    gradients = student_gradient(name, step), student_gradient(name, another_alpha(step))
    for a, b in zip(*gradients, strict=True):
        assert (a - b).norm() > 0.1 * a.norm()


def test_alpha_of_the_released_code_gets_rounding_errors_for_a_gradient():
    sizes = {}
    for name in ("released", "paper", "algorithm2"):
        step = with_gradient(make_step(dtype=torch.float32))
        value(name, step).sum().backward()
        sizes[name] = step.scale_weights.grad.abs().max()
    assert sizes["released"] < 1e-6
    assert min(sizes["paper"], sizes["algorithm2"]) > 1e-2


def test_where_the_ratios_meet():
    step = make_step()
    assert (value("paper", step) - value("algorithm2", step)).abs().min() > 1e-3
    one_hot = replace(step, scale_weights=torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(value("paper", one_hot), value("algorithm2", one_hot))
    uniform = replace(step, scale_weights=torch.full((3, 3), 1 / 3, dtype=torch.float64))
    torch.testing.assert_close(value("ratio", uniform), 3 * value("paper", uniform))
    one = sample(uniform, 0)
    released, algorithm2 = value("released", one), value("algorithm2", one)[0]
    torch.testing.assert_close(released, algorithm2, rtol=1e-5, atol=0)


def best_alpha(name, step, start=(0.0, 0.0, 0.0)):
    """Where alpha goes if nothing but the objective decides: gradient descent on free logits."""
    logits = torch.zeros_like(step.scale_weights) + torch.tensor(start)
    logits.requires_grad_(True)
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(400):
        optimizer.zero_grad()
        value(name, replace(step, scale_weights=logits.softmax(dim=1))).sum().backward()
        optimizer.step()
    return logits.detach().softmax(dim=1)


def scale_distances(step):
    scales = zip(step.clean, step.student, step.noisy, strict=True)
    return [[flat(u[b], v[b]) / flat(z[b], v[b]) for b in range(len(u))] for u, v, z in scales]


@pytest.mark.parametrize("name", ["paper", "algorithm2"])
def test_alpha_as_printed_collapses_to_the_scale_with_the_smallest_ratio(name):
    step = make_step()
    alpha = best_alpha(name, step)
    smallest = torch.tensor(scale_distances(step)).argmin(dim=0)
    assert alpha.argmax(dim=1).tolist() == smallest.tolist()
    assert alpha.max(dim=1).values.min() > 0.99


# ---------------------------------------------------------------------- what `margin` promises


def test_margin_is_zero_with_zero_gradient_where_the_student_is_right():
    step = replace(make_step(), student=make_step().clean)
    torch.testing.assert_close(value("margin", step), torch.zeros(3).double())
    for gradient in student_gradient("margin", step):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient))


def test_contrast_acts_under_the_patch_only():
    step = make_step()
    noisy = [z.clone().requires_grad_() for z in step.noisy]
    student = [v.clone().requires_grad_() for v in step.student]
    tracked = replace(step, noisy=noisy, student=student)
    contrast = value("margin", tracked) - value("rd", tracked)
    gradients = torch.autograd.grad(contrast.sum(), [*noisy, *student])
    for gradient in gradients:
        height, width = gradient.shape[2:]
        for b in range(3):
            outside = [
                gradient[b, :, y, x].abs().max()
                for y, x in positions(gradient[b])
                if covered_share(step.footprint[b], y, x, height, width) == 0
            ]
            assert max(outside, default=0) < 1e-15
    assert all(gradient.abs().max() > 0 for gradient in gradients)


def test_contrast_stops_once_the_margin_is_kept():
    step = make_step()
    near = replace(
        step, student=[u + 0.01 * z for u, z in zip(step.clean, step.noisy, strict=True)]
    )
    for a, b in zip(student_gradient("margin", near), student_gradient("rd", near), strict=True):
        torch.testing.assert_close(a, b)
    far = replace(step, student=step.noisy)
    for a, b in zip(student_gradient("margin", far), student_gradient("rd", far), strict=True):
        assert (a - b).abs().max() > 1e-3


def test_margin_without_any_perturbed_pixel_is_rd():
    step = replace(make_step(), footprint=torch.zeros(3, 1, *IMAGE, dtype=torch.bool))
    torch.testing.assert_close(value("margin", step), value("rd", step))

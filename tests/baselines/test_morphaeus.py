"""MorphAEus: a prior, moved into place."""

import pytest
import torch
from planted import blobs, small_budget
from scipy.ndimage import map_coordinates

from scrd.baselines.morphaeus import (
    MorphAEus,
    integrate,
    local_correlation,
    roughness,
    warp,
)


def generator(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def images():
    return blobs(4, seed=0, channels=3)


def test_no_displacement_is_identity(images):
    assert torch.allclose(warp(images, torch.zeros(4, 2, 64, 64)), images, atol=1e-5)
    assert torch.equal(integrate(torch.zeros(1, 2, 8, 8)), torch.zeros(1, 2, 8, 8))


def test_warp_is_the_naive_loop_over_whole_pixels():
    image = torch.rand(1, 1, 7, 9, generator=generator(0))
    field = torch.randint(-4, 5, (1, 2, 7, 9), generator=generator(1)).float()
    moved = warp(image, field)
    for y in range(7):
        for x in range(9):
            down, right = (int(c) for c in field[0, :, y, x])
            here = image[0, 0, min(max(y + down, 0), 6), min(max(x + right, 0), 8)]
            assert moved[0, 0, y, x] == pytest.approx(float(here), abs=1e-5)


def test_warp_is_scipys_between_pixels():
    image = torch.rand(1, 1, 12, 10, generator=generator(2))
    field = 2 * torch.randn(1, 2, 12, 10, generator=generator(3))
    rows, columns = torch.meshgrid(torch.arange(12), torch.arange(10), indexing="ij")
    at = torch.stack([rows + field[0, 0], columns + field[0, 1]]).numpy()
    expected = map_coordinates(image[0, 0].numpy(), at, order=1, mode="nearest")
    assert torch.allclose(warp(image, field)[0, 0], torch.from_numpy(expected), atol=1e-5)


def test_integration_follows_the_flow():
    constant = torch.tensor([1.5, -0.5])[None, :, None, None].expand(1, 2, 16, 16)
    assert torch.allclose(integrate(constant), constant, atol=1e-5)
    # v = a (p - centre): after unit time exp(a) (p - centre), where the border is far
    offset = torch.arange(33.0) - 16
    position = torch.stack(torch.meshgrid(offset, offset, indexing="ij"))[None]
    grown = integrate(0.3 * position)[0, :, 8:25, 8:25]
    expected = (torch.tensor(0.3).exp() - 1) * position[0, :, 8:25, 8:25]
    assert torch.allclose(grown, expected, atol=0.05)
    back = integrate(-0.3 * position)
    assert (back + warp(integrate(0.3 * position), back))[0, :, 10:23, 10:23].abs().max() < 0.05


def test_local_correlation_is_numpys_squared():
    first, second = torch.rand(2, 1, 1, 15, 14, generator=generator(4))
    second = 0.5 * first + 0.5 * second
    value = local_correlation(first, second)
    for y, x in ((7, 7), (0, 0), (14, 5)):
        window = (slice(max(y - 4, 0), y + 5), slice(max(x - 4, 0), x + 5))
        both = torch.stack([first[0, 0][window].flatten(), second[0, 0][window].flatten()])
        expected = torch.corrcoef(both)[0, 1] ** 2
        assert value[0, 0, y, x] == pytest.approx(float(expected), abs=1e-3)
    assert torch.allclose(local_correlation(first, 0.2 + 0.3 * first), torch.ones(()), atol=1e-2)
    assert local_correlation(first, torch.full_like(first, 0.4)).abs().max() < 1e-3


def test_roughness_is_of_neighbours():
    field = torch.randn(2, 2, 5, 6, generator=generator(5))
    down = (field[:, :, 1:] - field[:, :, :-1]).pow(2).mean()
    right = (field[..., 1:] - field[..., :-1]).pow(2).mean()
    assert roughness(field) == pytest.approx(float(down + right) / 2, rel=1e-5)
    assert roughness(torch.ones(1, 2, 4, 4)) == 0


def test_the_map_is_the_residual_of_the_moved_prior(images):
    model = MorphAEus(small_budget()).eval()
    with torch.no_grad():
        prior, velocity = model.reconstruct(images)
        assert prior.shape == (4, 3, 64, 64) and velocity.shape == (4, 2, 64, 64)
        assert velocity.abs().max() < 0.1  # a new deformer moves next to nothing
        residual = (images - prior).abs().mean(dim=1)
    assert torch.allclose(model.score(images).maps, residual, atol=1e-2)
    torch.nn.init.constant_(model.velocity.bias, 3.0)
    with torch.no_grad():
        shifted = prior[:, :, 3:, 3:]
    residual = (images[:, :, :-3, :-3] - shifted).abs().mean(dim=1)
    assert torch.allclose(model.score(images).maps[:, :-3, :-3], residual, atol=1e-2)


def test_the_perceptual_loss_ignores_nothing_and_is_zero_for_the_image_itself(images):
    model = MorphAEus(small_budget())
    assert model.perceptual(images, images) == 0
    assert model.perceptual(images, images.flip(-1)) > 0


def test_the_deformer_waits_and_then_learns(images):
    model = MorphAEus(small_budget()).train()
    model.progress = 0.0
    model.loss(images).backward()
    assert model.velocity.weight.grad is None
    model.progress = 0.5
    model.loss(images).backward()
    assert model.velocity.weight.grad.abs().max() > 0
    assert model.encoder[0][0].weight.grad.abs().max() > 0
    assert all(p.grad is None for p in model.teacher.parameters())


def test_a_field_that_follows_the_correlation_aligns_two_images():
    rows, columns = torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="ij")

    def wave(shift):
        return (0.5 + 0.2 * torch.sin((rows + shift) / 3) + 0.2 * torch.cos(columns / 4))[
            None, None
        ]

    target, prior = wave(2.0), wave(0.0)
    velocity = torch.zeros(1, 2, 48, 48, requires_grad=True)
    optimizer = torch.optim.Adam([velocity], lr=0.1)
    for _ in range(60):
        loss = 1 - local_correlation(target, warp(prior, integrate(velocity))).mean()
        optimizer.zero_grad()
        (loss + roughness(velocity)).backward()
        optimizer.step()
    moved = integrate(velocity.detach())[0, :, 12:36, 12:36].mean(dim=(1, 2))
    assert moved[0] == pytest.approx(2, abs=0.5) and moved[1] == pytest.approx(0, abs=0.5)


def test_a_planted_square_is_found(monkeypatch):
    monkeypatch.setattr(MorphAEus, "learning_rate", 5e-3)  # few steps here, so larger ones
    model = MorphAEus(small_budget(iterations=40, batch_size=8))
    model.fit(blobs(40, seed=0))
    normal, abnormal = blobs(10, seed=1), blobs(10, seed=1)
    abnormal[:, :, 12:28, 34:50] = 1.0
    before, after = model.score(normal), model.score(abnormal)
    assert (after.scores > before.scores).all()
    gain = (after.maps - before.maps).mean(dim=0)
    assert gain[12:28, 34:50].mean() > 4 * gain[40:].abs().mean()

"""SQUID: queues of places, shrinkage, neighbours without the centre, the discriminator's word."""

import pytest
import torch
from planted import blobs, small_budget

from scrd.baselines.inpainting import (
    GRID,
    SLOTS,
    InPainting,
    MemoryQueues,
    from_patches,
    gumbel_shrink,
    neighbours,
    to_patches,
)
from scrd.baselines.squid import SQUID


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_patches_are_rectangles_row_by_row_and_fit_together_again():
    image = rand(3, 2, 8, 12)
    patches = to_patches(image)
    assert patches.shape == (3 * GRID**2, 2, 4, 6)
    assert torch.equal(patches[4 + 1], image[1, :, :4, 6:])
    assert torch.equal(patches[4 + 2], image[1, :, 4:, :6])
    assert torch.equal(from_patches(patches), image)


def test_shrinkage_keeps_the_largest_and_passes_all_gradients():
    weights = rand(6, 40).softmax(dim=-1).requires_grad_()
    shrunk = gumbel_shrink(weights, kept=5)
    for row, before in zip(shrunk.detach(), weights.detach(), strict=True):
        largest = set(before.argsort(descending=True)[:5].tolist())
        expected = torch.tensor([float(w) if i in largest else 0 for i, w in enumerate(before)])
        assert torch.allclose(row, expected / expected.sum(), atol=1e-6)
    slope = rand(6, 40, seed=1)
    (slope * shrunk).sum().backward()
    assert torch.equal(weights.grad, slope)
    assert torch.allclose(gumbel_shrink(weights.detach(), kept=99), weights.detach())


def test_the_queue_of_a_place_holds_only_its_own_patches():
    queues = MemoryQueues(3)
    fed = torch.empty(0, GRID**2, 3)
    place = torch.arange(GRID**2.0)[:, None] * 1000
    for step in range(9):
        patches = place + 3 * step + rand(30, GRID**2, 3, seed=step)
        queues.push(patches)
        fed = torch.cat([fed, patches])
    for p in range(GRID**2):
        held = {tuple(item.tolist()) for item in queues.items[p]}
        assert held == {tuple(item.tolist()) for item in fed[-SLOTS:, p]}  # first in, first out
    assert queues.written == 270


def test_more_patches_than_slots_leave_the_last():
    queues = MemoryQueues(2)
    patches = rand(SLOTS + 50, GRID**2, 2)
    queues.push(patches)
    assert torch.equal(queues.items[0].sort(dim=0).values, patches[50:, 0].sort(dim=0).values)


def test_a_place_reads_its_own_queue_alone():
    queues = MemoryQueues(4)
    queues.push(rand(SLOTS, GRID**2, 4))
    tokens = rand(2, GRID**2, 4, seed=1)
    before = queues(tokens)
    queues.items[1] += 1
    changed = (queues(tokens) - before).abs().amax(dim=(0, 2)) > 1e-4
    assert changed.tolist() == [False, True, False, False]
    # what is read lies within what is held
    low, high = queues.items.amin(dim=1), queues.items.amax(dim=1)
    assert ((queues(tokens) >= low - 1e-5) & (queues(tokens) <= high + 1e-5)).all()


def test_neighbours_are_those_of_a_naive_loop():
    tokens = 1 + rand(2, GRID**2, 3)
    found = neighbours(tokens)
    offsets = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
    for place in range(GRID**2):
        for k, (dy, dx) in enumerate(offsets):
            y, x = place // GRID + dy, place % GRID + dx
            inside = 0 <= y < GRID and 0 <= x < GRID
            expected = tokens[:, y * GRID + x] if inside else torch.zeros(2, 3)
            assert torch.equal(found[:, place, k], expected)


def test_inpainting_does_not_see_the_masked_centre():
    block = InPainting(channels=32, side=2).eval()
    tokens, remembered = rand(3, GRID**2, 32), rand(3, GRID**2, 32, seed=1)
    with torch.no_grad():
        before = block.attend(tokens, remembered)
        other = remembered.clone()
        other[:, 2] = 9.0
        changed = (block.attend(tokens, other) - before).abs().amax(dim=(0, 2)) > 1e-5
    assert changed.tolist() == [True, True, False, True]


@pytest.fixture(scope="module")
def fitted():
    model = SQUID(small_budget(iterations=60, batch_size=8))
    model.fit(blobs(24, seed=0))
    return model


def test_patches_of_the_training_fill_the_queues(fitted):
    memory = fitted.inpainting.memory
    assert memory.written == 60 * 8
    fresh = SQUID(small_budget()).inpainting.memory.items
    assert not torch.isclose(memory.items, fresh).all(dim=-1).any()


def test_the_score_is_the_standardised_logit_of_the_reconstruction(fitted):
    train = blobs(24, seed=0)
    answer = fitted.score(train)
    assert answer.maps is None
    assert answer.scores.mean() == pytest.approx(0, abs=1e-3)
    assert answer.scores.std(correction=0) == pytest.approx(1, abs=1e-3)
    with torch.no_grad():
        image = train.expand(-1, 3, -1, -1)
        logits = fitted.discriminator(fitted.reconstruct(image))
    order = torch.argsort(logits, descending=True)
    assert (answer.scores[order].diff() >= -1e-5).all()


def test_training_reconstructs_better(fitted):
    images = blobs(8, seed=1).expand(-1, 3, -1, -1)
    fresh = SQUID(small_budget()).eval()
    with torch.no_grad():
        before, after = (
            (model.reconstruct(images) - images).square().mean() for model in (fresh, fitted)
        )
    assert after < before / 2


def test_every_part_learns(fitted):
    fresh = SQUID(small_budget(batch_size=8))
    for part in ("encoder", "inpainting", "student", "teacher", "discriminator"):
        pairs = zip(
            getattr(fresh, part).parameters(), getattr(fitted, part).parameters(), strict=True
        )
        moved = [not torch.equal(a, b) for a, b in pairs]
        assert sum(moved) > 0.9 * len(moved), part

"""Whether a position has statistics of its own is learnt from lesions put into normals."""

import pytest
import torch

from scrd.training.by_position import SHARES, by_position

SIDE = 32


def maps(aligned, count=60, seed=0):
    """Noise on a pattern that is in the same place in every map, or in another in each."""
    generator = torch.Generator().manual_seed(seed)
    pattern = 3 * (torch.arange(SIDE) // 4 % 2).float().expand(SIDE, SIDE)
    shifts = torch.randint(0, 8, (count,), generator=generator).tolist()
    patterns = torch.stack([pattern.roll(0 if aligned else s, 1) for s in shifts])
    return patterns + 0.5 * torch.randn(count, SIDE, SIDE, generator=generator)


def with_lesions(aligned):
    where = torch.zeros(60, 1, 8 * SIDE, 8 * SIDE)
    changed = maps(aligned, seed=1)
    for b in range(60):
        y, x = (5 * b) % 24, (7 * b) % 24
        where[b, 0, 8 * y : 8 * y + 32, 8 * x : 8 * x + 32] = 1
        changed[b, y : y + 4, x : x + 4] += 2.5
    return changed, where


def test_alignment_decides():
    parts = {aligned: with_lesions(aligned) for aligned in (True, False)}
    where = parts[True][1]
    normals = [maps(True), maps(False)]
    changed = [parts[True][0], parts[False][0]]
    aligned, free = by_position(normals, changed, where, (0, 0))
    assert aligned >= 0.75 and free <= 0.25
    assert {aligned, free} <= set(SHARES)


def test_without_a_visible_lesion_each_position_counts_alone():
    where = torch.zeros(60, 1, 8 * SIDE, 8 * SIDE)
    assert by_position([maps(True)], [maps(True, seed=1)], where, (0,)) == [1.0]


def test_the_level_is_taken_away_before(monkeypatch):
    changed, where = with_lesions(True)
    seen = []

    class Spy:
        def __init__(self, sides, level):
            seen.append((tuple(sides), tuple(level)))

        def fit(self, batches, share):
            pass

        def __call__(self, maps):
            return list(maps)

    monkeypatch.setattr("scrd.training.by_position.NormalMaps", Spy)
    assert by_position([maps(True)], [changed], where, (0.5,)) == [1.0]
    assert set(seen) == {((SIDE,), (0.5,))} and len(seen) == len(SHARES)


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_maps_of_any_stride(scale):
    changed, where = with_lesions(True)
    normal = maps(True).repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    wide = changed.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    assert by_position([normal], [wide], where, (0,))[0] >= 0.75

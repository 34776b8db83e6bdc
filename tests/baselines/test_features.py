"""What is computed of a training image once."""

import pytest
import torch
from planted import blobs, small_budget

from scrd.baselines import BASELINES, features
from scrd.baselines.features import OncePerImage


@pytest.fixture
def counted():
    """A computation in channels last, and the images that it was asked for."""
    seen = []

    def compute(images):
        seen.extend(images[:, 0, 0, 0].tolist())
        wide = images.repeat(1, 2, 1, 1).contiguous(memory_format=torch.channels_last)
        return wide, images.flatten(1).sum(dim=1)

    return compute, seen


def test_each_image_is_computed_once_and_comes_back_as_it_was(counted):
    compute, seen = counted
    images = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 1, 4, 4)
    once = OncePerImage(compute, images)
    seen.clear()
    for index in ([4, 1], [1, 5, 4], [0, 1, 2, 3, 4, 5], [3, 3]):
        wide, sums = once(torch.tensor(index))
        expected = compute(images[index])
        del seen[-len(index) :]
        assert torch.equal(wide, expected[0]) and torch.equal(sums, expected[1])
        assert wide.is_contiguous(memory_format=torch.channels_last)
    assert seen == [4, 1, 5, 0, 2, 3]


def test_without_room_for_all_each_step_computes_its_own(counted, monkeypatch):
    compute, seen = counted
    images = torch.rand(6, 1, 4, 4)
    monkeypatch.setattr(features, "KEPT", (6 * (2 * 16 + 1) * 4 - 1) / 2**30)
    once = OncePerImage(compute, images)
    seen.clear()
    for _ in range(2):
        assert torch.equal(once(torch.tensor([2, 3]))[1], images[2:4].flatten(1).sum(dim=1))
    assert len(seen) == 4


@pytest.mark.parametrize("name", ["dinomaly", "rdpp", "recontrast", "simplenet", "uniad"])
def test_answers_do_not_depend_on_what_is_kept(name, monkeypatch):
    answers = []
    for room in (1, 0):
        monkeypatch.setattr(features, "KEPT", room)
        model = BASELINES[name](small_budget())
        model.fit(blobs(8, seed=0))
        answers.append(model.score(blobs(3, seed=1)).scores)
    torch.testing.assert_close(*answers, rtol=1e-3, atol=1e-4)

"""What every baseline keeps to, whatever its paper says."""

from importlib.util import find_spec

import pytest
import torch
from planted import blobs, small_budget
from torch.testing import assert_close

from scrd.baselines import BASELINES

WITHOUT_MAP = {"confounds", "cutpaste", "mahalanobis", "squid"}
DRAWS_NOTHING = {"brightness", "confounds", "mahalanobis"}
NEEDS_ANOMALIB = {"fastflow", "cflow", "efficientad"}


@pytest.fixture(params=sorted(BASELINES))
def method(request):
    """A baseline's name and how to make it on a small budget, another seed on request."""
    name = request.param
    changes = {}
    if name in NEEDS_ANOMALIB and find_spec("anomalib") is None:
        pytest.skip("anomalib, an optional extra, is not installed")
    if name == "efficientad":
        files = request.getfixturevalue("efficientad_files")
        changes = {"weights": str(files), "iterations": 1, "batch_size": 2}
    few = {"knn": 200, "anomalydino": 50}  # else they remember all of these images
    if name in few:
        patch = request.getfixturevalue("monkeypatch")
        patch.setattr(BASELINES[name], "remembered", few[name])
    return name, lambda seed=0: BASELINES[name](small_budget(**changes, seed=seed))


def test_contract(method):
    name, make = method
    train = blobs(8, seed=0)
    test = torch.cat([blobs(3, seed=1), torch.full((1, 1, 64, 64), 0.5)])
    state, copy = torch.get_rng_state(), train.clone()
    model = make()
    model.fit(train)
    answer = model.score(test)
    assert torch.equal(torch.get_rng_state(), state), "the global random state is another"
    assert torch.equal(train, copy), "the training images are changed"

    assert answer.scores.shape == (4,) and answer.scores.dtype == torch.float32
    assert torch.isfinite(answer.scores).all() and not answer.scores.requires_grad
    assert answer.scores.unique().numel() == 4
    assert (answer.maps is None) == (name in WITHOUT_MAP)
    if answer.maps is not None:
        assert answer.maps.shape == (4, 64, 64) and answer.maps.dtype == torch.float32
        assert torch.isfinite(answer.maps).all()

    torch.rand(3)  # another state of the global generator must not matter
    again = make()
    again.fit(train)
    assert torch.equal(again.score(test).scores, answer.scores)
    if name not in DRAWS_NOTHING:
        other = make(seed=1)
        other.fit(train)
        assert not torch.equal(other.score(test).scores, answer.scores)

    # with mates of quite another kind, so that statistics of the batch would show
    mates = torch.cat([test[:1], torch.rand(5, 1, 64, 64, generator=torch.Generator())])
    mixed = model.score(mates)
    atol = 1e-3 if name == "patchcore" else 1e-4  # distances between near points
    assert_close(mixed.scores[:1], answer.scores[:1], rtol=1e-3, atol=atol)
    if mixed.maps is not None and answer.maps is not None:
        assert_close(mixed.maps[:1], answer.maps[:1], rtol=1e-3, atol=atol)
    rgb = make()
    rgb.fit(train.expand(-1, 3, -1, -1))
    assert_close(rgb.score(test.expand(-1, 3, -1, -1)).scores, answer.scores, rtol=1e-2, atol=1e-3)

"""UniAD: a place is rebuilt from elsewhere."""

import pytest
import torch
from planted import blobs, planted, small_budget

from scrd.baselines.uniad import (
    GRID,
    JITTER,
    NEIGHBOURHOOD,
    WIDTH,
    NeighbourMaskedAttention,
    QueryLayer,
    UniAD,
    jitter,
    neighbour_mask,
)
from scrd.metrics.ranks import auroc

TOKENS = GRID * GRID


@pytest.fixture(scope="module")
def trained():
    model = UniAD(small_budget(iterations=30, batch_size=4))
    model.fit(blobs(40, seed=0))
    return model


def near(query, reach=NEIGHBOURHOOD // 2):
    """Tokens at most ``reach`` rows and columns away from one, by a naive loop."""
    y, x = divmod(query, GRID)
    return [k for k in range(TOKENS) if abs(k // GRID - y) <= reach and abs(k % GRID - x) <= reach]


def random_tokens(seed, count=2):
    return torch.randn(count, TOKENS, WIDTH, generator=torch.Generator().manual_seed(seed))


def test_the_mask_is_the_neighbourhood():
    mask = neighbour_mask(GRID, NEIGHBOURHOOD)
    for query in range(TOKENS):
        assert mask[query].nonzero().squeeze(1).tolist() == near(query)
    assert not mask.all(dim=1).any()  # every token sees something


@pytest.mark.parametrize("query", [0, 5 * GRID + 6, TOKENS - 1])
def test_attention_does_not_see_the_neighbourhood(query):
    attention = NeighbourMaskedAttention().eval()
    tokens, other = random_tokens(0), random_tokens(1)
    hidden = near(query)
    changed, outside = tokens.clone(), tokens.clone()
    changed[:, hidden] = other[:, hidden]
    seen = [k for k in range(TOKENS) if k not in hidden]
    outside[:, seen[0]] = other[:, seen[0]]
    with torch.no_grad():
        before = attention(tokens, tokens, tokens)[:, query]
        after = attention(tokens, changed, changed)[:, query]
        elsewhere = attention(tokens, outside, outside)[:, query]
        others = attention(tokens, changed, changed)[:, seen[-1]]
        assert torch.allclose(before, after, atol=1e-6)
        assert (before - elsewhere).abs().max() > 1e-5
        assert (others - attention(tokens, tokens, tokens)[:, seen[-1]]).abs().max() > 1e-5


def test_a_decoder_layer_sees_neither_source_in_the_neighbourhood():
    layer = QueryLayer().eval()
    query = 6 * GRID + 7
    before, encoded, position = random_tokens(0), random_tokens(1), random_tokens(2, 1)[0]
    changed = [t.clone() for t in (before, encoded)]
    for tokens in changed:
        tokens[:, near(query)] += 1
    with torch.no_grad():
        expected = layer(before, encoded, position)
        answer = layer(*changed, position)
    assert torch.allclose(answer[:, query], expected[:, query], atol=1e-5)
    assert (answer - expected).abs().max() > 1e-3


def test_every_decoder_layer_has_a_trained_query(trained):
    untrained = UniAD(small_budget())
    for layer, start in zip(trained.decoder, untrained.decoder, strict=True):
        assert layer.query.shape == (TOKENS, WIDTH)
        assert (layer.query - start.query).abs().max() > 1e-3
    queries = torch.stack([layer.query for layer in trained.decoder])
    assert queries.flatten(1).unique(dim=0).shape[0] == len(trained.decoder)


def test_jitter_is_as_strong_as_the_token_is_long():
    tokens = torch.ones(1, 2, 400) * torch.tensor([1.0, 3.0]).view(1, 2, 1)
    noise = torch.randn(1, 2, 400, generator=torch.Generator().manual_seed(0))
    added = jitter(tokens, noise) - tokens
    expected = torch.tensor([1.0, 3.0]) * JITTER / 400**0.5  # ‖f‖ = f √C
    assert torch.allclose(added.std(dim=2).squeeze(0), expected, rtol=0.1)


def test_training_lowers_the_error_of_held_out_normals(trained):
    tokens = trained.tokens(blobs(10, seed=1))
    untrained = UniAD(small_budget()).eval()
    with torch.no_grad():
        after = (trained.reconstruct(tokens) - tokens).square().mean()
        before = (untrained.reconstruct(tokens) - tokens).square().mean()
    assert after < 0.9 * before


def test_planted_anomalies_score_higher(trained):
    images, labels = planted(10, seed=1)
    assert auroc(trained.score(images).scores.numpy(), labels) > 0.9

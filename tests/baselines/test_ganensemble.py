"""GAN ensemble: every generator meets every critic, in training and in the score."""

from collections import Counter

import pytest
import torch
from planted import blobs, small_budget

from scrd.baselines.ganensemble import (
    CRITICS,
    GENERATORS,
    LATENT,
    Critic,
    GANEnsemble,
    draw_pair,
    gradient_penalty,
)

PAIRS = [(i, j) for i in range(GENERATORS) for j in range(CRITICS)]


@pytest.fixture(scope="module")
def model():
    return GANEnsemble(small_budget())


def moved(module, start):
    return any(
        not torch.equal(a, b) for a, b in zip(module.parameters(), start.parameters(), strict=True)
    )


def test_pairs_are_drawn_alike():
    generator = torch.Generator().manual_seed(0)
    counts = Counter(draw_pair(generator) for _ in range(1800))
    assert sorted(counts) == PAIRS
    assert min(counts.values()) > 150 and max(counts.values()) < 250


def test_every_generator_meets_every_critic(monkeypatch):
    met = []
    for name in ("critic_loss", "generator_loss"):
        original = getattr(GANEnsemble, name)

        def noted(self, pair, *args, name=name, original=original):
            met.append((name, pair))
            return original(self, pair, *args)

        monkeypatch.setattr(GANEnsemble, name, noted)
    GANEnsemble(small_budget(iterations=60, batch_size=1)).fit(blobs(4, seed=0))
    for name in ("critic_loss", "generator_loss"):
        assert sorted({pair for n, pair in met if n == name}) == PAIRS


def test_a_step_trains_one_pair_alone(monkeypatch):
    monkeypatch.setattr("scrd.baselines.ganensemble.draw_pair", lambda generator: (1, 2))
    start, model = GANEnsemble(small_budget()), GANEnsemble(small_budget(iterations=1))
    model.fit(blobs(4, seed=0))
    for name, chosen in (("encoders", 1), ("decoders", 1), ("critics", 2)):
        members = zip(getattr(model, name), getattr(start, name), strict=True)
        assert [moved(*pair) for pair in members] == [k == chosen for k in range(3)]


def test_each_loss_reaches_its_own_networks_alone():
    model = GANEnsemble(small_budget())
    real = model._scaled(blobs(4, seed=0))
    code = torch.randn(4, LATENT, generator=torch.Generator().manual_seed(0))
    mix = torch.full((4, 1, 1, 1), 0.3)
    for loss, names in (
        (lambda: model.critic_loss((0, 1), real, code, mix), {"critics.1"}),
        (lambda: model.generator_loss((0, 1), real, code), {"encoders.0", "decoders.0"}),
    ):
        model.zero_grad(set_to_none=True)
        loss().backward()
        reached = {n[: n.index(".") + 2] for n, p in model.named_parameters() if p.grad is not None}
        assert reached == names
        assert all(p.requires_grad for p in model.parameters())


def test_the_penalty_of_a_linear_critic_is_known():
    class Linear(Critic):
        def forward(self, image):
            return 3 * image.flatten(1)[:, 0] + 4 * image.flatten(1)[:, 1]

    real, fake = torch.rand(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    penalty = gradient_penalty(Linear(32), real, fake, torch.full((4, 1, 1, 1), 0.5))
    assert float(penalty) == pytest.approx((5 - 1) ** 2)


def test_the_score_is_the_average_over_all_pairs(model):
    model.eval()
    images = blobs(3, seed=1)
    answer = model.score(images)
    image = 2 * images.expand(-1, 3, -1, -1) - 1
    scores, maps = [], []
    with torch.no_grad():
        for encoder, decoder in zip(model.encoders, model.decoders, strict=True):
            rebuilt = decoder(encoder(image))
            maps.append(((image - rebuilt) ** 2).mean(dim=1))
            for critic in model.critics:
                features = (critic.features(image) - critic.features(rebuilt)) ** 2
                pixels = ((image - rebuilt) ** 2).flatten(1).mean(dim=1)
                scores.append(0.9 * pixels + 0.1 * features.mean(dim=1))
    assert torch.allclose(answer.scores, torch.stack(scores).mean(dim=0), rtol=1e-4)
    assert torch.allclose(answer.maps, torch.stack(maps).mean(dim=0), rtol=1e-4, atol=1e-6)


def test_generators_learn_to_rebuild():
    model = GANEnsemble(small_budget(iterations=90, batch_size=8))
    held_out = model._scaled(blobs(8, seed=1))

    @torch.no_grad()
    def errors():
        model.eval()
        return [
            float(model.errors(held_out, model.rebuild(i, held_out), 0)[0].mean()) for i in range(3)
        ]

    before = errors()
    model.fit(blobs(40, seed=0))
    assert all(after < 0.8 * start for after, start in zip(errors(), before, strict=True))

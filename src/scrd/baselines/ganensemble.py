"""GAN ensemble: several generators and critics, each pair of which trains and scores."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from scrd.baselines.method import Answer, Baseline, Budget
from scrd.training.batches import batch_indices
from scrd.training.log import TrainingError

GENERATORS, CRITICS = 3, 3
"""Members I and J (the paper's)."""

LATENT = 100
"""Length of the code z (the released code's)."""

WIDTH, WIDEST = 16, 256
"""Channels of the first stage, doubled by each further one, and their limit: a quarter of the
paper's 64 and 1,024."""

GRID = 4
"""Side of the grid at which codes begin."""

SLOPE = 0.2
"""Of the leaky ReLU of encoders and critics."""

LEARNING_RATE, BETAS = 2e-4, (0.5, 0.999)
"""Adam's (the released code's)."""

PENALTY = 10.0
"""Factor of the gradient penalty (WGAN-GP's)."""

RECONSTRUCTION_WEIGHT = 50.0
"""Factor of the reconstruction error in the loss, beside the adversarial term and the error of
the features (the released code's for generators trained by all three)."""

RECONSTRUCTION_SHARE = 0.9
"""Share of the reconstruction error in the score, beside that of the features (the released
code's)."""


def _widths(image_size: int) -> list[int]:
    """Channels of the halving stages that take an image to the grid, or to an odd side."""
    widths: list[int] = []
    side = image_size
    while side > GRID and side % 2 == 0:
        widths.append(min(WIDEST, WIDTH << len(widths)))
        side //= 2
    return widths


def _halving(image_size: int, normalised: bool) -> nn.Sequential:
    """(B, 3, S, S) to the widest stage's map, by 4x4 convolutions of stride 2."""
    widths = _widths(image_size)
    layers: list[nn.Module] = []
    for before, after in zip([3, *widths], widths, strict=False):
        layers.append(nn.Conv2d(before, after, 4, stride=2, padding=1))
        if normalised and len(layers) > 1:
            layers.append(nn.BatchNorm2d(after))
        layers.append(nn.LeakyReLU(SLOPE))
    return nn.Sequential(*layers)


def _encoder(image_size: int) -> nn.Sequential:
    """(B, 3, S, S) to codes (B, LATENT)."""
    widths = _widths(image_size)
    side = image_size >> len(widths)
    code = nn.Linear(widths[-1] * side * side, LATENT)
    return nn.Sequential(_halving(image_size, normalised=True), nn.Flatten(), code)


def _decoder(image_size: int) -> nn.Sequential:
    """Codes (B, LATENT) to images (B, 3, S, S) in [-1, 1]."""
    widths = _widths(image_size)[::-1]
    side = image_size >> len(widths)
    layers: list[nn.Module] = [
        nn.Linear(LATENT, widths[0] * side * side),
        nn.Unflatten(1, (widths[0], side, side)),
    ]
    for before, after in zip(widths, [*widths[1:], 3], strict=True):
        layers += [
            nn.GroupNorm(1, before),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(before, after, 4, stride=2, padding=1),
        ]
    return nn.Sequential(*layers, nn.Tanh())


class Critic(nn.Module):
    """A Wasserstein critic whose last hidden map serves as features.

    Without normalisation: the gradient penalty is one of each image alone.
    """

    def __init__(self, image_size: int) -> None:
        super().__init__()
        widths = _widths(image_size)
        side = image_size >> len(widths)
        self.hidden = _halving(image_size, normalised=False)
        self.realness = nn.Linear(widths[-1] * side * side, 1)

    def features(self, image: Tensor) -> Tensor:
        """f(x), (B, D), of (B, 3, S, S)."""
        out: Tensor = self.hidden(image).flatten(1)
        return out

    def forward(self, image: Tensor) -> Tensor:
        """D(x), (B,), larger for what looks real."""
        out: Tensor = self.realness(self.features(image)).squeeze(1)
        return out


def gradient_penalty(critic: Critic, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """Mean of (‖∇D(m x + (1 − m) x')‖₂ − 1)², WGAN-GP's.

    Args:
        critic: D.
        real: x, (B, 3, S, S), float.
        fake: x', shaped like ``real``, without gradient.
        mix: m, (B, 1, 1, 1), in [0, 1].

    Returns:
        (), float.
    """
    between = (mix * real + (1 - mix) * fake).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    penalty: Tensor = (gradient.flatten(1).norm(dim=1) - 1).square().mean()
    return penalty


def draw_pair(generator: torch.Generator) -> tuple[int, int]:
    """A generator and a critic, every pair alike."""
    i = int(torch.randint(GENERATORS, (), generator=generator))
    return i, int(torch.randint(CRITICS, (), generator=generator))


def _update(optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
    """Take a step down ``loss``, and return its value."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return float(loss.detach())


class GANEnsemble(Baseline):
    """Han, Chen, Liu, "GAN Ensemble for Anomaly Detection", AAAI 2021, of f-AnoGAN members.

    A generator is an encoder E and a decoder G. Every step draws one of the ``GENERATORS`` and one
    of the ``CRITICS``, each alike, and a batch of normals x, and updates

    - the critic D by WGAN-GP, mean D(G(z)) − mean D(x) + ``PENALTY`` times the penalty, z normal;
    - the generator by −mean D(G(z)) + ``RECONSTRUCTION_WEIGHT`` ‖x − G(E(x))‖²
      + ‖f(x) − f(G(E(x)))‖², means over pixels and features, f the critic's last hidden layer.

    So every generator hears of every critic. The score is the average over all pairs of
    ``RECONSTRUCTION_SHARE`` times the first error plus the rest times the second; the map is the
    squared residual, averaged over generators and channels. Images are brought to [-1, 1].

    Departures:

    - A quarter of the paper's channels (``WIDTH``, ``WIDEST``), with which 300 steps of 16 images
      of 128 pixels take a CPU core about four minutes.
    - Generators are trained by all three terms together, as in the paper's general objective. Its
      f-AnoGAN members train decoders by the first alone, and encoders by the others once that is
      done, which wants far more steps: after 38 of them with both turns in every step, the squared
      error of held-out normal MR slices was 0.48 that way, and is 0.36 this way.
    - Layer normalisation in decoders, so that drawn and encoded codes are treated alike, and none
      in critics, as WGAN-GP wants it.
    """

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget)
        size = budget.image_size
        with torch.random.fork_rng():
            torch.manual_seed(budget.seed)
            self.encoders = nn.ModuleList(_encoder(size) for _ in range(GENERATORS))
            self.decoders = nn.ModuleList(_decoder(size) for _ in range(GENERATORS))
            self.critics = nn.ModuleList(Critic(size) for _ in range(CRITICS))

    def critic_loss(self, pair: tuple[int, int], real: Tensor, code: Tensor, mix: Tensor) -> Tensor:
        """WGAN-GP's loss of a pair's critic, a scalar.

        Args:
            pair: generator and critic.
            real: x, (B, 3, S, S), float32, in [-1, 1].
            code: z, (B, LATENT).
            mix: see :func:`gradient_penalty`.
        """
        critic = self._critic(pair[1])
        with torch.no_grad():
            fake = self.decoders[pair[0]](code)
        wasserstein: Tensor = critic(fake).mean() - critic(real).mean()
        return wasserstein + PENALTY * gradient_penalty(critic, real, fake, mix)

    def generator_loss(self, pair: tuple[int, int], real: Tensor, code: Tensor) -> Tensor:
        """Loss of a pair's encoder and decoder, a scalar; arguments as for the critic's."""
        i, j = pair
        critic = self._critic(j)
        critic.requires_grad_(False)
        adversarial: Tensor = -critic(self.decoders[i](code)).mean()
        pixels, features = self.errors(real, self.rebuild(i, real), j)
        critic.requires_grad_(True)
        return adversarial + (RECONSTRUCTION_WEIGHT * pixels + features).mean()

    def rebuild(self, member: int, image: Tensor) -> Tensor:
        """G(E(x)) of one generator; (B, 3, S, S) to the same."""
        out: Tensor = self.decoders[member](self.encoders[member](image))
        return out

    def errors(self, image: Tensor, rebuilt: Tensor, critic: int) -> tuple[Tensor, Tensor]:
        """Mean squared differences of pixels and of a critic's features, (B,) each."""
        module = self._critic(critic)
        features = module.features(image) - module.features(rebuilt)
        return (image - rebuilt).square().mean(dim=(1, 2, 3)), features.square().mean(dim=1)

    def fit(self, images: Tensor) -> None:
        """Train one pair a step.

        Args:
            images: (N, C, S, S), float32, in [0, 1], C = 1 or 3, on the CPU.

        Raises:
            TrainingError: a loss is not finite at the end.
        """
        budget = self.budget
        torch.backends.cudnn.deterministic = True
        self.to(budget.device).train()
        made = [*self.encoders.parameters(), *self.decoders.parameters()]
        generators = torch.optim.Adam(made, LEARNING_RATE, BETAS)
        critics = torch.optim.Adam(self.critics.parameters(), LEARNING_RATE, BETAS)
        generator = torch.Generator().manual_seed(budget.seed)
        losses: list[float] = []
        for step in range(budget.iterations):
            index = batch_indices(step, budget.batch_size, len(images), budget.seed)
            real = self._scaled(images[index])
            pair = draw_pair(generator)
            code = torch.randn(len(real), LATENT, generator=generator).to(real.device)
            mix = torch.rand(len(real), 1, 1, 1, generator=generator).to(real.device)
            losses = [
                _update(critics, self.critic_loss(pair, real, code, mix)),
                _update(generators, self.generator_loss(pair, real, code)),
            ]
        self.eval()
        if not all(map(math.isfinite, losses)):
            raise TrainingError(f"the losses of GANEnsemble became {losses}")

    @torch.inference_mode()
    def score(self, images: Tensor) -> Answer:
        """See the base class. Maps and scores are squared differences of images in [-1, 1]."""
        self.eval()
        image = self._scaled(images)
        maps, scores = torch.zeros(()), torch.zeros(())
        for i in range(GENERATORS):
            rebuilt = self.rebuild(i, image)
            maps = maps + (image - rebuilt).square().mean(dim=1).cpu() / GENERATORS
            for j in range(CRITICS):
                pixels, features = self.errors(image, rebuilt, j)
                one = RECONSTRUCTION_SHARE * pixels + (1 - RECONSTRUCTION_SHARE) * features
                scores = scores + one.cpu() / (GENERATORS * CRITICS)
        return Answer(scores, maps)

    def _critic(self, index: int) -> Critic:
        critic = self.critics[index]
        assert isinstance(critic, Critic)
        return critic

    def _scaled(self, images: Tensor) -> Tensor:
        return images.to(self.budget.device).expand(-1, 3, -1, -1) * 2 - 1

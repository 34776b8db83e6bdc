"""Dinomaly: a noisy, unfocused transformer that rebuilds a teacher's layers loosely."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur

from scrd.baselines.features import OncePerImage, seeded_teacher
from scrd.baselines.layers import LAYERS, encode, find_vit
from scrd.baselines.linear_attention import HEAD, LinearLayer, Perceptron
from scrd.baselines.method import Answer, Baseline, Budget
from scrd.baselines.stable_rate import set_stable_rates
from scrd.objectives.distance import distance_map, flat_distance
from scrd.training.batches import batch_indices

DROPOUT = 0.2
"""Share of the bottleneck's activations that are dropped in training."""

WIDTH = 3 * HEAD
"""Channels of bottleneck and decoder beside a teacher that is no vision transformer, ours."""

RATE, LAST_RATE = 2e-3, 2e-4
"""Learning rate after the warm-up, and what a cosine brings it to."""

RATE_WARM_UP = 0.01
"""Share of the training over which the rate rises: 100 of the paper's 10,000 iterations."""

BETAS, WEIGHT_DECAY, EPSILON = (0.9, 0.999), 1e-4, 1e-8
"""The optimiser's other settings; it runs with AMSGrad."""

GRADIENT_NORM = 0.1
"""Norm that the gradient of a step is clipped to, as in the released code."""

EASY_SHARE = 0.9
"""Share of the positions, those rebuilt best, whose gradient is scaled down after the warm-up."""

EASY_WARM_UP = 0.1
"""Share of the training over which that share rises: 1,000 of 10,000 iterations."""

EASY_FACTOR = 0.1
"""What the gradient at easy positions is multiplied by."""

INITIAL = 0.01
"""Standard deviation of the normal distribution, cut at three, that weights are drawn from."""

TOP = 0.01
"""Share of the map's pixels, the highest, whose mean is the score."""

KERNEL, SMOOTHING = 5, 4.0
"""Side and standard deviation, in pixels, of the map's Gaussian, as in the released code."""


def learning_rate(step: int, iterations: int) -> float:
    """Rate of a step, from 0: a linear rise from 0, then half a cosine from 2e-3 to 2e-4."""
    warm_up = RATE_WARM_UP * iterations
    if step < warm_up:
        return RATE * (step + 1) / (math.ceil(warm_up) + 1)
    progress = (step - warm_up) / (iterations - warm_up)
    return LAST_RATE + (RATE - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * progress))


def easy_share(step: int, iterations: int) -> float:
    """Share of easy positions at a step, from 0: linear from 0 to 0.9, and then constant."""
    return EASY_SHARE * min(1.0, step / (EASY_WARM_UP * iterations))


def scale_easy_gradient(target: Tensor, decoded: Tensor, share: float) -> Tensor:
    """``decoded`` with its values, and a tenth of the gradient at the easy positions.

    A position is easy where its cosine distance is below the ``share`` quantile of all positions
    of the batch.

    Args:
        target: (B, C, H, W), float.
        decoded: shaped like ``target``.
        share: in [0, 1).
    """
    with torch.no_grad():
        distance = distance_map(target, decoded).unsqueeze(1)
        easy = distance < torch.quantile(distance.flatten(), share)
    held = decoded.detach()
    return torch.where(easy, held + EASY_FACTOR * (decoded - held), decoded)


def loose_loss(targets: Sequence[Tensor], decoded: Sequence[Tensor], share: float) -> Tensor:
    """Cosine distance of flattened maps, averaged over groups and batch, hard positions first.

    Args:
        targets: one a group, (B, C_g, H, W), float, without gradient.
        decoded: shaped like ``targets``.
        share: see :func:`scale_easy_gradient`.

    Returns:
        Scalar, in [0, 2].
    """
    terms = [
        flat_distance(t, scale_easy_gradient(t, d, share)).mean()
        for t, d in zip(targets, decoded, strict=True)
    ]
    return torch.stack(terms).mean()


class Dinomaly(Baseline):
    """Dinomaly: Guo, Lu, Zhang, Chen, Li, Liao, CVPR 2025.

    "Dinomaly: The Less Is More Philosophy in Multi-Class Unsupervised Anomaly Detection". A frozen
    vision transformer; a perceptron with dropout, the noisy bottleneck, over the mean of its middle
    layers; and a decoder of eight layers with linear attention. What the decoder has to rebuild is
    loose: not eight layers but the means of the shallow four and of the deep four, by the means of
    its own last four and first four layers, and of each the flattened map, with a tenth of the
    gradient at positions that are rebuilt well already.

    The map is the cosine distance, averaged over both groups, enlarged and smoothed. The mean of
    its highest 1 % is the score.

    Departures: a teacher is cut off after three quarters of its depth, so that of twelve blocks
    the second to the ninth are rebuilt, where the paper has the third to the tenth; the class
    token does not pass through the decoder, as teachers give none; images have the budget's size,
    where the paper has 392 pixels; both warm-ups are shares of the training. A teacher that is no
    vision transformer has its maps brought to the grid of the deepest, as
    :func:`scrd.baselines.layers.encode` says: two groups of other layers than the paper's, and
    linear maps into and out of a decoder of 192 channels.
    """

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget)
        self.teacher = seeded_teacher(budget)
        channels = self.teacher.channels
        vit = find_vit(self.teacher)
        self.entrance: nn.Module = nn.Identity()
        self.exits = nn.ModuleList([nn.Identity(), nn.Identity()])
        with torch.random.fork_rng():
            torch.manual_seed(budget.seed)
            width = channels[-1] if vit is not None else WIDTH
            self.bottleneck = Perceptron(width, DROPOUT)
            self.decoder = nn.ModuleList(LinearLayer(width) for _ in range(LAYERS))
            if vit is None:
                groups = (channels[0] + channels[1], channels[2])
                self.entrance = nn.Linear(sum(groups), width)
                self.exits = nn.ModuleList(nn.Linear(width, c) for c in groups)
            for part in (self.entrance, self.bottleneck, self.decoder, self.exits):
                part.apply(_initialise)

    def decode(self, fused: Tensor) -> tuple[Tensor, Tensor]:
        """Rebuild both groups from what is fused of them.

        Args:
            fused: (B, C, h, w), see :func:`scrd.baselines.layers.encode`.

        Returns:
            The shallow group and the deep one, (B, C_g, h, w) each.
        """
        size = fused.shape[-2:]
        tokens = self.bottleneck(self.entrance(fused.flatten(2).mT))
        outputs = []
        for layer in self.decoder:
            tokens = layer(tokens)
            outputs.append(tokens)
        first, last = torch.stack(outputs).chunk(2)
        grouped = (last.mean(dim=0), first.mean(dim=0))  # the decoder goes from deep to shallow
        shallow, deep = (
            exit_(group).mT.unflatten(2, size)
            for exit_, group in zip(self.exits, grouped, strict=True)
        )
        return shallow, deep

    def fit(self, images: Tensor) -> None:
        """Train bottleneck and decoder."""
        budget = self.budget
        self.to(budget.device).train()
        trained = [p for p in self.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            [{"params": [p]} for p in trained],
            lr=RATE,
            betas=BETAS,
            weight_decay=WEIGHT_DECAY,
            eps=EPSILON,
            amsgrad=True,
        )
        encoded = OncePerImage(self._encode, images)
        with torch.random.fork_rng():
            torch.manual_seed(budget.seed)  # of the dropout
            for step in range(budget.iterations):
                index = batch_indices(step, budget.batch_size, len(images), budget.seed)
                fused, *groups = encoded(index)
                loss = loose_loss(groups, self.decode(fused), easy_share(step, budget.iterations))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(trained, GRADIENT_NORM)
                set_stable_rates(optimizer, learning_rate(step, budget.iterations))
                optimizer.step()
        self.eval()

    @torch.no_grad()
    def score(self, images: Tensor) -> Answer:
        """Score by the mean of the smoothed map's highest 1 %, a distance in [0, 2]."""
        self.eval()
        size = images.shape[-1]
        fused, *groups = self._encode(images)
        distances = [
            distance_map(t, d).unsqueeze(1) for t, d in zip(groups, self.decode(fused), strict=True)
        ]
        maps = torch.stack(distances).mean(dim=0)
        maps = F.interpolate(maps, (size, size), mode="bilinear", align_corners=False)
        maps = gaussian_blur(maps, KERNEL, SMOOTHING).squeeze(1)
        highest = maps.flatten(1).topk(max(1, int(TOP * size * size)), dim=1).values
        return Answer(highest.mean(dim=1).cpu(), maps.cpu())

    def _encode(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What is fused of (B, C, S, S) images, the shallow group and the deep one."""
        fused, groups = encode(self.teacher, images.to(self.budget.device))
        return fused, *groups


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=INITIAL, a=-3 * INITIAL, b=3 * INITIAL)
        nn.init.zeros_(module.bias)

"""RD++: reverse distillation whose bottleneck sees projected features."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur

from scrd.baselines.features import OncePerImage, extract, seeded_teacher
from scrd.baselines.method import Answer, Baseline, Budget
from scrd.model.blocks import stage_plan
from scrd.model.bottleneck import Bottleneck
from scrd.model.scores import anomaly_map
from scrd.model.student import Student
from scrd.objectives.distance import distance_map, flat_distance
from scrd.synthesis.perturbation import apply_perturbation, sample_perturbation
from scrd.synthesis.settings import NoiseSettings
from scrd.training.batches import batch_indices

NOISE = NoiseSettings()
"""Six octaves, persistence 0.6, strength 0.2, sides in [10, S/8]: SCRD took RD++'s noise over."""

DISTILLATION_LR = 0.005
"""Adam's rate for bottleneck and student (RD4AD's, which RD++ keeps)."""

PROJECTION_LR = 0.001
"""Adam's rate for the projection layers."""

BETAS = (0.5, 0.999)

PROJECTION_WEIGHT = 0.2
"""Factor of the projection loss beside the distillation loss: the released code's default."""

RECONSTRUCTION_WEIGHT, CONTRAST_WEIGHT = 0.01, 0.1
"""Parts of the projection loss, as in the released code."""

TRANSPORT_WEIGHT = 0.01
"""Part of the projection loss (ours).

RD++ gives the transport weight 1, on features that went through a softmax over the whole map and
so have minute distances. Between features of unit variance, as here, weight 1 would take the
differences between normals out of the deepest projection, and leave the noise in.
"""

PROJECTION_NORM = 1.11
"""What the sum of the parts is divided by: the sum of RD++'s weights."""

MARGIN = 0.5
"""Cosine above which the contrast loss pushes."""

TRANSPORT_POINTS = 64
"""Positions a scale that the transport loss looks at, drawn anew each step (ours)."""

ENTROPY = 0.05
"""ε of the Sinkhorn divergence, for costs of order one (ours)."""

SINKHORN_ROUNDS = 20
"""Updates of each dual potential (ours)."""

SMOOTHING = 4.0
"""Standard deviation, in pixels, of the Gaussian that smooths the map."""


class Projection(nn.Sequential):
    """Four 3x3 convolutions that squeeze C channels to C/4 and open them again.

    (B, C, H, W) to the same shape. Instance normalisation and a leaky ReLU follow each, so that
    no image's projection depends on another's.
    """

    def __init__(self, channels: int) -> None:
        widths = (channels, channels // 2, channels // 4, channels // 2, channels)
        layers: list[nn.Module] = []
        for i, o in zip(widths[:-1], widths[1:], strict=True):
            layers += [nn.Conv2d(i, o, 3, padding=1), nn.InstanceNorm2d(o), nn.LeakyReLU()]
        super().__init__(*layers)


def entropic_transport(a: Tensor, b: Tensor, entropy: float, rounds: int) -> Tensor:
    """Entropic optimal transport between uniform clouds, by Sinkhorn's algorithm in the log domain.

        OT_ε = min_P  <P, C> + ε KL(P | 1/(N M)),   C_ij = |a_i − b_j|² / 2

    The plan is found without gradient: at the optimum the cost's gradient is the plan itself
    (envelope theorem).

    Args:
        a: (B, N, C), float.
        b: (B, M, C), float.
        entropy: ε, in units of the cost, positive.
        rounds: updates of each of the two potentials.

    Returns:
        (B,), float.
    """
    square = a.square().sum(2)[:, :, None] + b.square().sum(2)[:, None, :]
    cost = (square / 2 - a @ b.transpose(1, 2)).clamp_min(0)
    with torch.no_grad():
        scaled = cost / entropy
        log_n, log_m = math.log(a.shape[1]), math.log(b.shape[1])
        g = torch.zeros_like(scaled[:, :1])
        for _ in range(rounds):
            f = log_m - (g - scaled).logsumexp(dim=2, keepdim=True)
            g = log_n - (f - scaled).logsumexp(dim=1, keepdim=True)
        log_ratio = f + g - scaled  # of the plan to the product of its marginals
        plan = (log_ratio - log_n - log_m).exp()
        regulariser = entropy * (plan * log_ratio).sum(dim=(1, 2))
    return (plan * cost).sum(dim=(1, 2)) + regulariser


def transport_loss(projected: Tensor, positions: Tensor) -> Tensor:
    """Self-supervised optimal transport: how far each normal is from the next one of the batch.

    An image is the cloud of its feature vectors, divided by √C, at ``positions``. The debiased
    Sinkhorn divergence is S(a, b) = OT_ε(a, b) − OT_ε(a, a)/2 − OT_ε(b, b)/2; over a whole cycle
    of neighbours the two self terms are one sum.

    Args:
        projected: (B, C, H, W), float, of clean images.
        positions: (P,), int64, in [0, H W).

    Returns:
        Mean over the batch, scalar.
    """
    clouds = projected.flatten(2)[:, :, positions].transpose(1, 2) / math.sqrt(projected.shape[1])
    others = torch.cat([clouds.roll(1, dims=0), clouds])
    across, within = entropic_transport(
        torch.cat([clouds, clouds]), others, ENTROPY, SINKHORN_ROUNDS
    ).chunk(2)
    return (across - within).mean()


def projection_loss(
    noisy: Sequence[Tensor],
    projected: Sequence[Tensor],
    projected_noisy: Sequence[Tensor],
    positions: Sequence[Tensor],
) -> Tensor:
    """Transport, reconstruction and contrast loss, weighted, summed over the scales.

    Reconstruction pulls the projection of the noisy image to that of the clean one; contrast
    pushes the clean projection away from the raw noisy features, max(0, cos − margin). Both take
    the maps as one long vector.

    Args:
        noisy: teacher features z_k of the perturbed images, (B, C_k, H_k, W_k), float.
        projected: projections of u_k, shaped like ``noisy``.
        projected_noisy: projections of z_k, shaped like ``noisy``.
        positions: a scale's positions, see :func:`transport_loss`.

    Returns:
        Mean over the batch, scalar.
    """
    total = noisy[0].new_zeros(())
    for z, clean, cleaned, at in zip(noisy, projected, projected_noisy, positions, strict=True):
        contrast = (1 - flat_distance(z, clean) - MARGIN).clamp_min(0).mean()
        total = (
            total
            + TRANSPORT_WEIGHT * transport_loss(clean, at)
            + RECONSTRUCTION_WEIGHT * flat_distance(cleaned, clean).mean()
            + CONTRAST_WEIGHT * contrast
        )
    return total / PROJECTION_NORM


class RDPP(Baseline):
    """Tien et al., "Revisiting Reverse Distillation for Anomaly Detection" (RD++), CVPR 2023.

    Reverse distillation with one :class:`Projection` a scale between teacher and bottleneck. The
    projections learn, beside the distillation loss 1 − cos(u_k, v_k) of the flattened maps that
    flows back through the bottleneck, to keep normals together (self-supervised optimal
    transport), to take simplex noise away (reconstruction) and to differ from what noise looks
    like (contrast). The student's targets are the teacher's own features, unprojected.

    The map is the plain sum of the scales' distance maps, smoothed; the score is its maximum.

    Departures: the transport is computed between single images (each against its neighbour in
    the batch) over a random sample of positions, because all positions of the finest map would
    need (H W)² costs a pair, with an ε and a weight of its own; gradients are not accumulated
    over two batches; the weight of the projection loss is one for all data.
    """

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget)
        self.teacher = seeded_teacher(budget)
        channels, plan = self.teacher.channels, stage_plan(self.teacher.mirrors)
        with torch.random.fork_rng():
            torch.manual_seed(budget.seed)
            self.projections = nn.ModuleList(Projection(c) for c in channels)
            self.bottleneck = Bottleneck(channels, plan)
            self.student = Student(
                channels, self.bottleneck.out_channels, plan, self.teacher.is_rectified()
            )

    def project(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Project u_1, u_2, u_3, (B, C_k, H_k, W_k) each, to maps of the same shapes."""
        return [p(u) for p, u in zip(self.projections, features, strict=True)]

    def fit(self, images: Tensor) -> None:
        """Train projections, bottleneck and student on the clean and the perturbed images."""
        budget = self.budget
        torch.backends.cudnn.deterministic = True
        self.to(budget.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.train()
        distilled = [*self.bottleneck.parameters(), *self.student.parameters()]
        optimizer = torch.optim.Adam(
            [
                {"params": distilled, "lr": DISTILLATION_LR},
                {"params": list(self.projections.parameters()), "lr": PROJECTION_LR},
            ],
            betas=BETAS,
        )
        generator = torch.Generator().manual_seed(budget.seed)
        features = OncePerImage(lambda some: extract(self.teacher, some, budget.device), images)
        for step in range(budget.iterations):
            index = batch_indices(step, budget.batch_size, len(images), budget.seed)
            image = images[index].to(budget.device).expand(-1, 3, -1, -1)
            size = (image.shape[2], image.shape[3])
            drawn = sample_perturbation(len(image), size, NOISE, generator)
            perturbed, _ = apply_perturbation(image, drawn, NOISE)
            clean, noisy = features(index), extract(self.teacher, perturbed, budget.device)
            both = [torch.cat(pair) for pair in zip(clean, noisy, strict=True)]
            projected, cleaned = zip(*(p.chunk(2) for p in self.project(both)), strict=True)
            positions = [
                torch.randperm(f[0, 0].numel(), generator=generator)[:TRANSPORT_POINTS].to(f.device)
                for f in clean
            ]
            student = self.student(self.bottleneck(projected))
            distances = [flat_distance(u, v) for u, v in zip(clean, student, strict=True)]
            distillation = torch.stack(distances).sum(dim=0).mean()
            loss = distillation + PROJECTION_WEIGHT * projection_loss(
                noisy, projected, cleaned, positions
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        self.eval()

    @torch.no_grad()
    def score(self, images: Tensor) -> Answer:
        """Score by the maximum of the smoothed map, a distance in [0, 6]."""
        self.eval()
        clean = extract(self.teacher, images, self.budget.device)
        student = self.student(self.bottleneck(self.project(clean)))
        distances = [distance_map(u, v) for u, v in zip(clean, student, strict=True)]
        ones = clean[0].new_ones(len(images), len(clean))
        maps = anomaly_map(distances, ones, images.shape[-1])
        maps = gaussian_blur(maps.unsqueeze(1), 33, SMOOTHING).squeeze(1)
        return Answer(maps.flatten(1).amax(dim=1).cpu(), maps.cpu())

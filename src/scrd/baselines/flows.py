"""FastFlow and CFLOW-AD: normalizing flows over teacher features, built by anomalib."""

from __future__ import annotations

import importlib
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scrd.baselines.features import OncePerImage, extract, extract_all, seeded_teacher
from scrd.baselines.method import Answer, Baseline, Budget
from scrd.errors import ScrdError
from scrd.model.backbone import STRIDES
from scrd.system.extras import needs
from scrd.training.batches import batch_indices

FLOW_STEPS = 8
"""Coupling blocks a scale, of FastFlow with convolutional teachers and of CFLOW-AD alike; section
"implementation details" of both papers."""

FASTFLOW_RATE, FASTFLOW_DECAY = 1e-3, 1e-5
"""Learning rate and weight decay of Adam; FastFlow, implementation details."""

CFLOW_RATE = 2e-4
"""Learning rate of Adam; CFLOW-AD, experiments."""

WARM_UP = 0.02
"""Share of the iterations in which CFLOW-AD's rate rises: two of its 100 epochs."""

CONDITION = 128
"""Length of CFLOW-AD's positional encoding."""

CLAMP = 1.9
"""Soft bound on the logarithm of a scaling in CFLOW-AD's coupling blocks, as its authors set it."""

FIBRES = 256
"""Positions behind one step of the optimiser in CFLOW-AD, as its authors set it."""

STEPS = 8
"""Steps of the optimiser a scale, at most, in one iteration of CFLOW-AD, ours."""

REFERENCE_IMAGES = 256
"""Normals, at most, over which CFLOW-AD's greatest likelihood of a scale is taken, ours."""

_CHUNK = 2**14  # fibres scored together


def from_anomalib(module: str) -> Any:
    """Import ``anomalib.<module>``, which nothing else of scrd needs.

    Raises:
        ScrdError: anomalib is not installed, or does not work here.
    """
    try:
        return importlib.import_module(f"anomalib.{module}")
    except ImportError as e:
        raise ScrdError(
            needs(f"this method, built from anomalib, which cannot be imported ({e}),", "anomalib")
        ) from e


class FastFlow(Baseline):
    """FastFlow: Yu, Zheng, Wang, Li, Wu, Zhao, Wu, 2021 (arXiv 2111.07677).

    A 2-D normalizing flow on each scale of the teacher, trained by likelihood. The map is the
    negative likelihood without its constants, −exp(−½ · mean over channels of z²), averaged over
    the scales; its maximum is the score.

    anomalib's model is tied to three backbones of its own, so it is put together here from the
    parts that anomalib makes it of: ``create_fast_flow_block``, ``FastflowLoss``, its map, and a
    trainable LayerNorm over (C_k, H_k, W_k) before each flow, all in the sizes of our teacher's
    features. Kernels alternate between 3 x 3 and 1 x 1, which the paper does with WideResNet-50-2.
    The paper's 500 epochs become the iterations and its batch of 32 the batch of the budget.

    Raises:
        ScrdError: anomalib is not installed.
    """

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget)
        model = from_anomalib("models.image.fastflow.torch_model")
        self.loss = from_anomalib("models.image.fastflow.loss").FastflowLoss()
        size = (budget.image_size, budget.image_size)
        self.map = from_anomalib("models.image.fastflow.anomaly_map").AnomalyMapGenerator(size)
        self.teacher = seeded_teacher(budget)
        shapes = [
            [channels, budget.image_size // stride, budget.image_size // stride]
            for channels, stride in zip(self.teacher.channels, STRIDES, strict=True)
        ]
        self.norms = nn.ModuleList(nn.LayerNorm(shape) for shape in shapes)
        with torch.random.fork_rng():
            torch.manual_seed(budget.seed)
            self.flows = nn.ModuleList(
                model.create_fast_flow_block(
                    shape, conv3x3_only=False, hidden_ratio=1.0, flow_steps=FLOW_STEPS
                )
                for shape in shapes
            )

    def fit(self, images: Tensor) -> None:
        """See the base class."""
        self.to(self.budget.device).train()
        optimizer = torch.optim.Adam(
            [p for p in self.parameters() if p.requires_grad],
            lr=FASTFLOW_RATE,
            weight_decay=FASTFLOW_DECAY,
        )
        device = self.budget.device
        features = OncePerImage(lambda some: extract(self.teacher, some, device), images)
        for step in range(self.budget.iterations):
            index = batch_indices(step, self.budget.batch_size, len(images), self.budget.seed)
            loss = self.loss(*self._encode(features(index)))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        self.eval()

    @torch.no_grad()
    def score(self, images: Tensor) -> Answer:
        """See the base class. Maps and scores are in [−1, 0]."""
        features = extract(self.teacher, images, self.budget.device)
        maps = self.map(self._encode(features)[0]).squeeze(1).cpu()
        return Answer(maps.amax(dim=(1, 2)), maps)

    def _encode(self, features: tuple[Tensor, ...]) -> tuple[list[Tensor], list[Tensor]]:
        """Latents z_k, (B, C_k, H_k, W_k), and logarithms of the Jacobians, (B,), by scale."""
        parts = zip(self.flows, self.norms, features, strict=True)
        latents, jacobians = zip(*(flow(norm(u)) for flow, norm, u in parts), strict=True)
        return list(latents), list(jacobians)


class CFlow(Baseline):
    """CFLOW-AD: Gudovskiy, Ishizaka, Kozuka, WACV 2022.

    On each scale of the teacher, a normalizing flow over the feature vectors of single positions,
    conditioned on a sinusoidal encoding of the position; its loss is −log σ(log p / C_k), taken
    over 256 positions at a time. The map is the negative sum over the scales of the enlarged
    exp(log p / C_k − m_k); its maximum is the score.

    Flows, likelihood and encoding are anomalib's ``cflow_head``, ``get_logp`` and
    ``positional_encoding_2d`` in the sizes of our teacher's features. Its complete model is not
    used: that is tied to a backbone by name, and takes m_k, the greatest log p / C_k, over the
    batch that is scored, as the authors take it over the test set, so that an image's score hangs
    on the others. Here m_k is taken over up to ``REFERENCE_IMAGES`` of the training images.

    Departures: an iteration takes at most ``STEPS`` steps of the optimiser a scale, 24 in all, over
    positions that are drawn anew from those of the batch. The authors pass over every position,
    which for 16 images of 256 pixels is 336 steps, and more work than all else. Their eightfold
    passes over each epoch and their cosine of the learning rate become one cosine over the
    iterations of the budget.

    Raises:
        ScrdError: anomalib is not installed.
    """

    peaks: Tensor

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget)
        self._library = from_anomalib("models.image.cflow.utils")
        self.teacher = seeded_teacher(budget)
        with torch.random.fork_rng():
            torch.manual_seed(budget.seed)
            self.flows = nn.ModuleList(
                self._library.cflow_head(CONDITION, FLOW_STEPS, CLAMP, channels)
                for channels in self.teacher.channels
            )
        self.register_buffer("peaks", torch.zeros(len(self.flows)))

    def fit(self, images: Tensor) -> None:
        """See the base class."""
        budget = self.budget
        self.to(budget.device).train()
        generator = torch.Generator().manual_seed(budget.seed)
        optimizer = torch.optim.Adam([p for p in self.flows.parameters() if p.requires_grad])
        features = OncePerImage(lambda some: extract(self.teacher, some, budget.device), images)
        for step in range(budget.iterations):
            for group in optimizer.param_groups:
                group["lr"] = CFLOW_RATE * rate_factor(step, budget.iterations)
            index = batch_indices(step, budget.batch_size, len(images), budget.seed)
            for flow, u in zip(self.flows, features(index), strict=True):
                fibres, positions = self._fibres(u)
                order = torch.randperm(len(fibres), generator=generator)[: STEPS * FIBRES]
                for part in torch.split(order.to(u.device), FIBRES):
                    loss = -F.logsigmoid(self._density(flow, fibres[part], positions[part])).mean()
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
        self.eval()
        self._set_peaks(images)

    @torch.no_grad()
    def _set_peaks(self, images: Tensor) -> None:
        drawn = batch_indices(0, min(REFERENCE_IMAGES, len(images)), len(images), self.budget.seed)
        batches = extract_all(self.teacher, images[drawn], self.budget.device)
        peaks = [[d.amax() for d in self._densities(features)] for features in batches]
        self.peaks = torch.tensor(peaks, device=self.budget.device).amax(dim=0)

    @torch.no_grad()
    def score(self, images: Tensor) -> Answer:
        """See the base class. Maps and scores are ≤ 0, and seldom under −K, K scales."""
        size = images.shape[-2:]
        batches = []
        for features in extract_all(self.teacher, images, self.budget.device):
            likelihoods = [
                # the corners coincide, as in the authors' and anomalib's maps
                F.interpolate((d - peak).exp(), size, mode="bilinear", align_corners=True)
                for d, peak in zip(self._densities(features), self.peaks, strict=True)
            ]
            batches.append(-torch.stack(likelihoods).sum(dim=0).squeeze(1).cpu())
        maps = torch.cat(batches)
        return Answer(maps.amax(dim=(1, 2)), maps)

    def _densities(self, features: tuple[Tensor, ...]) -> list[Tensor]:
        """Log p / C_k of every position, (B, 1, H_k, W_k), by scale."""
        densities = []
        for flow, u in zip(self.flows, features, strict=True):
            chunks = zip(*(torch.split(x, _CHUNK) for x in self._fibres(u)), strict=True)
            density = torch.cat([self._density(flow, *chunk) for chunk in chunks])
            densities.append(density.view(len(u), 1, *u.shape[-2:]))
        return densities

    def _density(self, flow: nn.Module, fibres: Tensor, positions: Tensor) -> Tensor:
        """Log p / C, (M,), of ``fibres`` (M, C) at ``positions`` (M, ``CONDITION``)."""
        latent, jacobian = flow(fibres, [positions])
        density: Tensor = self._library.get_logp(fibres.shape[1], latent, jacobian)
        return density / fibres.shape[1]

    def _fibres(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Features, (B·H·W, C), and encoded positions, (B·H·W, ``CONDITION``), row by row."""
        encoding = self._library.positional_encoding_2d(CONDITION, *u.shape[-2:])
        positions = encoding.flatten(1).T.to(u.device).repeat(len(u), 1)
        return u.flatten(2).mT.flatten(0, 1).contiguous(), positions


def rate_factor(step: int, iterations: int) -> float:
    """Share of CFLOW-AD's learning rate at a step, from 0: a linear rise, and half a cosine."""
    rise = min(1.0, (step + 1) / max(1, WARM_UP * iterations))
    return rise * 0.5 * (1 + math.cos(math.pi * step / iterations))

"""ReContrast: reverse distillation with an encoder that adapts to the domain."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur

from scrd.baselines.features import OncePerImage, extract, seeded_teacher
from scrd.baselines.method import Answer, Baseline, Budget
from scrd.model.blocks import conv1x1, stage_plan
from scrd.model.bottleneck import Bottleneck
from scrd.model.scores import anomaly_map
from scrd.model.student import Student
from scrd.model.teacher import Teacher
from scrd.objectives.distance import distance_map, flat_distance
from scrd.training.batches import batch_indices

DECODER_LR = 2e-3
"""AdamW's rate for bottleneck and decoder."""

ENCODER_LR = 1e-5
"""AdamW's rate for the trainable encoder."""

BETAS, WEIGHT_DECAY, EPSILON = (0.9, 0.999), 1e-5, 1e-10
"""AdamW's other settings; it runs with AMSGrad."""

HARDNESS_START, HARDNESS_END = -3.0, 1.0
"""α of the hard mining at the first step, and after the warm-up."""

WARM_UP = 0.1
"""Share of the training over which α rises, linearly."""

BATCHNORM_MOMENTUM = 0.1
"""BatchNorm momentum of the trainable encoder: that of the paper's ResNets, for any backbone."""

SMOOTHING = 4.0
"""Standard deviation, in pixels, of the Gaussian that smooths the map."""


def hardness(step: int, iterations: int) -> float:
    """α of a step, from 0: linear from -3 to 1 over the first tenth of the training."""
    progress = min(1.0, step / (WARM_UP * iterations))
    return HARDNESS_START + (HARDNESS_END - HARDNESS_START) * progress


def drop_easy_gradient(target: Tensor, decoded: Tensor, alpha: float) -> Tensor:
    """``decoded`` with its values, and no gradient at the easy positions.

    A position is easy where its cosine distance is below mean + α · standard deviation over all
    positions of the batch. Early on, with α = -3, hardly any is; at the end, with α = 1, most are.

    Args:
        target: encoder features, (B, C, H, W), float.
        decoded: decoder features, shaped like ``target``.
        alpha: α.
    """
    with torch.no_grad():
        distance = distance_map(target, decoded).unsqueeze(1)
        easy = distance < distance.mean() + alpha * distance.std()
    return torch.where(easy, decoded.detach(), decoded)


def hard_mined_distance(
    encoded: Sequence[Tensor], decoded: Sequence[Tensor], alpha: float
) -> Tensor:
    """Σ_k 1 − cos of the flattened maps; no gradient to encoders or at easy positions.

    Args:
        encoded: encoder features, (B, C_k, H_k, W_k), float.
        decoded: decoder features, shaped like ``encoded``.
        alpha: see :func:`drop_easy_gradient`.

    Returns:
        Mean over the batch, scalar, in [0, 2K].
    """
    terms = []
    for e, d in zip(encoded, decoded, strict=True):
        target = e.detach()
        terms.append(flat_distance(target, drop_easy_gradient(target, d, alpha)).mean())
    return torch.stack(terms).sum()


class Encoder(nn.Module):
    """A teacher that is trained, with gradient and with BatchNorm that follows the mode.

    Args:
        teacher: kept its BatchNorm; changed.
    """

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self.trained = teacher
        self.trained.backbone.requires_grad_(True)
        for module in self.trained.backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = BATCHNORM_MOMENTUM

    def train(self, mode: bool = True) -> Encoder:
        """Let the backbone follow the mode, though a teacher stays in eval mode."""
        super().train(mode)
        self.trained.backbone.train(mode)
        return self

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Features of ``image`` (B, 1 or 3, H, W), as the teacher's forward gives them."""
        return self.trained.features(image)


class ReContrast(Baseline):
    """Guo et al., "ReContrast: Domain-Specific Anomaly Detection via Contrastive Reconstruction".

    NeurIPS 2023. The pretrained encoder is there twice, frozen and trainable, and one bottleneck
    and decoder serve both. The pairs are crossed:

    - decoded from the *trainable* encoder's features, first head: against the *frozen* features;
    - decoded from the *frozen* encoder's features, second head: against the *trainable* ones.

    The heads are 1x1 convolutions, two a scale, on the decoder's features. The decoder ends in
    ReLUs where the teacher does: of the few channels of a linear teacher's finest map all can
    die, and a scale that is zero everywhere has a distance of 1 for good.

    No gradient passes through a target, as in SimSiam, so the trainable encoder learns from the
    first pair: as the decoder's input, not as what is to be decoded. (The second pair reaches it
    only through BatchNorm's statistics, which the two halves of the decoder's batch share.) Each
    pair's loss is the global cosine distance with hard mining, and counts one half.

    BatchNorm of the trainable encoder is in training mode during the fit: it normalises by the
    batch, and its running statistics follow, which scoring then uses. The released code holds
    them fixed for some classes of MVTec; here it is one rule for all data.

    The map is the sum of both pairs' distance maps over all scales, smoothed; the score is its
    maximum.
    """

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget)
        self.teacher = seeded_teacher(budget)
        self.encoder = Encoder(seeded_teacher(budget, trainable=True))
        channels, plan = self.teacher.channels, stage_plan(self.teacher.mirrors)
        with torch.random.fork_rng():
            torch.manual_seed(budget.seed)
            self.bottleneck = Bottleneck(channels, plan)
            self.decoder = Student(
                channels, self.bottleneck.out_channels, plan, self.teacher.is_rectified()
            )
            self.to_frozen = nn.ModuleList(conv1x1(c, c) for c in channels)
            self.to_trainable = nn.ModuleList(conv1x1(c, c) for c in channels)

    def pairs(self, image: Tensor, frozen: tuple[Tensor, ...]) -> tuple[list[Tensor], list[Tensor]]:
        """Encode with the trainable encoder and decode both encoders' features.

        Args:
            image: (B, 1 or 3, S, S).
            frozen: the frozen encoder's features of it.

        Returns:
            Targets and their decoded counterparts, six of each, (B, C_k, H_k, W_k): the frozen
            encoder's three scales, then the trainable one's.
        """
        trainable = self.encoder(image)
        fed = [torch.cat(both) for both in zip(trainable, frozen, strict=True)]
        decoded = [d.chunk(2) for d in self.decoder(self.bottleneck(fed))]
        outputs = [h(d[0]) for h, d in zip(self.to_frozen, decoded, strict=True)]
        outputs += [h(d[1]) for h, d in zip(self.to_trainable, decoded, strict=True)]
        return [*frozen, *trainable], outputs

    def fit(self, images: Tensor) -> None:
        """Train the encoder slowly, bottleneck and decoder fast."""
        budget = self.budget
        torch.backends.cudnn.deterministic = True
        self.to(budget.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.train()
        modules = (self.bottleneck, self.decoder, self.to_frozen, self.to_trainable)
        optimizer = torch.optim.AdamW(
            [
                {"params": [p for m in modules for p in m.parameters()], "lr": DECODER_LR},
                {"params": list(self.encoder.parameters()), "lr": ENCODER_LR},
            ],
            betas=BETAS,
            weight_decay=WEIGHT_DECAY,
            eps=EPSILON,
            amsgrad=True,
        )
        frozen = OncePerImage(lambda some: extract(self.teacher, some, budget.device), images)
        for step in range(budget.iterations):
            index = batch_indices(step, budget.batch_size, len(images), budget.seed)
            image = images[index].to(budget.device).contiguous(memory_format=torch.channels_last)
            targets, decoded = self.pairs(image, frozen(index))
            # both pairs' scales in one sum, each pair counting one half
            loss = hard_mined_distance(targets, decoded, hardness(step, budget.iterations)) / 2
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        self.eval()

    @torch.no_grad()
    def score(self, images: Tensor) -> Answer:
        """Score by the maximum of the smoothed map, a distance in [0, 12]."""
        self.eval()
        image = images.to(self.budget.device).contiguous(memory_format=torch.channels_last)
        targets, decoded = self.pairs(image, self.teacher(image))
        distances = [distance_map(t, d) for t, d in zip(targets, decoded, strict=True)]
        ones = targets[0].new_ones(len(images), len(targets))
        maps = anomaly_map(distances, ones, images.shape[-1])
        maps = gaussian_blur(maps.unsqueeze(1), 33, SMOOTHING).squeeze(1)
        return Answer(maps.flatten(1).amax(dim=1).cpu(), maps.cpu())

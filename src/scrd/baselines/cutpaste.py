"""CutPaste: features that tell normal images from ones with a piece of them out of place."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
import torchvision.transforms.functional as TF
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode

from scrd.baselines.mahalanobis import ledoit_wolf
from scrd.baselines.method import Answer, Baseline, Budget
from scrd.model.teacher import build_teacher
from scrd.training.batches import batch_indices
from scrd.training.log import TrainingError

AREA = (0.02, 0.15)
"""Area of a patch as a fraction of the image's (appendix A.2)."""

ASPECTS = ((0.3, 1.0), (1.0, 3.3))
"""Height over width of a patch: one of the two ranges, then uniform within it (appendix A.2)."""

SCAR_WIDTH, SCAR_LENGTH = (2.0, 16.0), (10.0, 25.0)
"""Sides of a scar in pixels of a 256-pixel image (appendix A.2); scaled to other sizes."""

SCAR_ANGLE = 45.0
"""Largest rotation of a scar in degrees, either way (appendix A.2)."""

JITTER = 0.1
"""Largest change of brightness, contrast, saturation and hue (appendix A.2)."""

TRANSLATION = 1 / 32
"""Largest shift of a training image as a fraction of its side; the paper gives no number."""

HEAD_SHARE = 10 / 74
"""Part of the steps that trains the head alone: 10 of 10 + 64 epochs (appendix A.4)."""

HEAD_RATE, BACKBONE_RATE = 0.03, 1e-4
"""Learning rates of the head's part and of the part that trains all (appendix A.4)."""

MOMENTUM, WEIGHT_DECAY = 0.9, 3e-5
"""Momentum of SGD (appendix A.1)."""

HIDDEN = 512
"""Width of the head's hidden layer; the paper gives no number."""


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _position(
    image: Tensor, height: int, width: int, generator: torch.Generator
) -> tuple[int, int]:
    """Top left corner, uniform over all places where the patch lies inside the image."""
    top = int(torch.randint(image.shape[1] - height + 1, (), generator=generator))
    left = int(torch.randint(image.shape[2] - width + 1, (), generator=generator))
    return top, left


def colour_jitter(image: Tensor, generator: torch.Generator) -> Tensor:
    """Change brightness, contrast, saturation and hue, in random order.

    Args:
        image: (C, H, W), float32, in [0, 1], C = 1 or 3; saturation and hue leave C = 1 alone.
        generator: of the CPU.

    Returns:
        The same shape, in [0, 1].
    """
    changes = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation)
    for k in torch.randperm(4, generator=generator).tolist():
        amount = _uniform(-JITTER, JITTER, generator)
        image = TF.adjust_hue(image, amount) if k == 3 else changes[k](image, 1 + amount)
    return image


def cut_paste(image: Tensor, generator: torch.Generator) -> Tensor:
    """Paste a jittered rectangle of the image at another place of it.

    Args:
        image: (C, S, S), float32, in [0, 1].
        generator: of the CPU.

    Returns:
        The changed image, same shape.
    """
    side = image.shape[-1]
    area = _uniform(*AREA, generator) * side * side
    aspect = _uniform(*ASPECTS[int(torch.randint(2, (), generator=generator))], generator)
    height = max(1, round(math.sqrt(area * aspect)))
    width = max(1, round(math.sqrt(area / aspect)))
    top, left = _position(image, height, width, generator)
    patch = colour_jitter(image[:, top : top + height, left : left + width], generator)
    top, left = _position(image, height, width, generator)
    changed = image.clone()
    changed[:, top : top + height, left : left + width] = patch
    return changed


def cut_paste_scar(image: Tensor, generator: torch.Generator) -> Tensor:
    """Paste a jittered, turned, thin rectangle of the image at another place of it.

    Args:
        image: (C, S, S), float32, in [0, 1].
        generator: of the CPU.

    Returns:
        The changed image, same shape.
    """
    scale = image.shape[-1] / 256
    width = max(1, round(scale * _uniform(*SCAR_WIDTH, generator)))
    height = max(1, round(scale * _uniform(*SCAR_LENGTH, generator)))
    top, left = _position(image, height, width, generator)
    patch = colour_jitter(image[:, top : top + height, left : left + width], generator)
    # the rectangle travels as one more channel, so that what turns into view stays unpasted
    stack = torch.cat([patch, torch.ones_like(patch[:1])])
    angle = _uniform(-SCAR_ANGLE, SCAR_ANGLE, generator)
    stack = TF.rotate(stack, angle, InterpolationMode.NEAREST, expand=True)
    patch, inside = stack[:-1], stack[-1] > 0.5
    height, width = inside.shape
    top, left = _position(image, height, width, generator)
    changed = image.clone()
    region = changed[:, top : top + height, left : left + width]
    region.copy_(torch.where(inside, patch, region))
    return changed


def translate(image: Tensor, generator: torch.Generator) -> Tensor:
    """Shift (C, S, S) by up to ``TRANSLATION`` S either way, the border being repeated."""
    pad = round(TRANSLATION * image.shape[-1])
    padded = F.pad(image[None], (pad, pad, pad, pad), mode="replicate")[0]
    height, width = image.shape[1:]
    top, left = _position(padded, height, width, generator)
    return padded[:, top : top + height, left : left + width]


def proxy_batch(images: Tensor, step: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Make the three-way task of a batch: a third of it stays normal, the rest is cut and pasted.

    Args:
        images: (B, C, S, S), float32, in [0, 1], on the CPU.
        step: shifts which image of the batch becomes what.
        generator: of the CPU.

    Returns:
        The images, translated and jittered first, (B, C, S, S); their classes, (B,), int64:
        0 normal, 1 CutPaste, 2 CutPaste-Scar.
    """
    kinds = (torch.arange(len(images)) + step) % 3
    made = []
    for image, kind in zip(images, kinds.tolist(), strict=True):
        normal = colour_jitter(translate(image, generator), generator)
        if kind:
            normal = (cut_paste if kind == 1 else cut_paste_scar)(normal, generator)
        made.append(normal)
    return torch.stack(made), kinds


class CutPaste(Baseline):
    """CutPaste (3-way): a self-supervised representation with a Gaussian on top.

    Li et al., "CutPaste: self-supervised learning for anomaly detection and localization", CVPR
    2021: the variant with a pretrained network (section 4.3, appendix A.4). A copy of the teacher
    learns to tell normal images, images with a rectangle of their own pasted elsewhere
    (CutPaste) and images with a thin, turned one (CutPaste-Scar) apart. First the MLP head is
    trained on the frozen backbone, then everything, each with SGD and one cosine cycle of the
    learning rate. The score is the Mahalanobis distance, the root of the quadratic form of the
    paper's Eq. (2), of the spatially averaged deepest features to those of the (unchanged)
    training images. It is a score of images; there is no map.

    BatchNorm layers of the backbone are frozen as the paper does for a pretrained network: their
    statistics and affine parts stay the teacher's, and the backbone never leaves eval mode. The
    paper's 0.03 is for a network from scratch and for the head; with frozen BatchNorm and batches
    of 16 already 0.01 makes the backbone diverge.

    Departures: the deepest features are the teacher's at stride 16, for all methods here are
    given the same truncated teacher; a step sees ``batch_size`` images of all three classes
    together, so that it costs what other methods' steps cost; the covariance is Ledoit-Wolf's
    instead of the sample's.
    """

    mean: Tensor
    whitening: Tensor

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget)
        with torch.random.fork_rng():
            torch.manual_seed(budget.seed)
            self.teacher = build_teacher(budget.teacher, budget.weights, trainable=True)
            channels = self.teacher.channels[-1]
            self.head = nn.Sequential(
                nn.Linear(channels, HIDDEN, bias=False),
                nn.BatchNorm1d(HIDDEN),
                nn.ReLU(inplace=True),
                nn.Linear(HIDDEN, 3),
            )
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("whitening", torch.eye(channels))

    def represent(self, image: Tensor) -> Tensor:
        """Averaged deepest features (B, C_3) of a batch (B, 1 or 3, S, S), with gradient."""
        return self.teacher.features(image)[-1].mean(dim=(2, 3))

    def _to_device(self, images: Tensor) -> Tensor:
        return images.to(self.budget.device).contiguous(memory_format=torch.channels_last)

    def _train(
        self,
        images: Tensor,
        steps: range,
        parameters: list[nn.Parameter],
        rate: float,
        generator: torch.Generator,
    ) -> None:
        """SGD on the three-way task with one cosine cycle of the learning rate over ``steps``."""
        budget = self.budget
        optimizer = torch.optim.SGD(
            parameters, lr=rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
        )
        for done, step in enumerate(steps):
            optimizer.param_groups[0]["lr"] = (
                rate * 0.5 * (1 + math.cos(math.pi * done / len(steps)))
            )
            index = batch_indices(step, budget.batch_size, len(images), budget.seed)
            batch, kinds = proxy_batch(images[index], step, generator)
            logits = self.head(self.represent(self._to_device(batch)))
            loss = F.cross_entropy(logits, kinds.to(budget.device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    def fit(self, images: Tensor) -> None:
        """Train head, then head and backbone, then estimate the Gaussian.

        Args:
            images: (N, C, S, S), float32, in [0, 1], C = 1 or 3, on the CPU.

        Raises:
            TrainingError: training diverged: the features are not finite.
        """
        iterations = self.budget.iterations
        self.to(self.budget.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        generator = torch.Generator().manual_seed(self.budget.seed)
        head = list(self.head.parameters())
        backbone = [
            p
            for m in self.teacher.backbone.modules()
            if not isinstance(m, nn.modules.batchnorm._BatchNorm)
            for p in m.parameters(recurse=False)
        ]
        head_steps = round(HEAD_SHARE * iterations)
        self.train()
        self._train(images, range(head_steps), head, HEAD_RATE, generator)
        for p in backbone:
            p.requires_grad_(True)
        everything = [*backbone, *head]
        self._train(images, range(head_steps, iterations), everything, BACKBONE_RATE, generator)
        for p in backbone:
            p.requires_grad_(False)
        self.eval()
        with torch.no_grad():
            parts = [
                self.represent(self._to_device(images[i : i + 32])).cpu()
                for i in range(0, len(images), 32)
            ]
        features = torch.cat(parts).double()
        if not features.isfinite().all():
            raise TrainingError("CutPaste diverged: its features are not finite")
        self.mean.copy_(features.mean(dim=0))
        covariance, _ = ledoit_wolf(features)
        self.whitening.copy_(torch.linalg.inv(torch.linalg.cholesky(covariance)).T)

    @torch.inference_mode()
    def score(self, images: Tensor) -> Answer:
        """Score a batch.

        Args:
            images: (B, C, S, S), as in :meth:`fit`.

        Returns:
            Mahalanobis distances, (B,); no maps.
        """
        features = self.represent(self._to_device(images))
        return Answer(((features - self.mean) @ self.whitening).norm(dim=1).cpu(), None)

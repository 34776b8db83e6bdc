"""SQUID: in-paint features from a memory of each place, and let a discriminator judge it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scrd.baselines.inpainting import GRID, InPainting, convolution, from_patches, to_patches
from scrd.baselines.method import Answer, Baseline, Budget
from scrd.training.batches import batch_indices

WIDTHS = (8, 16, 32, 64, 128)
"""Channels at strides 1, 2, 4, 8, 16: a quarter of the authors'."""

MERGED_FROM = 2
"""Halvings above which the decoder sees the patches as one image again."""

SHORTCUT = 0.05
"""Part of the positions at which the masked shortcut passes the features unchanged."""

RECONSTRUCTION, TEACHER, DISTILLATION, GENERATOR, DISCRIMINATOR = 10.0, 0.01, 0.001, 0.005, 0.005
"""Weights of the losses."""

RATE, BETAS, WEIGHT_DECAY = 4e-3, (0.5, 0.999), 1e-5
"""Adam of the generators; see the class for the rate."""

DISCRIMINATOR_RATE = 1e-4
"""Learning rate of the discriminator."""

CRITIC_WIDTHS = (16, 32, 64, 128, 128)
"""Channels of the discriminator at strides 2 to 32."""

_EVALUATED = 32  # images a batch where the normals pass once more


def _twice(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(convolution(before, after, 3), convolution(after, after, 3))


class Decoder(nn.Module):
    """From the features of the patches to the whole image."""

    def __init__(self) -> None:
        super().__init__()
        pairs = zip(WIDTHS[:0:-1], WIDTHS[-2::-1], strict=True)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Upsample(scale_factor=2), _twice(*pair)) for pair in pairs
        )
        self.head = nn.Conv2d(WIDTHS[0], 3, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Image (B, 3, S, S), in [0, 1], and the outputs of all stages."""
        outputs = []
        for k, stage in enumerate(self.stages):
            if len(self.stages) - k == MERGED_FROM:
                features = from_patches(features)
            features = stage(features)
            outputs.append(features)
        return self.head(features).sigmoid(), outputs


def _discriminator(side: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for k, (before, after) in enumerate(zip((3, *CRITIC_WIDTHS), CRITIC_WIDTHS, strict=False)):
        layers.append(nn.Conv2d(before, after, 5, stride=2, padding=2))
        if k:
            layers.append(nn.BatchNorm2d(after))
        layers.append(nn.LeakyReLU(0.2, inplace=True))
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(CRITIC_WIDTHS[-1] * (side // 32) ** 2, 1), nn.Flatten(0)
    )


class SQUID(Baseline):
    """SQUID: space-aware memory queues for in-painting and detecting anomalies.

    Xiang et al., "SQUID: deep feature in-painting for unsupervised anomaly detection", CVPR 2023.
    The image is cut into ``GRID`` by ``GRID`` patches, which an encoder sees one by one. At the
    bottleneck the features of a place are replaced by what that place's queue of past patches
    holds for them (Gumbel shrinkage), and a transformer layer adds what the memories of the
    neighbouring places say; in training a masked shortcut passes some positions. A student
    generator decodes the in-painted features, a teacher generator the encoder's own, of which the
    student's stages are distilled. A discriminator learns to tell images from the student's
    reconstructions. The score is minus its logit for the reconstruction, less the mean and over
    the standard deviation of normals. There is no map.

    Departures: a quarter of the generators' channels; the skip connections with memories of their
    own in the decoder and the binary code of the place, which the authors' code has, are left out;
    inner products with the memory are divided by √D as in attention, for else the softmax is
    nearly one-hot before it is shrunk; generators learn in every step, not in every second, with a
    rate of 4e-3 instead of 1e-4, which the paper pairs with far more steps, without schedule, from
    He's initialisation (after 150 steps of 8 drawn images at 64 pixels the squared error on
    held-out ones is 0.005, with 1e-3 it is 0.025). The paper's sigmoid around the score changes no
    order and would round the most abnormal images to the same 1; it is left out. The statistics are
    those of all normals.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget)
        with torch.random.fork_rng():
            torch.manual_seed(budget.seed)
            stages: list[nn.Module] = [_twice(3, WIDTHS[0])]
            for pair in zip(WIDTHS, WIDTHS[1:], strict=False):
                stages.append(nn.Sequential(nn.MaxPool2d(2), _twice(*pair)))
            self.encoder = nn.Sequential(*stages)
            side = budget.image_size // GRID // 2 ** (len(WIDTHS) - 1)
            self.inpainting = InPainting(WIDTHS[-1], side)
            self.student, self.teacher = Decoder(), Decoder()
            self.discriminator = _discriminator(budget.image_size)
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        self.register_buffer("centre", torch.zeros(()))
        self.register_buffer("spread", torch.ones(()))

    def reconstruct(self, image: Tensor) -> Tensor:
        """The student's reconstruction of a batch (B, 3, S, S), in [0, 1], without the shortcut."""
        inpainted, _ = self.inpainting(self.encoder(to_patches(image)))
        reconstruction: Tensor = self.student(inpainted)[0]
        return reconstruction

    def _train_discriminator(
        self, optimizer: torch.optim.Optimizer, image: Tensor, fake: Tensor
    ) -> None:
        real, made = self.discriminator(image), self.discriminator(fake)
        entropy = F.binary_cross_entropy_with_logits
        loss = entropy(real, torch.ones_like(real)) + entropy(made, torch.zeros_like(made))
        optimizer.zero_grad(set_to_none=True)
        (DISCRIMINATOR * loss).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def fit(self, images: Tensor) -> None:
        """Train for ``budget.iterations`` steps, then measure the logits of the normals.

        Args:
            images: (N, C, S, S), float32, in [0, 1], C = 1 or 3, on the CPU.

        Raises:
            TrainingError: the loss is not finite at the end.
        """
        budget = self.budget
        self.to(budget.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        generators = [self.encoder, self.inpainting, self.student, self.teacher]
        optimizer = torch.optim.Adam(
            [p for module in generators for p in module.parameters()],
            lr=RATE,
            betas=BETAS,
            eps=1e-7,
            weight_decay=WEIGHT_DECAY,
        )
        critic = torch.optim.Adam(
            self.discriminator.parameters(), lr=DISCRIMINATOR_RATE, betas=BETAS
        )
        generator = torch.Generator().manual_seed(budget.seed)
        loss = torch.zeros(())
        self.train()
        for step in range(budget.iterations):
            index = batch_indices(step, budget.batch_size, len(images), budget.seed)
            image = self.rgb(images[index])
            features = self.encoder(to_patches(image))
            inpainted, patches = self.inpainting(features)
            chance = torch.rand(len(features), 1, *features.shape[2:], generator=generator)
            passed = (chance < SHORTCUT).to(features.device)
            student, outputs = self.student(torch.where(passed, features, inpainted))
            # the teacher trains itself, not the encoder, and is not pulled towards the student
            teacher, targets = self.teacher(features.detach())
            self._train_discriminator(critic, image, student.detach())
            verdict = self.discriminator(student)
            stages = [F.mse_loss(s, t.detach()) for s, t in zip(outputs, targets, strict=True)]
            loss = (
                RECONSTRUCTION * F.mse_loss(student, image)
                + TEACHER * F.mse_loss(teacher, image)
                + DISTILLATION * torch.stack(stages).sum()
                + GENERATOR * F.binary_cross_entropy_with_logits(verdict, torch.ones_like(verdict))
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            self.inpainting.memory.push(patches)
        self.eval()
        self.require_finite(loss.detach())
        with torch.no_grad():
            parts = [
                self.discriminator(self.reconstruct(self.rgb(images[i : i + _EVALUATED])))
                for i in range(0, len(images), _EVALUATED)
            ]
        logits = torch.cat(parts)
        self.centre.copy_(logits.mean())
        self.spread.copy_(logits.std(correction=0).clamp_min(1e-12))

    @torch.inference_mode()
    def score(self, images: Tensor) -> Answer:
        """Score a batch.

        Args:
            images: (B, C, S, S), as in :meth:`fit`.

        Returns:
            Standardised logits with their sign turned, (B,); no maps.
        """
        logits = self.discriminator(self.reconstruct(self.rgb(images)))
        return Answer(((self.centre - logits) / self.spread).cpu(), None)

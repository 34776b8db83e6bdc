"""Models of anomalib that the benchmarks of speed measure beside scrd; its extra `anomalib`.

They are built as anomalib builds them, with random weights, which take as long as any. What
anomalib does around a model (reading, its engine, its callbacks) is left out, so that only the
models compare.
"""

from __future__ import annotations

import importlib.util
import time
from typing import Any

import torch
from torch import Tensor, nn

ANOMALIB = importlib.util.find_spec("anomalib") is not None
LAYERS = {
    # timm's names of the stages whose features scrd's teachers give
    "efficientnet_lite0": ("tf_efficientnet_lite0", ("blocks.1", "blocks.2", "blocks.4")),
    "wide_resnet50_2": ("wide_resnet50_2", ("layer1", "layer2", "layer3")),
}
MIRRORED = ("wide_resnet50_2",)
"""Teachers that anomalib's reverse distillation has a decoder for: ResNets alone."""


def reverse_distillation(teacher: str, side: int) -> nn.Module:
    """Build the network of reverse distillation.

    Args:
        teacher: one of :data:`MIRRORED`.
        side: of the images, in pixels.

    Returns:
        A module of images (B, 3, side, side), float32: features in training, then an answer with
        ``pred_score``, B values, and ``anomaly_map`` (B, 1, side, side).
    """
    from anomalib.models.image.reverse_distillation.anomaly_map import AnomalyMapGenerationMode
    from anomalib.models.image.reverse_distillation.torch_model import ReverseDistillationModel

    backbone, layers = LAYERS[teacher]
    mode = AnomalyMapGenerationMode.ADD
    return ReverseDistillationModel(backbone, (side, side), layers, mode, pre_trained=False)


def patchcore(teacher: str, patches: int, images: Tensor) -> nn.Module:
    """Build PatchCore over the two finer stages, with its own settings but for the memory's size.

    Args:
        teacher: a key of :data:`LAYERS`.
        patches: how many it remembers, drawn from those of ``images``.
        images: (N, 3, S, S), float32.

    Returns:
        A module in evaluation mode, whose answer is as :func:`reverse_distillation` says.
    """
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    backbone, layers = LAYERS[teacher]
    model = PatchcoreModel(layers[1:], backbone, pre_trained=False)
    for image in images.split(4):
        model.train()(image)
    remembered = torch.vstack(model.embedding_store)
    model.embedding_store.clear()
    model.memory_bank = remembered[torch.randperm(len(remembered))[:patches]].clone()
    return model.eval()


def train_anomalib(model: Any, images: Tensor, steps: int, batch: int) -> float:
    """Train anomalib's reverse distillation as its Lightning module does: plain Adam, fp32.

    Args:
        model: from :func:`reverse_distillation`, on a device.
        images: (N, 1 or 3, S, S), float32, in [0, 1], on the same.
        steps: how many.
        batch: images of a step.

    Returns:
        Seconds a step.
    """
    from anomalib.models.image.reverse_distillation.loss import ReverseDistillationLoss

    trained = [*model.decoder.parameters(), *model.bottleneck.parameters()]
    optimizer = torch.optim.Adam(trained, lr=0.005, betas=(0.5, 0.99))
    loss_of = ReverseDistillationLoss()
    model.train()
    started = time.perf_counter()
    for _ in range(steps):
        index = torch.randperm(len(images))[:batch]
        loss = loss_of(*model(images[index].expand(-1, 3, -1, -1)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()  # as its log does
    return (time.perf_counter() - started) / steps

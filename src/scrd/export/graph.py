"""The whole way from prepared images to scores as one ONNX graph."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from scrd.export.errors import package
from scrd.model import SCRD
from scrd.model.acquisition import acquisition
from scrd.model.scores import anomaly_map, scale_excess
from scrd.objectives.distance import distance_map

INPUTS = ("images", "content")
STATISTICS = ("excess", "excess_uniform", "excess_plain", "mean", "top", "max")
OUTPUTS = ("maps", "scale_weights", *(f"score_{name}" for name in STATISTICS))

_OPSET = 18


class ScoringGraph(nn.Module):
    """:func:`scrd.model.scores.infer` and its ``statistics``, with no choice left to the data.

    Args:
        model: trained, with the statistics of normals, on the CPU.
    """

    def __init__(self, model: SCRD) -> None:
        super().__init__()
        self.model = model.eval()
        self.weighed_by_image = not model.scale_head.constant

    def forward(self, images: Tensor, content: Tensor) -> tuple[Tensor, ...]:
        """Score a batch.

        Args:
            images: (B, C, S, S), float32, C = 1 or 3, nominally in [0, 1].
            content: (B, S, S), bool; False on letterbox padding.

        Returns:
            ``OUTPUTS``, all float32: maps (B, S, S) in [0, 2], α (B, K), and the score under
            every pooling, (B,) each.
        """
        clean, student, scale_weights = self.model(images)
        found = [distance_map(u, v) for u, v in zip(clean, student, strict=True)]
        alike = torch.full_like(scale_weights, 1 / scale_weights.shape[1])
        shown = scale_weights if self.weighed_by_image else alike
        maps = anomaly_map(found, shown, images.shape[-1])
        plain = scale_excess(self.model, found, content)
        excess = self.model.expected(plain, acquisition(images, content))
        return (
            maps,
            scale_weights,
            (scale_weights * excess).sum(dim=1),
            excess.mean(dim=1),
            plain.mean(dim=1),
            *_map_statistics(maps, content, self.model.constants.top_fraction),
        )


def _map_statistics(
    maps: Tensor, content: Tensor, top_fraction: float
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`scrd.model.scores.map_statistics`, ranking as many pixels whatever the content."""
    area = content.flatten(1).sum(dim=1)
    inside = torch.where(content, maps, torch.zeros_like(maps)).flatten(1)
    ranked = torch.where(content, maps, torch.full_like(maps, -torch.inf)).flatten(1)
    count = (top_fraction * area).long().clamp_min(1)
    most = math.ceil(top_fraction * ranked.shape[1])
    highest = ranked.topk(most, dim=1).values
    taken = torch.arange(most) < count[:, None]
    top = torch.where(taken, highest, torch.zeros_like(highest)).sum(dim=1) / count
    return inside.sum(dim=1) / area, top, highest[:, 0]


def write_onnx(model: SCRD, path: Path, *, channels: int, image_size: int) -> None:
    """Write a model as one ONNX file: any number of images at once, of one size.

    Args:
        model: trained, on the CPU.
        path: the file.
        channels: of the images, 1 or 3.
        image_size: their side S in pixels.

    Raises:
        ExportError: ``onnx`` or ``onnxscript`` is not installed.
    """
    onnx = package("onnx", "export")
    package("onnxscript", "export")
    images = torch.zeros(2, channels, image_size, image_size)
    content = torch.ones(2, image_size, image_size, dtype=torch.bool)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter, about its own insides
        torch.onnx.export(
            ScoringGraph(model).eval(),
            (images, content),
            path,
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_shapes=({0: "batch"}, {0: "batch"}),
            opset_version=_OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    written = onnx.load(path)
    onnx.checker.check_model(written, full_check=True)
    # the exporter fixes an axis without a word where the traced code does
    for value in (*written.graph.input, *written.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch", value.name

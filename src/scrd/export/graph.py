"""The module that scores, as one ONNX graph."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from scrd.export.errors import package
from scrd.model import SCRD
from scrd.model.scores import Scores, infer

INPUTS = ("images", "content")

_OPSET = 18


class _Flat(nn.Module):
    """:class:`scrd.model.scores.Scores`, its results side by side."""

    def __init__(self, model: SCRD) -> None:
        super().__init__()
        self.scores = Scores(model)

    def forward(self, images: Tensor, content: Tensor) -> tuple[Tensor, ...]:
        found = self.scores(images, content)
        return (found.maps, found.scale_weights, *found.statistics.values())


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
    statistics = infer(model.eval(), images, content).statistics
    outputs = ["maps", "scale_weights", *(f"score_{name}" for name in statistics)]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter, about its own insides
        torch.onnx.export(
            _Flat(model.eval()),
            (images, content),
            path,
            input_names=list(INPUTS),
            output_names=outputs,
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

"""From ONNX to OpenVINO, and to eight bits."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scrd.export.errors import package

# what turns features into scores: small differences of large numbers, no place for eight bits
_KEPT = ("Add", "Subtract", "Divide", "Multiply", "Interpolate", "Power", "Sqrt", "MaxPool", "TopK")
_KEPT_REDUCTIONS = ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceL2")


def write_openvino(
    network: Path, path: Path, calibrate: Sequence[tuple[NDArray[np.float32], NDArray[np.bool_]]]
) -> None:
    """Convert an ONNX file to ``path`` (``.xml``) and its weights beside it (``.bin``), in fp32.

    Args:
        network: the ONNX file.
        path: where to write.
        calibrate: images (1, C, S, S) and content (1, S, S) of normals; with any, convolutions
            and matrix products are quantised to eight bits with ranges measured on them.

    Raises:
        ExportError: ``openvino`` or, to quantise, ``nncf`` is not installed.
    """
    openvino = package("openvino", "export")
    model = openvino.Core().read_model(network)
    if calibrate:
        nncf = package("nncf", "export")
        logging.getLogger("nncf").setLevel(logging.ERROR)
        model = nncf.quantize(
            model,
            nncf.Dataset([{"images": x, "content": inside} for x, inside in calibrate]),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(calibrate),
            ignored_scope=nncf.IgnoredScope(types=[*_KEPT, *_KEPT_REDUCTIONS], validate=False),
        )
    openvino.save_model(model, path, compress_to_fp16=False)

"""Exported models that need no training: their map is the picture, and so is known."""

import numpy as np
import onnx
from onnx import TensorProto, helper

from scrd.data.contract import Contract
from scrd.data.intensity import Intensity
from scrd.data.preprocess import Preprocessing
from scrd.export.folder import CALIBRATION, write_index
from scrd.scoring.calibration import Calibration, Level, threshold_at
from scrd.storage.plain import to_plain
from scrd.system.files import write_atomically

SIDE = 64
PICTURES = Contract(units=("display",), files=("picture",))
HEADS = Contract(modalities=("MR",), files=("DICOM", "NIfTI"))


def write_export(folder, contract=PICTURES, *, gain=3.0, scope="data", delay=0):
    """Write an exported folder: the map is ``gain`` times the prepared picture.

    Args:
        folder: to be made.
        contract: which images it knows.
        gain: of the map.
        scope: of the intensity rule.
        delay: matrix products of a side of 512 that each image takes besides, to be slow.
    """
    folder.mkdir(parents=True)
    onnx.save(_graph(gain, delay), folder / "model.onnx")
    scores = tuple(np.linspace(1.0, 2.2, 39).tolist())
    groups = tuple(range(39))
    calibration = Calibration(
        scores=scores,
        groups=groups,
        false_alarm_rate=0.05,
        threshold=threshold_at(scores, groups, 0.05),
        map_threshold=2.2,
        map_scale=(0.0, 3.0),
        pooling="max",
        series=Level(scores, groups, images=8, fewest=8),
        study=Level(scores, groups, images=8, fewest=8),
    )
    write_atomically(folder / CALIBRATION, json_of(to_plain(calibration)))
    intensity = Intensity(0.0, 255.0, 0.0, "grey", scope=scope)
    content = {
        "preprocessing": to_plain(Preprocessing(intensity, SIDE)),
        "contract": to_plain(contract),
    }
    write_index(folder, "onnxruntime", content)
    return folder


def json_of(value):
    import json

    return json.dumps(value)


def _graph(gain, delay):
    def node(kind, inputs, output, **attributes):
        return helper.make_node(kind, inputs, [output], **attributes)

    constants = {
        "gain": np.array(gain, np.float32),
        "across": np.array([1], np.int64),
        "area": np.array([1, 2], np.int64),
        "alpha": np.array([[0.2, 0.5, 0.3]], np.float32),
        "big": np.full((512, 512), 1e-9, np.float32),
        "nothing": np.array(0.0, np.float32),
    }
    nodes = [
        node("ReduceMean", ["images", "across"], "grey", keepdims=0),
        node("Mul", ["grey", "gain"], "bright"),
    ]
    # what hangs on no input would be computed once, when the model is loaded
    nodes += [
        node("ReduceMax", ["bright"], "peak", keepdims=0),
        node("Mul", ["peak", "nothing"], "none"),
        node("Add", ["big", "none"], "start"),
    ]
    slow = "start"
    for i in range(delay):
        nodes.append(node("MatMul", [slow, "big"], f"slow{i}"))
        slow = f"slow{i}"
    nodes += [
        node("ReduceMax", [slow], "spent", keepdims=0),
        node("Mul", ["spent", "nothing"], "zero"),
        node("Add", ["bright", "zero"], "maps"),
        node("ReduceMax", ["maps", "area"], "score_max", keepdims=0),
        node("ReduceMean", ["maps", "area"], "score_mean", keepdims=0),
        node("Identity", ["alpha"], "scale_weights"),
    ]
    square = ["batch", SIDE, SIDE]
    graph = helper.make_graph(
        nodes,
        "known",
        [
            helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 1, SIDE, SIDE]),
            helper.make_tensor_value_info("content", TensorProto.BOOL, square),
        ],
        [
            helper.make_tensor_value_info("maps", TensorProto.FLOAT, square),
            helper.make_tensor_value_info("score_max", TensorProto.FLOAT, ["batch"]),
            helper.make_tensor_value_info("score_mean", TensorProto.FLOAT, ["batch"]),
            helper.make_tensor_value_info("scale_weights", TensorProto.FLOAT, [1, 3]),
        ],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = helper.make_opsetid("", 18)
    return helper.make_model(graph, opset_imports=[opset], ir_version=9)

"""Runs an exported folder: NumPy and one engine, no PyTorch.

Images are run one by one, as many at a time as there are cores, each on one core. Small networks
gain more from that than from sharing the work of one image, and an answer does not depend on the
rest of its batch.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrd.export.errors import ExportError, package
from scrd.export.folder import Exported, read_exported
from scrd.scoring.scorer import Inferred, Scorer
from scrd.system.threads import thread_count

Run = Callable[[NDArray[np.float32], NDArray[np.bool_]], dict[str, NDArray[Any]]]
"""From images (1, C, S, S) and content (1, S, S) to the outputs of the graph by name."""

_STATISTIC = "score_"


class ExportedScorer(Scorer):
    """A detector in an exported folder.

    Attributes:
        fingerprint: SHA-256 of ``export.json``. It is not that of the source model, which
            ``export.json`` names: results of different exports can be told apart.
    """

    def __init__(self, exported: Exported, threads: int | None = None) -> None:
        self.preprocessing = exported.preprocessing
        self.calibration = exported.calibration
        self.contract = exported.contract
        self.fingerprint = exported.fingerprint
        count = thread_count() if threads is None else threads
        self._run = _ENGINES[exported.engine](exported.network, count)
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="scrd-infer")

    @classmethod
    def load(cls, folder: str | Path, *, threads: int | None = None) -> ExportedScorer:
        """Read an exported folder and verify it.

        Args:
            folder: what `scrd export` wrote.
            threads: images that are run at the same time; by default
                :func:`scrd.system.threads.thread_count`.

        Raises:
            ExportError: missing, damaged, of an unknown format, or without its engine.
        """
        return cls(read_exported(Path(folder)), threads)

    def infer(
        self, images: NDArray[np.float32], content: NDArray[np.bool_], *, maps: bool = True
    ) -> Inferred:
        """See :meth:`scrd.scoring.scorer.Scorer.infer`."""
        found = list(self._pool.map(self._run, images[:, None], content[:, None]))
        joined = {name: np.concatenate([one[name] for one in found]) for name in found[0]}
        statistics = {
            name.removeprefix(_STATISTIC): values.astype(np.float64)
            for name, values in joined.items()
            if name.startswith(_STATISTIC)
        }
        found_maps = joined["maps"] if maps else joined["maps"][:0]
        return Inferred(found_maps, statistics, joined["scale_weights"])


def _onnxruntime(network: Path, threads: int) -> Run:
    engine = package("onnxruntime", "runtime")
    options = engine.SessionOptions()
    options.intra_op_num_threads = 1
    # a batch whose size is known lets memory be planned once
    options.add_free_dimension_override_by_name("batch", 1)
    try:
        session = engine.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    except Exception as e:
        raise ExportError(f"{network}: ONNX Runtime cannot load it ({e})") from e
    names = [output.name for output in session.get_outputs()]

    def run(images: NDArray[np.float32], content: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
        found = session.run(None, {"images": images, "content": content})
        return dict(zip(names, found, strict=True))

    return run


def _openvino(network: Path, threads: int) -> Run:
    engine = package("openvino", "runtime")
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": threads,
        "INFERENCE_PRECISION_HINT": "f32",  # else bf16 where the processor has it
    }
    try:
        core = engine.Core()
        model = core.read_model(network)
        model.reshape({i: [1, *list(i.partial_shape)[1:]] for i in model.inputs})
        compiled = core.compile_model(model, "CPU", settings)
    except Exception as e:
        raise ExportError(f"{network}: OpenVINO cannot load it ({e})") from e
    names = [output.get_any_name() for output in compiled.outputs]
    idle: SimpleQueue[Any] = SimpleQueue()
    for _ in range(threads):
        idle.put(compiled.create_infer_request())

    def run(images: NDArray[np.float32], content: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
        request = idle.get()
        try:
            found = request.infer({"images": images, "content": content})
            return {name: found[i].copy() for i, name in enumerate(names)}
        finally:
            idle.put(request)

    return run


_ENGINES: dict[str, Callable[[Path, int], Run]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}

"""How far exports are from their model, on real images: each data set, each way to run it.

    python benchmarks/parity.py DATA...

A model is trained on each data set for some iterations at 256 px, and exported in every way; an
export that the parity gate refuses is measured all the same, and so is OpenVINO in bf16, which
`scrd` does not use. Both run on up to 200 test images. The results go to
`results/performance.jsonl`.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path
from unittest.mock import patch

from record import record

from scoring import CORES, SIDE, bf16_engine
from scrd.config import Config
from scrd.data.manifest import read_manifest
from scrd.detector import Detector
from scrd.export.make import choose, export_model
from scrd.export.parity import Parity, measure
from scrd.export.runtime import ExportedScorer

WAYS = {
    "onnxruntime": {"format": "onnx"},
    "openvino": {"format": "openvino"},
    "openvino-int8": {"format": "openvino", "int8": True},
}


def compare(data: Path, work: Path, teacher: str, iterations: int) -> None:
    """Train, export in every way, and write down how well each agrees."""
    config = Config(teacher=teacher, image_size=SIDE, iterations=iterations)
    detector = Detector.fit(data, config, device="cpu")
    detector.save(work / "model")
    found: dict[str, Parity] = {}
    for way, choice in WAYS.items():
        with patch.object(Parity, "failures", return_value=[]):
            found[way] = export_model(work / "model", work / way, data, **choice)
    compared, _ = choose(read_manifest(data))
    scorer = ExportedScorer.load(work / "openvino")
    scorer._run = bf16_engine(work / "openvino" / "model.xml", CORES)
    found["openvino-bf16"] = measure(detector, scorer, compared)
    for way, parity in found.items():
        values = {key: [value] for key, value in dataclasses.asdict(parity).items()}
        reasons = parity.failures()
        settings = {
            "data": data.name,
            "way": way,
            "teacher": teacher,
            "side": SIDE,
            "iterations": iterations,
        }
        record("parity", settings, {**values, "kept": [int(not reasons)], "reasons": reasons})
        print(f"{data.name}, {way}: {'; '.join(reasons) or 'agrees'}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, nargs="+", help="data sets")
    parser.add_argument("--teacher", default="efficientnet_lite0")
    parser.add_argument("--iterations", type=int, default=300)
    options = parser.parse_args()
    for data in options.data:
        with tempfile.TemporaryDirectory() as work:
            compare(data, Path(work), options.teacher, options.iterations)


if __name__ == "__main__":
    main()

"""How fast and with how much memory images are scored: eager, compiled, exported, and by others.

One command for each teacher prepares a model and its exports, measures, and appends the lines to
`results/performance.jsonl`:

    python benchmarks/scoring.py DATA --teacher efficientnet_lite0
    python benchmarks/scoring.py DATA --teacher wide_resnet50_2 --weights random --images 32

DATA is a data set such as `split.csv` describes. How long training lasted makes no difference to
speed, so that the model is trained for a few steps only. Every way of scoring runs in a process of
its own with all cores, and they take turns, so that whatever else the machine does meets all of
them alike. "files" is from image files to `scores.csv` without heat maps, reading included;
"model" batches of 16 prepared images, the median of five. PatchCore, with the same teacher,
remembers as many patches as it would of a large data set; chosen at random, not well, which changes
neither its time nor its size. "anomalib-patchcore" and "anomalib-rd" are anomalib's own models
behind the same reading and writing, where anomalib is installed; the latter for a ResNet only.
"eager-unreused" is eager with an allocator that maps large blocks afresh, as PyTorch has it where
scrd does not step in (`scrd.system.allocator`). What the parity gate refuses is timed all the same,
and its line says so.

    python benchmarks/scoring.py DATA --cold-start

measures instead how long the command `scrd score` takes for one image, from the start of the
process to its end.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest.mock import patch

import numpy as np

if TYPE_CHECKING:  # what an exported model is scored with imports neither, and its memory tells
    import torch
    from torch import Tensor

    from scrd.detector import Detector
    from scrd.scoring.scorer import Inferred, Scorer

WAYS = (
    "eager",
    "eager-unreused",
    "compiled",
    "onnxruntime",
    "openvino",
    "openvino-bf16",
    "openvino-int8",
    "patchcore",
    "anomalib-patchcore",
    "anomalib-rd",
)
SIDE, BATCH = 256, 16
CORES = os.cpu_count() or 1


def place(source: Path, folder: Path, number: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    os.symlink(source, folder / f"{number:04d}{source.suffix}")


def prepare(work: Path, options: argparse.Namespace) -> None:
    """Lay out images, train a model, and export it; what is there already is kept."""
    from scrd.config import Config
    from scrd.data.manifest import read_manifest
    from scrd.detector import Detector
    from scrd.export.make import export_model
    from scrd.export.parity import Parity

    if not (work / "images").exists():
        manifest = read_manifest(options.data)
        for name, records, count in (
            ("images", manifest.records, options.images),
            ("gate/train/normal", manifest.train_normals, 48),
            ("gate/test", manifest.test, 64),
        ):
            for i in np.linspace(0, len(records) - 1, count).round().astype(int):
                kind = records[i].kind if name == "gate/test" else ""
                place(records[i].path, work / name / kind, i)
    weights = options.weights
    if not (work / "model").exists():
        config = Config(
            teacher=options.teacher,
            weights=weights,
            image_size=SIDE,
            # without ImageNet weights there is nothing to learn, and this objective is quick
            objective="scrd" if weights is None else "rd",
            iterations=40 if weights is None else 2,
            batch_size=4,
            false_alarm_rate=0.2,
        )
        Detector.fit(work / "gate", config, device="cpu").save(work / "model")
    refused: dict[str, str] = {}
    wanted = {way.removesuffix("-bf16") for way in options.ways.split(",")}
    for way in ("onnxruntime", "openvino", "openvino-int8"):
        if way not in wanted or (work / way).exists():
            continue
        choice: dict[str, Any] = {
            "format": "onnx" if way == "onnxruntime" else "openvino",
            "int8": way == "openvino-int8",
        }
        with patch.object(Parity, "failures", return_value=[]):  # kept, to be timed
            parity = export_model(work / "model", work / way, work / "gate", **choice)
        if reasons := parity.failures():
            refused[way] = "; ".join(reasons)
    if refused:
        (work / "refused.json").write_text(json.dumps(refused))


def bf16_engine(network: Path, threads: int) -> Callable[..., dict[str, Any]]:
    """As :func:`scrd.export.runtime._openvino`, in the precision that it does not use."""
    import openvino

    from scrd.export import runtime

    compile_model = openvino.Core.compile_model

    def in_bf16(self: Any, model: Any, device: str, settings: dict[str, Any]) -> Any:
        return compile_model(self, model, device, {**settings, "INFERENCE_PRECISION_HINT": "bf16"})

    with patch.object(openvino.Core, "compile_model", in_bf16):
        return runtime._openvino(network, threads)


def load(work: Path, way: str) -> Any:
    """The scorer, and what it takes on the disk or in tensors, in bytes."""
    if way.startswith(("onnx", "openvino")):
        from scrd.export.runtime import ExportedScorer

        folder = work / way.removesuffix("-bf16")
        scorer = ExportedScorer.load(folder)
        if way == "openvino-bf16":
            scorer._run = bf16_engine(folder / "model.xml", CORES)
        return scorer, sum(f.stat().st_size for f in folder.iterdir())
    import torch

    from scrd.detector import Detector

    torch.set_num_threads(CORES)
    detector = Detector.load(work / "model", device="cpu")
    others = {
        "patchcore": patchcore,
        "anomalib-patchcore": anomalib_patchcore,
        "anomalib-rd": anomalib_rd,
    }
    if way in others:
        return others[way](work, detector)
    size = sum(f.stat().st_size for f in (work / "model").iterdir())
    if way == "compiled":
        detector.model.compile()
    return detector, size


class Answers(NamedTuple):
    """What another model says of a batch: maps (B, S, S) and scores (B,), float32, on the CPU."""

    maps: Tensor
    scores: Tensor


def other_scorer(detector: Detector, answer: Callable[[Tensor], Answers]) -> Scorer:
    """Another model in the place of the detector's, reading and writing as it does."""
    import torch

    from scrd.scoring.scorer import Inferred, Scorer

    class Other(Scorer):
        preprocessing, contract = detector.preprocessing, detector.contract
        calibration, fingerprint = detector.calibration, None

        def infer(self, images: Any, content: Any, maps: bool = True) -> Inferred:
            found = answer(torch.from_numpy(images))
            scores = found.scores.double().numpy()
            pooled = {detector.calibration.pooling: scores}
            return Inferred(found.maps.numpy(), pooled, np.ones((len(scores), 1)))

    return Other()


def some_normals(work: Path, detector: Detector) -> Tensor:
    """A few training images, (16, C, S, S), float32."""
    import torch

    from scrd.data.cache import load_images

    normals = sorted((work / "gate" / "train").rglob("*.*"))[:16]
    loaded = load_images(normals, detector.preprocessing, memory_limit=1 << 30)
    return torch.from_numpy(loaded.images)


def patchcore(work: Path, detector: Detector) -> tuple[Scorer, int]:
    """PatchCore of `scrd bench`."""
    import torch

    from scrd.baselines.features import extract, patch_features
    from scrd.baselines.method import Budget
    from scrd.baselines.patchcore import BANK_LIMIT, PatchCore

    config = detector.config
    method = PatchCore(Budget(config.teacher, config.weights, SIDE)).eval()
    features = extract(method.teacher, some_normals(work, detector), "cpu")
    patches = patch_features(features).flatten(0, 1)
    method.bank = patches[torch.randperm(len(patches))[:BANK_LIMIT]].clone()
    return other_scorer(detector, method.score), bytes_of(method)


def anomalib_patchcore(work: Path, detector: Detector) -> tuple[Scorer, int]:
    import peers

    from scrd.baselines.patchcore import BANK_LIMIT

    images = some_normals(work, detector).expand(-1, 3, -1, -1)
    return anomalib_scorer(detector, peers.patchcore(detector.config.teacher, BANK_LIMIT, images))


def anomalib_rd(work: Path, detector: Detector) -> tuple[Scorer, int]:
    import peers

    return anomalib_scorer(detector, peers.reverse_distillation(detector.config.teacher, SIDE))


def anomalib_scorer(detector: Detector, model: torch.nn.Module) -> tuple[Scorer, int]:
    import torch

    model.eval()

    @torch.inference_mode()
    def answer(images: Tensor) -> Answers:
        found = model(images.expand(-1, 3, -1, -1))
        return Answers(found.anomaly_map[:, 0], found.pred_score.flatten())

    return other_scorer(detector, answer), bytes_of(model)


def bytes_of(model: torch.nn.Module) -> int:
    return sum(t.nbytes for t in model.state_dict().values())


def resident(what: str) -> int:
    """Bytes of memory, ``VmRSS`` now or ``VmHWM`` at the most since that was last forgotten."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(what)))


def serve(work: Path, way: str) -> None:
    """Measure once for every line of standard input; answer with a line of JSON."""
    import scrd.scoring.scorer
    from scrd.data.cache import load_images
    from scrd.data.series import list_sources
    from scrd.outputs.score_folder import Outputs, score_all

    scorer, size = load(work, way)
    if way == "eager-unreused":
        scrd.scoring.scorer.reused_memory = nullcontext
    listing = list_sources([work / "images"])
    paths = [source.path for source in listing.sources[:BATCH]]
    batch = np.array(load_images(paths, scorer.preprocessing, memory_limit=1 << 30).images)
    content = np.ones((len(batch), SIDE, SIDE), bool)
    scorer.infer(batch, content)  # what is done once is not the images'
    for _ in sys.stdin:
        Path("/proc/self/clear_refs").write_text("5")
        alone = []
        with scrd.scoring.scorer.reused_memory():
            for _ in range(5):
                start = time.perf_counter()
                scorer.infer(batch, content)
                alone.append(time.perf_counter() - start)
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as out:
            score_all(scorer, listing, Path(out), Outputs(overlays=False), batch_size=BATCH)
        seconds = time.perf_counter() - start
        answer = {
            "model_images_per_second": len(batch) / statistics.median(alone),
            "files_images_per_second": len(listing.sources) / seconds,
            "peak_bytes": resident("VmHWM:"),
            "bytes_of_model": size,
        }
        print(json.dumps(answer), flush=True)


def measure(work: Path, ways: list[str], repeats: int, teacher: str) -> None:
    """Let all ways take turns, write down what they did, and print it."""
    from peers import ANOMALIB, MIRRORED
    from record import record

    if not ANOMALIB:
        print("anomalib is not installed (`pip install scrd[anomalib]`): its ways are left out")
    ways = [
        way
        for way in ways
        if not way.startswith("anomalib")
        or (ANOMALIB and (way != "anomalib-rd" or teacher in MIRRORED))
    ]
    children = {}
    for way in ways:
        command = [sys.executable, __file__, str(work), "--serve", way]
        child = subprocess.Popen(command, stdin=-1, stdout=-1, text=True)
        children[way] = child
        ask(child)  # loads and warms up, one after the other
    answers = {way: [] for way in ways}
    for _ in range(repeats):
        for way, child in children.items():
            answers[way].append(ask(child))
    for child in children.values():
        child.stdin.close()
        child.wait()
    file = work / "refused.json"
    refused = json.loads(file.read_text()) if file.exists() else {}
    eager = answers[ways[0]]
    for way, found in answers.items():
        values = {key: [one[key] for one in found] for key in found[0]}
        for key in ("model", "files"):
            key += "_images_per_second"
            values[f"{key}_ratio"] = [a[key] / b[key] for a, b in zip(found, eager, strict=True)]
        settings = {
            "teacher": teacher,
            "way": way,
            "ratio_to": ways[0],
            "side": SIDE,
            "batch": BATCH,
            "images": len(list((work / "images").iterdir())),
            "cores": CORES,
            "refused": refused.get(way),
        }
        middle = record("scoring", settings, values)["median"]
        print(
            f"{way:<14} files {middle['files_images_per_second']:7.1f}/s "
            f"({middle['files_images_per_second_ratio']:5.2f}x)  model "
            f"{middle['model_images_per_second']:7.1f}/s "
            f"({middle['model_images_per_second_ratio']:5.2f}x)  peak "
            f"{middle['peak_bytes'] / 1e6:6.0f} MB  model {middle['bytes_of_model'] / 1e6:6.1f} MB",
            flush=True,
        )


def ask(child: subprocess.Popen[str]) -> dict[str, float]:
    child.stdin.write("\n")
    child.stdin.flush()
    return json.loads(child.stdout.readline())


def cold_start(work: Path, repeats: int, teacher: str) -> None:
    from record import record

    image = next((work / "images").iterdir())
    for overlays in ("--no-overlays", "--overlays"):
        values: dict[str, list[float]] = {"onnxruntime": [], "openvino": [], "model": []}
        for i in range(repeats + 1):
            for folder, seconds in values.items():
                with tempfile.TemporaryDirectory() as out:
                    arguments = ["score", str(work / folder), str(image), "--out", out, overlays]
                    start = time.perf_counter()
                    subprocess.run(
                        [sys.executable, "-c", "from scrd.cli import app; app()", *arguments],
                        check=True,
                        capture_output=True,
                    )
                    if i:  # the first one fills the disk's cache
                        seconds.append(time.perf_counter() - start)
        record("cold start", {"teacher": teacher, "side": SIDE, "overlays": overlays}, values)
        medians = {name: round(statistics.median(found), 2) for name, found in values.items()}
        print(f"{overlays}: seconds {medians}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="data set")
    parser.add_argument("--teacher", default="efficientnet_lite0")
    parser.add_argument("--weights", help="of the teacher: a file, or 'random'")
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--ways", default=",".join(WAYS), help="the first is what others are to")
    parser.add_argument("--work", type=Path, help="keep models here for another run")
    parser.add_argument("--cold-start", action="store_true")
    parser.add_argument("--prepare", action="store_true", help="only make what --work keeps")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.data, options.serve)
        return
    with tempfile.TemporaryDirectory() as temporary:
        work = (options.work or Path(temporary)).absolute()
        prepare(work, options)
        if options.cold_start:
            cold_start(work, options.repeats, options.teacher)
        elif not options.prepare:
            measure(work, options.ways.split(","), options.repeats, options.teacher)


if __name__ == "__main__":
    main()

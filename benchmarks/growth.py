"""How time and memory grow with image size, batch size and number of images.

One command measures, appends the lines to `results/performance.jsonl` and draws the figure:

    python benchmarks/growth.py --out docs/performance

Every point is measured in a process of its own on one thread: `efficientnet_lite0`, from files to
`scores.csv` without heat maps, and training steps of the default objective after the first ten.
Time is the processor's, which other programs on the machine hardly change; memory is the process's
peak above what it held before, with the model loaded. `--long` also scores 100,000 images, some
five minutes more; `--draw` draws what was measured last.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from record import RESULTS, record

Sweep = list[dict[str, int]]

SWEEPS: dict[str, Sweep] = {
    "side": [{"side": s, "batch": 8, "images": 24} for s in (64, 128, 192, 256, 384, 512)],
    "batch": [{"side": 128, "batch": b, "images": 64} for b in (1, 2, 4, 8, 16, 32, 64)],
    "images": [{"side": 64, "batch": 64, "images": n} for n in (500, 1000, 2000, 4000, 8000)],
}
LONG = {"side": 64, "batch": 64, "images": 100_000}
REPEATS = 3
STEPS = 30


def resident(peak: bool = False) -> int:
    """Bytes of memory that this process has, or has had at the most since `forget_peak`."""
    wanted = "VmHWM:" if peak else "VmRSS:"
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(wanted)))


def forget_peak() -> int:
    Path("/proc/self/clear_refs").write_text("5")
    return resident()


def make_pictures(folder: Path, side: int, count: int) -> Path:
    """PNG files of smooth noise, 16 different ones under ever new names."""
    from PIL import Image

    rng = np.random.default_rng(side)
    folder.mkdir(parents=True)
    for i in range(count):
        path = folder / f"{i:05d}.png"
        if i < 16:
            coarse = Image.fromarray(rng.integers(0, 256, (9, 9), np.uint8))
            coarse.resize((side, side), Image.Resampling.BICUBIC).save(path)
        else:
            os.link(folder / f"{i % 16:05d}.png", path)
    return folder


def fit_model(work: Path, side: int) -> None:
    from scrd.config import Config
    from scrd.detector import Detector

    config = Config(image_size=side, batch_size=4, iterations=2, false_alarm_rate=0.3)
    pictures = make_pictures(work / f"normals{side}", side, 12)
    Detector.fit(pictures, config, device="cpu").save(work / f"model{side}")


def score(work: Path, side: int, batch: int, images: int) -> dict[str, Any]:
    from scrd.data.series import list_sources
    from scrd.detector import Detector
    from scrd.outputs.score_folder import Outputs, score_all

    pictures = make_pictures(work / "pictures", side, images)
    detector = Detector.load(work / f"model{side}", device="cpu")
    before = forget_peak()
    processor, wall = [], []
    for _ in detector.score(list_sources([pictures]).sources[:batch], batch_size=batch):
        pass  # what is done once is not the images'
    for _ in range(REPEATS if images <= 1000 else 1):
        starts = time.process_time(), time.perf_counter()
        listing = list_sources([pictures])
        score_all(detector, listing, work / "out", Outputs(overlays=False), batch_size=batch)
        processor.append(time.process_time() - starts[0])
        wall.append(time.perf_counter() - starts[1])
    return {
        "seconds": processor,
        "wall_seconds": wall,
        "seconds_per_image": [t / images for t in processor],
        "bytes": resident(peak=True) - before,
        "bytes_in_all": resident(peak=True),
    }


def train_step(side: int, batch: int) -> dict[str, Any]:
    import torch

    from scrd.config import Config
    from scrd.model import build_model
    from scrd.system.devices import make_fabric
    from scrd.training.loop import train

    config = Config(image_size=side, batch_size=batch, iterations=STEPS)
    model = build_model(config.teacher, image_size=side, objective=config.objective)
    images = torch.rand(max(16, batch), 1, side, side)
    before = forget_peak()
    clocks = []
    train(
        model,
        images,
        config,
        fabric=make_fabric("32-true", "cpu"),
        on_log=lambda _: clocks.append((time.process_time(), time.perf_counter())),
    )
    processor, wall = (np.diff([c[i] for c in clocks]) / 10 for i in (0, 1))
    return {
        "seconds": processor.tolist(),
        "wall_seconds": wall.tolist(),
        "seconds_per_image": (processor / batch).tolist(),
        "bytes": resident(peak=True) - before,
        "bytes_in_all": resident(peak=True),
    }


def measure_point(work: Path, what: str, point: dict[str, int]) -> dict[str, Any]:
    """Measure in a new process, whose memory nothing else has touched."""
    arguments = json.dumps({"work": str(work), "what": what, **point})
    command = [sys.executable, __file__, "--point", arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def point_main(arguments: dict[str, Any]) -> None:
    import torch

    torch.set_num_threads(1)
    what, work = arguments.pop("what"), Path(arguments.pop("work"))
    if what == "fit":
        fit_model(work, arguments["side"])
        values: dict[str, Any] = {}
    elif what == "score":
        with tempfile.TemporaryDirectory(dir=work) as own:
            (Path(own) / f"model{arguments['side']}").symlink_to(work / f"model{arguments['side']}")
            values = score(Path(own), **arguments)
    else:
        values = train_step(arguments["side"], arguments["batch"])
    print(json.dumps(values))


def measure_all(results: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for side in sorted({point["side"] for sweep in SWEEPS.values() for point in sweep}):
            measure_point(Path(folder), "fit", {"side": side})
        for sweep, points in SWEEPS.items():
            for what in ("score", "train") if sweep != "images" else ("score",):
                for point in points:
                    if what == "train" and point["batch"] < 2:
                        continue  # BatchNorm needs two
                    values = measure_point(Path(folder), what, point)
                    settings = {"sweep": sweep, "what": what, "threads": 1, **point}
                    line = record("growth", settings, values, results)
                    median = line["median"]["seconds_per_image"]
                    print(f"{settings} {1e3 * median:.1f} ms an image, {values['bytes']:.3g} B")


def last_lines(results: Path) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """The newest line of each point, by sweep and what was measured, in the order of the sweep."""
    newest: dict[tuple[Any, ...], dict[str, Any]] = {}
    for text in results.read_text().splitlines():
        line = json.loads(text)
        if line["name"] == "growth":
            s = line["settings"]
            newest[s["sweep"], s["what"], s[s["sweep"]]] = line
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for key in sorted(newest):
        found.setdefault(key[:2], []).append(newest[key])
    return found


def rates_of_a_gpu(results: Path) -> tuple[list[int], list[float]]:
    """Batches, and images a second of the small teacher's model alone, from `gpu.py`, if any."""
    newest: dict[int, float] = {}
    for text in results.read_text().splitlines():
        line = json.loads(text)
        if line["name"] != "scoring on a GPU" or not line["machine"]["gpu"]:
            continue
        told = line["settings"]
        if (told["teacher"], told["way"]) == ("efficientnet_lite0", "captured, two at a time"):
            newest[told["batch"]] = line["median"]["images_per_second"]
    return sorted(newest), [newest[batch] for batch in sorted(newest)]


def slope(x: list[float], y: list[float]) -> float:
    """Of the least-squares line through log y against log x."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def draw(results: Path, path: Path) -> None:
    """Two rows, time and memory, of three panels, one a sweep, with the slope of each line."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, LogLocator

    from scrd.report.figures import ABNORMAL, NORMAL

    found = last_lines(results)
    columns = {
        "side": ("image side, px", (64, 128, 256, 512)),
        "batch": ("images a batch", (1, 2, 4, 8, 16, 32, 64)),
        "images": ("images in all", (500, 2000, 8000, 100_000)),
    }
    style = {"font.size": 9, "svg.hashsalt": "scrd", "svg.fonttype": "path"}
    with rc_context(style):
        figure = Figure(figsize=(8, 5.6), layout="constrained")
        grid = figure.subplots(2, 3)
        for (sweep, (label, ticks)), (upper, lower) in zip(columns.items(), grid.T, strict=True):
            for what, name, colour, mark in (
                ("score", "scoring", NORMAL, "o"),
                ("train", "training step", ABNORMAL, "s"),
            ):
                lines = found.get((sweep, what), [])
                if not lines:
                    continue
                x = [line["settings"][sweep] for line in lines]
                if sweep == "batch":
                    upwards = [1 / line["median"]["seconds_per_image"] for line in lines]
                else:
                    per = "seconds" if sweep == "images" else "seconds_per_image"
                    unit = 1 if sweep == "images" else 1e3
                    upwards = [unit * line["median"][per] for line in lines]
                mebibytes = [line["values"]["bytes"] / 2**20 for line in lines]
                for axes, y in ((upper, upwards), (lower, mebibytes)):
                    text = f"{name}, slope {slope(x, y):.2f}".replace("-", "−")
                    axes.plot(x, y, f"{mark}-", color=colour, label=text)
            if sweep == "batch" and (gpu := rates_of_a_gpu(results))[0]:
                upper.plot(*gpu, "^-", color="black", label="scoring, GPU, 256 px")
            total = "s in all" if sweep == "images" else "ms an image"
            title = "images a second" if sweep == "batch" else f"processor time, {total}"
            upper.set_title(title, fontsize=10)
            lower.set_title("memory above the start, MiB", fontsize=10)
            lower.set_xlabel(label)
            for axes in (upper, lower):
                axes.set_xscale("log")
                axes.set_yscale("log")
                low, high = axes.get_ylim()
                # room for the legend; and a factor of ten at least, lest noise looks like a trend
                middle, half = (low * high) ** 0.5, max((high / low) ** 0.5, 10**0.5)
                axes.set_ylim(middle / half, middle * half * 4)
                axes.xaxis.set_major_locator(FixedLocator(ticks))
                axes.xaxis.set_major_formatter("{x:,.0f}")
                axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axes.yaxis.set_major_formatter("{x:g}")
                axes.minorticks_off()
                axes.grid(color="#dddddd")
                axes.set_axisbelow(True)
                axes.spines[["top", "right"]].set_visible(False)
                axes.legend(loc="upper left", fontsize=9, frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder for growth.svg")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of the lines")
    parser.add_argument("--long", action="store_true", help="also score 100,000 images")
    parser.add_argument("--draw", action="store_true", help="draw only")
    parser.add_argument("--point", type=json.loads, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.point is not None:
        point_main(chosen.point)
        return
    if chosen.out is None:
        parser.error("--out is required")
    if chosen.long:
        SWEEPS["images"].append(LONG)
    if not chosen.draw:
        measure_all(chosen.results)
    draw(chosen.results, chosen.out / "growth.svg")


if __name__ == "__main__":
    main()

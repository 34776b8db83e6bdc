"""How much faster scrd trains than the step as one writes it down, and where the time goes.

    OMP_NUM_THREADS=2 python benchmarks/training_step.py

Both sides work in turn, each in a process of its own, with the same network and objective on the
same images; see `yardstick.py` for the other side. The time of making noise is left out of the
comparison and shown apart. With one thread it is the processor's time that counts, so that a busy
machine will do. The results go to `results/performance.jsonl`.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import multiprocessing
import statistics
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import torch
from record import record
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from scrd.config import Config
from scrd.model import SCRD, build_model
from scrd.objectives import OBJECTIVES, StepFeatures
from scrd.synthesis.perturbation import apply_perturbation, sample_perturbation
from scrd.system.allocator import reused_memory
from scrd.system.devices import make_fabric
from scrd.training.loop import train

BATCH, SIDE, IMAGES = 16, 256, 32
STEPS = {"efficientnet_lite0": 6, "wide_resnet50_2": 1}


class Variant(NamedTuple):
    """One thing that is timed.

    Attributes:
        side: ``"yardstick"`` or ``"scrd"``.
        objective: its name.
        cached: whether clean features are computed once.
        precision: Fabric's name of it.
    """

    side: str
    objective: str
    cached: bool = False
    precision: str = "32-true"

    def __str__(self) -> str:
        kept = ", cached" if self.cached else ""
        half = ", bf16" if self.precision != "32-true" else ""
        return f"{self.side} {self.objective}{kept}{half}"


VARIANTS = (
    Variant("yardstick", "margin"),
    Variant("scrd", "margin"),
    Variant("scrd", "margin", cached=True),
    Variant("scrd", "margin", cached=True, precision="bf16-mixed"),
    Variant("yardstick", "srd"),
    Variant("scrd", "srd"),
    Variant("scrd", "srd", cached=True),
    Variant("scrd", "srd", cached=True, precision="bf16-mixed"),
)


def network(teacher: str) -> SCRD:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # random weights take as long as any
        weights = "random" if teacher == "wide_resnet50_2" else None
        return build_model(teacher, weights, False, SIDE)


def grey_images() -> Tensor:
    return torch.rand(IMAGES, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def noise_seconds(repeats: int) -> float:
    """Of scrd's noise for one batch."""
    config = Config()
    generator = torch.Generator().manual_seed(0)
    image = grey_images()[:BATCH].expand(-1, 3, -1, -1)

    def make() -> None:
        drawn = sample_perturbation(BATCH, (SIDE, SIDE), config.noise, generator)
        apply_perturbation(image, drawn, config.noise)

    return seconds(make, repeats)


def seconds(function: Callable[[], Any], repeats: int) -> float:
    """The median of some calls after a first one."""
    function()
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def time_variant(model: SCRD, variant: Variant, steps: int) -> tuple[float, float]:
    """Seconds a step without the noise, and of the noise alone."""
    images = grey_images()
    if variant.side == "yardstick":
        from yardstick import train_plainly

        return train_plainly(model, images, variant.objective, steps, BATCH)
    config = Config(
        objective=variant.objective,
        iterations=steps,
        batch_size=BATCH,
        image_size=SIDE,
        learning_rate=1e-3,
        feature_cache_gib=4.0 if variant.cached else 0.0,
    )
    log = train(model, images, config, fabric=make_fabric(variant.precision, "cpu"))
    noise = noise_seconds(5) if OBJECTIVES[variant.objective].contrastive else 0.0
    return BATCH / log[-1].images_per_second - noise, noise


def use_threads(count: int) -> None:
    """Have this process compute with so many, and read the clock that suits them."""
    torch.set_num_threads(count)
    if count == 1:
        time.perf_counter = time.process_time  # what else the machine does shall not count


def worker(pipe: Connection, side: str, teacher: str, threads: int) -> None:
    """Time what is asked for until told to end."""
    use_threads(threads)
    model = network(teacher)
    # a training's first step maps the memory of all others, and a few steps shall speak for many
    with reused_memory() if side == "scrd" else contextlib.nullcontext():
        while (asked := pipe.recv()) is not None:
            pipe.send(time_variant(model, *asked))


def compare(teacher: str, repeats: int, threads: int) -> dict[Variant, list[tuple[float, float]]]:
    """Time every variant, all in turn, ``repeats`` times."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    for side in ("yardstick", "scrd"):
        pipes[side], theirs = context.Pipe()
        context.Process(target=worker, args=(theirs, side, teacher, threads), daemon=True).start()

    def ask(variant: Variant, steps: int) -> tuple[float, float]:
        pipes[variant.side].send((variant, steps))
        return pipes[variant.side].recv()

    found: dict[Variant, list[tuple[float, float]]] = {v: [] for v in VARIANTS}
    for repeat in range(-1, repeats):  # the first warms up
        print(f"{teacher}: {'warming up' if repeat < 0 else f'repeat {repeat + 1}'}", flush=True)
        for variant in VARIANTS:
            timed = ask(variant, 1 if repeat < 0 else STEPS[teacher])
            if repeat >= 0:
                found[variant].append(timed)
    for pipe in pipes.values():
        pipe.send(None)
    return found


def report(teacher: str, threads: int, found: dict[Variant, list[tuple[float, float]]]) -> None:
    settings = {"teacher": teacher, "image_size": SIDE, "batch": BATCH, "threads": threads}
    print(f"\n{teacher}, {SIDE} px, batch {BATCH}, {threads} threads; noise excluded")
    print(f"{'':<30} {'ms a step':>12} {'images/s':>9} {'range':>15} {'noise ms':>9} {'ratio':>7}")
    baselines = {v.objective: times for v, times in found.items() if v.side == "yardstick"}
    for variant, times in found.items():
        rates = sorted(BATCH / step for step, _ in times)
        step = statistics.median(step for step, _ in times)
        noise = statistics.median(noise for _, noise in times)
        against = {
            f"times_yardstick_{objective}": [b[0] / t[0] for b, t in zip(base, times, strict=True)]
            for objective, base in baselines.items()
        }
        ratio = statistics.median(against[f"times_yardstick_{variant.objective}"])
        spread = f"{rates[0]:.2f}-{rates[-1]:.2f}"
        print(
            f"{variant!s:<30} {1e3 * step:12.0f} {statistics.median(rates):9.2f} {spread:>15} "
            f"{1e3 * noise:9.1f} {ratio:7.2f}"
        )
        values = {
            "images_per_second": [BATCH / step for step, _ in times],
            "noise_seconds": [noise for _, noise in times],
            **against,
        }
        record("training step", {**settings, **variant._asdict()}, values)


def flops(function: Callable[[], Any]) -> float:
    with FlopCounterMode(display=False) as counter:
        function()
    return float(counter.get_total_flops())


def peaks() -> dict[str, float]:
    """Floating-point operations a second of what runs fastest, fp32."""
    a, b = torch.rand(4096, 4096), torch.rand(4096, 4096)
    conv = torch.nn.Conv2d(512, 512, 3, padding=1, bias=False).requires_grad_(False)
    conv = conv.to(memory_format=torch.channels_last)
    x = torch.rand(BATCH, 512, 32, 32).contiguous(memory_format=torch.channels_last)
    cases: dict[str, Callable[[], Any]] = {
        "matrix product": lambda: a @ b,
        "3x3 convolution": lambda: conv(x),
    }
    return {name: flops(case) / seconds(case, 7) for name, case in cases.items()}


@reused_memory()
def account(teacher: str, threads: int, repeats: int) -> None:
    """Where the time of a step goes, and how long its arithmetic alone would take."""
    model = network(teacher).to(memory_format=torch.channels_last).train()
    image = grey_images()[:BATCH].contiguous(memory_format=torch.channels_last)
    clean = model.encode(image)
    trained = [p for n, p in model.named_parameters() if not n.startswith("teacher")]
    optimizer = torch.optim.Adam(trained)
    objective = OBJECTIVES["srd"].function

    with torch.no_grad():
        embedding = model.bottleneck(clean)

    def forward() -> Tensor:
        student, alpha, _ = model.reconstruct(clean)
        return objective(StepFeatures(clean, student, (), alpha, None)).mean()

    def both() -> None:
        optimizer.zero_grad(set_to_none=True)
        forward().backward()

    stack = [torch.cat([f, f]).contiguous() for f in clean]
    rows = itertools.cycle(torch.stack([torch.randperm(IMAGES)[:BATCH] for _ in range(8)]))

    def gather() -> None:
        index = next(rows)
        for f in stack:
            f[index].contiguous(memory_format=torch.channels_last)

    peak = peaks()
    parts: dict[str, tuple[Callable[[], Any], bool]] = {
        "teacher": (lambda: model.encode(image), True),
        "bottleneck, forward": (lambda: model.bottleneck(clean), True),
        "student, forward": (lambda: model.student(embedding), True),
        "forward and loss": (forward, True),
        "forward, loss, backward": (both, True),
        "Adam": (optimizer.step, False),
        "cached features of a batch": (gather, False),
    }
    found = ", ".join(f"{name} {speed / 1e9:.0f}" for name, speed in peak.items())
    print(f"\n{teacher}; fp32 peak in GFLOP/s: {found}")
    print(f"{'':<28} {'GFLOP/image':>12} {'ms a step':>10} {'GFLOP/s':>8} {'of peak':>8}")
    values: dict[str, Any] = {f"peak_{k}": v for k, v in peak.items()}
    for name, (function, counted) in parts.items():
        work = flops(function) if counted else 0.0
        took = seconds(function, repeats)
        values[name] = {"flops_per_image": work / BATCH, "seconds_per_step": took}
        speed = work / took
        print(
            f"{name:<28} {work / BATCH / 1e9:12.2f} {1e3 * took:10.1f} {speed / 1e9:8.0f} "
            f"{speed / max(peak.values()):8.0%}"
        )
    noise = noise_seconds(repeats)
    values["noise"] = {"flops_per_image": 0.0, "seconds_per_step": noise}
    print(f"{'noise':<28} {'':>12} {1e3 * noise:10.1f}")
    settings = {"teacher": teacher, "image_size": SIDE, "batch": BATCH, "threads": threads}
    record("training account", settings, values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teacher", choices=[*STEPS, "both"], default="both")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    use_threads(options.threads)
    for teacher in STEPS if options.teacher == "both" else [options.teacher]:
        account(teacher, options.threads, options.repeats)
        found = compare(teacher, options.repeats, options.threads)
        report(teacher, options.threads, found)


if __name__ == "__main__":
    main()

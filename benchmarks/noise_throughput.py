"""How much faster a training batch's noise is made than with the PyPI package `opensimplex`.

One CPU thread, the patches of a batch of 16 images at 256 pixels, three channels, six octaves:

    python benchmarks/noise_throughput.py

`opensimplex` is timed as the method uses it, one array call per image and octave, on exactly the
pixels of each patch; it is pure Python unless numba is installed, and the table says which.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from opensimplex import OpenSimplex

from scrd.synthesis.perturbation import apply_perturbation, sample_perturbation
from scrd.synthesis.settings import NoiseSettings
from scrd.synthesis.simplex import random_permutations, simplex_fields

BATCH, SIDE = 16, 256
SETTINGS = NoiseSettings()


def packaged_fields(sizes: list[tuple[int, int]]) -> None:
    for seed, (height, width) in enumerate(sizes):
        noise = OpenSimplex(seed)
        field = np.zeros((3, height, width))
        for octave in range(SETTINGS.octaves):
            axes = (np.arange(count) / (32 / 2**octave) for count in (width, height, 3))
            field += SETTINGS.persistence**octave * noise.noise3array(*axes)


def median_milliseconds(function: Callable[[], object], repeats: int) -> float:
    function()  # numba compiles, scrd builds its stencil: once per run of a program
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def report(what: str, ours: float, packaged: float) -> None:
    print(f"{what:<44} {ours:9.2f} {packaged:12.1f} {packaged / ours:8.0f}")


def main() -> None:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    image = torch.zeros(BATCH, 3, SIDE, SIDE)
    largest = SETTINGS.side_range(SIDE)[1]

    def make_fields() -> torch.Tensor:
        return simplex_fields(
            random_permutations(BATCH, generator),
            largest,
            largest,
            octaves=SETTINGS.octaves,
            persistence=SETTINGS.persistence,
        )

    def perturb_images() -> None:
        drawn = sample_perturbation(BATCH, (SIDE, SIDE), SETTINGS, generator)
        apply_perturbation(image, drawn, SETTINGS)

    drawn = sample_perturbation(BATCH, (SIDE, SIDE), SETTINGS, generator)
    sampled = list(zip(drawn.height.tolist(), drawn.width.tolist(), strict=True))
    full = [(largest, largest)] * BATCH

    ours = median_milliseconds(make_fields, 50)
    packaged_sampled = median_milliseconds(lambda: packaged_fields(sampled), 3)
    packaged_full = median_milliseconds(lambda: packaged_fields(full), 3)
    start = time.perf_counter()
    simplex_fields(random_permutations(1, generator), 64, 64, octaves=6, persistence=0.6)
    unseen = 1e3 * (time.perf_counter() - start)

    numba = "with" if importlib.util.find_spec("numba") else "without"
    print(f"{BATCH} images, {SIDE} px, 3 channels, {SETTINGS.octaves} octaves, one thread; medians")
    print(f"torch {torch.__version__}, opensimplex {numba} numba\n")
    print(f"{'':<44} {'scrd ms':>9} {'package ms':>12} {'ratio':>8}")
    report("fields of the sampled patches", ours, packaged_sampled)
    report(f"fields of full {largest} x {largest} patches", ours, packaged_full)
    report("draw, fields and adding them to the images", median_milliseconds(perturb_images, 20),
           packaged_sampled)  # fmt: skip
    print(f"\nfirst field of a size not met before (64 x 64, one image): {unseen:.0f} ms")


if __name__ == "__main__":
    main()

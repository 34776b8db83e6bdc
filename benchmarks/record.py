"""One place for the results of the performance benchmarks: a line of JSON for each."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from scrd.bench.machine import device_name, finished, revision
from scrd.system.version import __version__

RESULTS = Path(__file__).parent / "results" / "performance.jsonl"
PACKAGES = ("torch", "timm", "numpy", "onnxruntime", "openvino", "ray")


def record(
    name: str, settings: Mapping[str, Any], values: Mapping[str, Any], path: Path = RESULTS
) -> dict[str, Any]:
    """Append one result.

    Args:
        name: of the benchmark.
        settings: what was measured, plain JSON types.
        values: what came of it, plain JSON types. A list of numbers stands for repeats, and its
            median is written beside it.
        path: results file, made if needed.

    Returns:
        The line as written.
    """
    repeated = {k: v for k, v in values.items() if _is_repeats(v)}
    line = {
        "name": name,
        "settings": dict(settings),
        "values": dict(values),
        "repeats": max((len(v) for v in repeated.values()), default=1),
        "median": {k: statistics.median(v) for k, v in repeated.items()},
        "machine": machine(),
        "versions": versions(),
        "revision": revision(),
        "finished": finished(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        # in one piece: others may append at the same time
        os.write(file, (json.dumps(line) + "\n").encode())
    finally:
        os.close(file)
    return line


def _is_repeats(value: Any) -> bool:
    return isinstance(value, list) and value != [] and all(type(v) in (int, float) for v in value)


def machine() -> dict[str, Any]:
    """Processor, cores and GPU, and how busy the machine has been for a minute."""
    gpu = device_name(torch.device("cuda")) if torch.cuda.is_available() else None
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    cpu = device_name(torch.device("cpu"))
    return {"cpu": cpu, "cores": os.cpu_count(), "gpu": gpu, "load": load}


def versions() -> dict[str, str]:
    """Of Python, of scrd as it is imported, and of those of :data:`PACKAGES` that are installed."""
    found = {"python": platform.python_version(), "scrd": __version__}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found

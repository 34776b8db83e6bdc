"""`rd` and `scrd` at a setting that a CPU finishes: 128 px, 600 iterations, EfficientNet-Lite0.

    python benchmarks/cpu_small.py run DATA [--seed 0 --seed 1 ...]   appends to the results file
    python benchmarks/cpu_small.py table                             prints it as Markdown

DATA holds the folders `brain-tumor-mri`, `isic2018`, `rsna-cxr` and `brain-tumor-boxes`. Every run
is one line of `results/cpu-small.jsonl`; a run that is there already, for the same data, settings
and version, is not repeated, so an interrupted benchmark goes on where it stopped.
"""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

RESULTS = Path(__file__).parent / "results" / "cpu-small.jsonl"
SETS = ("brain-tumor-mri", "isic2018", "rsna-cxr")
OBJECTIVES = ("rd", "scrd")
LOCALISED = {"brain-tumor-mri": "brain-tumor-boxes"}
KEPT = (
    "auroc",
    "auroc_ci95",
    "ap",
    "f1",
    "acc",
    "sensitivity_at_far",
    "false_alarm_rate",
    "sensitivity",
    "auroc_by_pooling",
    "within",
    "confounds",
    "pooling",
    "scale_weights",
    "n_normal",
    "n_abnormal",
    "n_failed",
    "seconds_per_image",
)

app = typer.Typer(add_completion=False)


def lines() -> list[dict[str, Any]]:
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text().splitlines()]


def git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=RESULTS.parent, capture_output=True, text=True, check=True
    ).stdout.strip()


@app.command()
def run(data: Path, seed: Annotated[list[int] | None, typer.Option()] = None) -> None:
    """Run what is missing."""
    from scrd import Config, Detector, __version__
    from scrd.data.manifest import read_manifest

    for s in seed or [0, 1, 2]:
        for objective in OBJECTIVES:
            for name in SETS:
                config = Config(objective=objective, image_size=128, iterations=600, seed=s)
                key = {
                    "data": name,
                    "fingerprint": read_manifest(data / name).fingerprint,
                    "config": json.loads(json.dumps(config.to_dict())),
                    "version": __version__,
                }
                if any(key.items() <= line.items() for line in lines()):
                    continue
                started = time.perf_counter()
                detector = Detector.fit(data / name, config, progress=True)
                seconds = time.perf_counter() - started
                metrics = detector.evaluate(data / name, progress=True).metrics
                line = {
                    **key,
                    "revision": git("rev-parse", "HEAD"),
                    "normals": detector.provenance["normals"],
                    "device": detector.provenance["device"],
                    "versions": detector.provenance["versions"],
                    "fit_seconds": round(seconds, 1),
                    "loss": detector.log[-1].loss,
                    **{k: metrics[k] for k in KEPT},
                }
                if name in LOCALISED:
                    boxes = detector.evaluate(data / LOCALISED[name]).metrics
                    line["localisation"] = boxes["localisation"]
                with RESULTS.open("a") as f:
                    f.write(json.dumps(line) + "\n")


@app.command()
def table() -> None:
    """Print mean and standard deviation over the seeds, in percent."""
    rows = lines()
    print("| data | objective | seeds | AUROC, default pooling | mean | top 2 % | false alarms |")
    print("|---|---|---|---|---|---|---|")
    for name in SETS:
        for objective in OBJECTIVES:
            runs = [r for r in rows if (r["data"], r["config"]["objective"]) == (name, objective)]
            if not runs:
                continue

            def cell(values: list[float]) -> str:
                return f"{100 * np.mean(values):.1f} ± {100 * np.std(values, ddof=1):.1f}"

            low = 100 * np.mean([r["auroc_ci95"][0] for r in runs])
            high = 100 * np.mean([r["auroc_ci95"][1] for r in runs])
            print(
                f"| {name} | `{objective}` | {len(runs)} "
                f"| {cell([r['auroc'] for r in runs])} ({low:.1f} to {high:.1f}) "
                f"| {cell([r['auroc_by_pooling']['mean'] for r in runs])} "
                f"| {cell([r['auroc_by_pooling']['top'] for r in runs])} "
                f"| {cell([r['false_alarm_rate'] for r in runs])} |"
            )
    for objective in OBJECTIVES:
        hits = [
            r["localisation"]["pointing_hit_rate"]
            for r in rows
            if r["config"]["objective"] == objective and "localisation" in r
        ]
        if hits:
            print(
                f"\n{objective}: map's maximum inside the tumour's box in {cell(hits)} % of slices"
            )


if __name__ == "__main__":
    app()

"""The commands. Heavy modules are imported inside each, so that `scrd --help` is quick."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from scrd.commands.bench import app as bench
from scrd.commands.common import (
    BatchSize,
    Data,
    Device,
    Model,
    Out,
    Threads,
    print_counts,
    report_silence,
    report_skipped,
    saying_how_to_go_on,
    try_results,
)
from scrd.commands.dataset import app as dataset
from scrd.commands.monitor import monitor
from scrd.commands.score import score
from scrd.commands.serve import serve, token
from scrd.commands.status import status
from scrd.commands.train import train
from scrd.commands.watch import watch
from scrd.system.console import (
    SKIPPED,
    Commands,
    err,
    flush_streams,
    out,
    refusing,
    steady_streams,
)
from scrd.system.threads import wait_politely

app = typer.Typer(
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Learn what a normal medical image looks like and show what is not. "
    "For research use only; not a medical device.",
)
app.command()(train)
app.command()(score)
app.command()(watch)
app.command()(serve)
app.command()(token)
app.command()(status)
app.command()(monitor)
app.add_typer(bench, name="bench")
app.add_typer(dataset, name="dataset")


def run() -> None:
    """The command `scrd`, on whatever streams it is given."""
    steady_streams()
    wait_politely()
    try:
        app()
    finally:
        flush_streams()


def _version(wanted: bool) -> None:
    if wanted:
        from scrd.system.version import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Learn what a normal medical image looks like and show what is not."""


@app.command()
def check(
    data: Data,
    out_folder: Annotated[Path | None, typer.Option("--out", help="Folder for check.json.")] = None,
    threads: Threads = None,
) -> None:
    """Read every file; name unreadable, odd and duplicate ones, leaks and confounds.

    Exit code 1 when something of the training split is in the test split, a file cannot be read,
    or a mask or box cannot be used.
    """
    from scrd.audit.check import check_dataset
    from scrd.audit.findings import print_report
    from scrd.data.manifest import read_manifest
    from scrd.system.files import try_folder, write_atomically

    path = (out_folder or Path()) / "check.json"
    with refusing():
        try_folder(path.parent)
        manifest = read_manifest(data)
        print_counts(manifest)
        report = check_dataset(manifest, progress=True)
    write_atomically(path, json.dumps(report.to_dict(), indent=1, allow_nan=False))
    print_report(report, out)
    out.print(f"everything is in {path}")
    if report.has_leak or report.unreadable or not all(mark.used for mark in report.marks):
        raise typer.Exit(SKIPPED)


@app.command()
def export(
    model: Model,
    out_folder: Out,
    images: Annotated[Path, typer.Option(help="Data set of real images that both must agree on.")],
    format: Annotated[str, typer.Option(help="onnx or openvino.")] = "onnx",
    int8: Annotated[
        bool, typer.Option("--int8", help="Quantise to eight bits; for openvino.")
    ] = False,
    threads: Threads = None,
) -> None:
    """Write a model for ONNX Runtime or OpenVINO, if it agrees with its source on real images."""
    from scrd.export.make import export_model

    kind: Any = format
    from scrd.system.files import try_folder

    with refusing():
        try_folder(out_folder.absolute().parent)
        parity = export_model(model, out_folder, images, format=kind, int8=int8, progress=True)
    out.print(f"{out_folder}: agrees on {parity.images} images, see card.md")


@app.command(name="eval")
def evaluate(
    model: Model,
    data: Data,
    out_folder: Out,
    batch_size: BatchSize = 16,
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Score the test split against its labels: metrics, scores, figures, report."""
    from scrd.data.manifest import read_manifest
    from scrd.detector import Detector
    from scrd.outputs.eval_folder import write_evaluation
    from scrd.system.progress import counting

    with refusing():
        try_results(out_folder, [data])
        detector = Detector.load(model, device=device)
        manifest = read_manifest(data)
        print_counts(manifest)
        evaluation = detector.evaluate(manifest, batch_size=batch_size, progress=True)
    with counting("drawing the report", None, True):
        run = write_evaluation(out_folder, detector, evaluation)
    _print_metrics(evaluation.metrics)
    out.print(f"report: {out_folder / 'report.html'}")
    for doubt in evaluation.doubts:
        err.print(f"doubtful: {doubt}")
    if evaluation.metrics["n_doubted"]:
        out.print(
            f"{evaluation.metrics['n_doubted']} images are doubtful, see "
            f"{out_folder / 'warnings.csv'}"
        )
    report_silence(detector.calibration)
    report_skipped(evaluation.failures, run.unwritten)


def _print_metrics(metrics: Any) -> None:
    if "auroc" in metrics:
        low, high = metrics["auroc_ci95"]
        out.print(
            f"AUROC {metrics['auroc']:.3f} (95 % {low:.3f} to {high:.3f}), pooling "
            f"{metrics['pooling']}; "
            + ", ".join(f"{k} {v:.3f}" for k, v in metrics["auroc_by_pooling"].items())
        )
    for key in ("false_alarm_rate", "sensitivity"):
        if key in metrics:
            out.print(f"{key.replace('_', ' ')} at the threshold: {metrics[key]:.3f}")
    for key, value in metrics.get("localisation", {}).items():
        out.print(f"{key.replace('_', ' ')}: {value:.3f}")


@app.command()
def demo(
    out_folder: Out = Path("scrd-demo"),
    seed: Annotated[int, typer.Option(help="Of data and training.")] = 0,
    threads: Threads = None,
) -> None:
    """Train and evaluate on slices of the MNI152 template, with simulated lesions."""
    import shutil
    import time

    from scrd.config import Config
    from scrd.datasets.mni152 import make_mni152
    from scrd.detector import Detector
    from scrd.outputs.eval_folder import write_evaluation
    from scrd.system.progress import duration, say

    note = (
        "The lesions of this demonstration are simulated, and all heads are variations of one "
        "template: the figures say that the software works, not how well it finds disease."
    )
    started = time.perf_counter()
    steps = iter(range(1, 5))

    def announce(what: str) -> None:
        at = duration(time.perf_counter() - started)
        say(f"step {next(steps)} of 4, after {at}: {what}")

    work = out_folder / "model.partial"
    config = Config(iterations=300, seed=seed)
    with refusing(), saying_how_to_go_on("the same command goes on"):
        try_results(out_folder, [])
        announce(f"a data set is drawn, {out_folder / 'data'}")
        data = make_mni152(out_folder / "data", seed=seed, progress=True)
        announce(f"a detector is trained on its normal images; log and picture are in {work}")
        detector = Detector.fit(data, config, work=work, resume=True, progress=True)
        detector.save(out_folder / "model", replace=True)
        announce("the test images are scored and compared with their labels")
        evaluation = detector.evaluate(data, progress=True)
        announce("report and heat maps are drawn")
        run = write_evaluation(out_folder, detector, evaluation, notes=[note], overlays=True)
        shutil.rmtree(work)
    _print_metrics(evaluation.metrics)
    out.print(note)
    took = duration(time.perf_counter() - started)
    out.print(f"{took}; open {out_folder / 'report.html'}")
    report_skipped((), run.unwritten)

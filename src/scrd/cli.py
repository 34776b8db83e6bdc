"""The commands. Heavy modules are imported inside each, so that `scrd --help` is quick."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scrd.bench.commands import app as bench
from scrd.console import SKIPPED, err, out, refusing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scrd.data.reading import ImageError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Learn what a normal medical image looks like and show what is not. "
    "For research use only; not a medical device.",
)
app.add_typer(bench, name="bench")

Data = Annotated[Path, typer.Argument(help="Folder of images, folder tree, or split.csv.")]
Model = Annotated[Path, typer.Argument(help="Model folder.")]
Out = Annotated[Path, typer.Option("--out", help="Folder to write to.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Images a batch.")]


def _version(wanted: bool) -> None:
    if wanted:
        from scrd import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Learn what a normal medical image looks like and show what is not."""


def _report_skipped(failures: Sequence[ImageError]) -> None:
    """Name every file that was skipped and end with a code that says so."""
    if failures:
        err.print(f"[bold yellow]{len(failures)} image(s) skipped:[/]")
        for failure in failures:
            err.print(f"  {failure}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(SKIPPED)


@app.command()
def check(
    data: Data,
    out_folder: Annotated[Path | None, typer.Option("--out", help="Folder for check.json.")] = None,
) -> None:
    """Read every file; name unreadable, odd and duplicate ones, leaks and confounds.

    Exit code 1 when something of the training split is in the test split, or a file cannot be
    read.
    """
    from scrd.data.check import check_dataset
    from scrd.data.manifest import read_manifest
    from scrd.report.findings import print_report
    from scrd.storage import write_atomically

    with refusing():
        report = check_dataset(read_manifest(data))
    print_report(report, out)
    path = (out_folder or Path()) / "check.json"
    write_atomically(path, json.dumps(report.to_dict(), indent=1, allow_nan=False))
    out.print(f"everything is in {path}")
    if report.has_leak or report.unreadable:
        raise typer.Exit(SKIPPED)


@app.command()
def train(
    data: Data,
    out_folder: Out,
    teacher: Annotated[str, typer.Option(help="Backbone.")] = "efficientnet_lite0",
    weights: Annotated[
        str | None, typer.Option(help="Teacher weights: a file, or 'random'.")
    ] = None,
    objective: Annotated[
        str, typer.Option(help="rd, ratio, paper, algorithm2, released, margin or scrd.")
    ] = "scrd",
    image_size: Annotated[int, typer.Option(help="Side of the model input in pixels.")] = 256,
    iterations: Annotated[int, typer.Option(min=1, help="Training steps.")] = 4000,
    batch_size: Annotated[int, typer.Option(min=2, help="Images a step.")] = 16,
    learning_rate: Annotated[float, typer.Option(help="Of Adam.")] = 5e-3,
    schedule: Annotated[str, typer.Option(help="Of the learning rate: cosine or constant.")] = (
        "cosine"
    ),
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    resize: Annotated[str, typer.Option(help="stretch or letterbox.")] = "stretch",
    channels: Annotated[str, typer.Option(help="auto, grey or rgb.")] = "auto",
    window: Annotated[
        str, typer.Option(help="image, data, or LOW,HIGH: intensities that become 0 and 1.")
    ] = "image",
    held_out: Annotated[float, typer.Option(help="Share of normals kept from training.")] = 0.25,
    false_alarm_rate: Annotated[
        float, typer.Option("--far", help="Rate of false alarms to calibrate for.")
    ] = 0.05,
    pooling: Annotated[str, typer.Option(help="excess, mean, top or max.")] = "excess",
    acquisition: Annotated[
        str,
        typer.Option(help="Allow for brightness, contrast, sharpness: auto, adjust or ignore."),
    ] = "auto",
    noise: Annotated[str, typer.Option(help="simplex or gaussian.")] = "simplex",
    noise_strength: Annotated[float, typer.Option(help="The paper's lambda.")] = 0.2,
    precision: Annotated[str, typer.Option(help="auto, 32-true, bf16-mixed, ...")] = "auto",
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Iterations.")] = 200,
    device: Device = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on after an interruption.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a model or an interrupted training.")
    ] = False,
) -> None:
    """Train on the normals of the train split and calibrate on held-out ones."""
    import shutil

    from scrd.config import Config
    from scrd.detector import Detector
    from scrd.errors import ConfigError
    from scrd.storage import refuse_if_taken
    from scrd.synthesis.perturbation import NoiseSettings

    out_folder = out_folder.absolute()  # "." has no name
    work = out_folder.with_name(out_folder.name + ".partial")
    choices: dict[str, Any] = {
        "resize": resize,
        "channels": channels,
        "pooling": pooling,
        "acquisition": acquisition,
        "schedule": schedule,
    }
    patch: dict[str, Any] = {"kind": noise, "strength": noise_strength}
    with refusing():
        config = Config(
            teacher=teacher,
            weights=weights,
            objective=objective,
            image_size=image_size,
            iterations=iterations,
            batch_size=batch_size,
            learning_rate=learning_rate,
            seed=seed,
            window=_parse_window(window),
            held_out=held_out,
            false_alarm_rate=false_alarm_rate,
            noise=NoiseSettings(**patch),
            precision=precision,
            checkpoint_every=checkpoint_every,
            **choices,
        )
        refuse_if_taken(out_folder, overwrite)
        if work.exists() and not (resume or overwrite):
            raise ConfigError(
                f"{work}: an interrupted training is here; --resume goes on with it, "
                "--overwrite starts anew"
            )
        detector = Detector.fit(
            data, config, work=work, resume=resume, device=device, progress=True
        )
        detector.save(out_folder, replace=overwrite)
    shutil.rmtree(work)
    calibration = detector.calibration
    out.print(
        f"{out_folder}: trained on {detector.provenance['normals']['trained']} normals, pooling "
        f"{calibration.pooling}, threshold {calibration.threshold:.6g}",
        highlight=False,
    )
    _report_skipped(detector.failures)


def _parse_window(text: str) -> Any:
    from scrd.errors import ConfigError

    if text in ("image", "data"):
        return text
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"--window takes image, data, or LOW,HIGH, two numbers, not {text!r}"
        ) from None
    return low, high


@app.command()
def score(
    model: Model,
    paths: Annotated[list[Path], typer.Argument(help="Image files and folders.")],
    out_folder: Out,
    overlays: Annotated[bool, typer.Option(help="Draw a heat map over each image.")] = True,
    raw_maps: Annotated[bool, typer.Option(help="Write each map as .npy, source size.")] = False,
    batch_size: BatchSize = 16,
    device: Device = "auto",
) -> None:
    """Score images: scores.csv, heat maps, raw maps on request."""
    from scrd.data.reading import ImageError, find_images
    from scrd.detector import Detector, Scored
    from scrd.report.run import output_names, write_overlay, write_raw_map, write_scores

    with refusing():
        files: list[Path] = []
        for path in paths:
            found = find_images(path) if path.is_dir() else [path]
            if not found:
                raise ImageError(path, "no images in this folder")
            files += found
        detector = Detector.load(model, device=device)
    names = output_names(files)
    failures: list[ImageError] = []
    flagged = 0

    def outcomes() -> Iterator[Scored | ImageError]:
        nonlocal flagged
        scored = detector.score(files, batch_size=batch_size, progress=True)
        for name, result in zip(names, scored, strict=True):
            if isinstance(result, ImageError):
                failures.append(result)
            else:
                flagged += result.flag
                if overlays:
                    picture = out_folder / "overlays" / name.with_name(f"{name.name}.jpg")
                    write_overlay(detector, result, picture)
                if raw_maps:
                    raw = out_folder / "maps" / name.with_name(f"{name.name}.npy")
                    write_raw_map(detector, result, raw)
            yield result

    write_scores(out_folder / "scores.csv", [str(f) for f in files], outcomes())
    out.print(f"{len(files)} images, {flagged} flagged: {out_folder / 'scores.csv'}")
    _report_skipped(failures)


@app.command(name="eval")
def evaluate(
    model: Model,
    data: Data,
    out_folder: Out,
    batch_size: BatchSize = 16,
    device: Device = "auto",
) -> None:
    """Score the test split against its labels: metrics, scores, figures, report."""
    from scrd.detector import Detector
    from scrd.report.run import write_evaluation

    with refusing():
        detector = Detector.load(model, device=device)
        evaluation = detector.evaluate(data, batch_size=batch_size, progress=True)
    write_evaluation(out_folder, detector, evaluation)
    _print_metrics(evaluation.metrics)
    out.print(f"report: {out_folder / 'report.html'}")
    _report_skipped(evaluation.failures)


def _print_metrics(metrics: Any) -> None:
    if "auroc" in metrics:
        low, high = metrics["auroc_ci95"]
        out.print(
            f"AUROC {metrics['auroc']:.3f} (95 % {low:.3f} to {high:.3f}), pooling "
            f"{metrics['pooling']}; "
            + ", ".join(f"{k} {v:.3f}" for k, v in metrics["auroc_by_pooling"].items()),
            highlight=False,
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
) -> None:
    """Train and evaluate on slices of the MNI152 template, with simulated lesions."""
    import time

    from scrd.config import Config
    from scrd.datasets.mni152 import make_mni152
    from scrd.detector import Detector
    from scrd.report.run import write_evaluation, write_overlay

    note = (
        "The lesions of this demonstration are simulated, and all heads are variations of one "
        "template: the figures say that the software works, not how well it finds disease."
    )
    started = time.perf_counter()
    with refusing():
        data = make_mni152(out_folder / "data", seed=seed)
        # these lesions are small spots, and known to be: see docs/method.md on poolings
        config = Config(image_size=128, iterations=1500, seed=seed, pooling="top")
        detector = Detector.fit(data, config, progress=True)
    detector.save(out_folder / "model", replace=True)
    evaluation = detector.evaluate(data, progress=True)
    write_evaluation(out_folder, detector, evaluation, notes=[note])
    for scored in evaluation.scored:
        write_overlay(detector, scored, out_folder / "overlays" / f"{scored.path.stem}.jpg")
    _print_metrics(evaluation.metrics)
    out.print(note)
    out.print(f"{time.perf_counter() - started:.0f} s; open {out_folder / 'report.html'}")

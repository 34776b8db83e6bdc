"""The commands. Heavy modules are imported inside each, so that `scrd --help` is quick."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scrd.bench.commands import app as bench
from scrd.console import REFUSED, SKIPPED, err, out, refusing
from scrd.datasets.commands import app as dataset

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
app.add_typer(dataset, name="dataset")

Data = Annotated[Path, typer.Argument(help="Folder of images, folder tree, or split.csv.")]
Model = Annotated[Path, typer.Argument(help="Model folder.")]
Out = Annotated[Path, typer.Option("--out", help="Folder to write to.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Images a batch.")]


# a package that is not there → the extra that brings it
_EXTRAS = {
    **dict.fromkeys(("torch", "timm", "lightning_fabric", "safetensors", "scipy"), "train"),
    "jinja2": "train",
    **dict.fromkeys(("highdicom", "dicomweb_client", "requests"), "dicom"),
    "onnxruntime": "runtime",
    "openvino": "runtime",
    "nilearn": "demo",
    "ray": "ray",
}


def run() -> None:
    """The command `scrd`; names the extra where a package is missing."""
    try:
        app()
    except ModuleNotFoundError as e:
        extra = _EXTRAS.get((e.name or "").split(".")[0])
        if extra is None:
            raise
        err.print(f"error: this needs {e.name}: pip install 'scrd[{extra}]'", markup=False)
        raise SystemExit(REFUSED) from None


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
    from scrd.files import write_atomically
    from scrd.report.findings import print_report

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
        str,
        typer.Option(help="auto, image, series, data, or LOW,HIGH: what becomes 0 and 1."),
    ] = "auto",
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
    from scrd.synthesis.settings import NoiseSettings

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

    if text in ("auto", "image", "series", "data"):
        return text
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"--window takes auto, image, series, data, or LOW,HIGH, two numbers, not {text!r}"
        ) from None
    return low, high


@app.command()
def score(
    model: Model,
    paths: Annotated[
        list[str],
        typer.Argument(help="Images, volumes, folders; or dicomweb://HOST/PATH with --study."),
    ],
    out_folder: Out,
    overlays: Annotated[bool, typer.Option(help="Draw a heat map over each image.")] = True,
    raw_maps: Annotated[
        bool, typer.Option(help="Write the maps: .npy; of even volumes .nii.gz.")
    ] = False,
    dicom_out: Annotated[
        str | None,
        typer.Option(help="DICOM objects to write, with commas: sr, seg, sc, fseg, pm."),
    ] = None,
    study: Annotated[
        str | None, typer.Option(help="Study Instance UID to fetch from dicomweb://.")
    ] = None,
    any_kind: Annotated[
        bool, typer.Option(help="Score also images of another kind than the model's.")
    ] = False,
    batch_size: BatchSize = 16,
    device: Device = "auto",
) -> None:
    """Score images: scores.csv, series.csv, studies.csv, heat maps, DICOM objects on request."""
    from scrd.data.series import list_sources
    from scrd.detector import Detector
    from scrd.report.outputs import Outputs, score_all

    with refusing():
        outputs = Outputs(overlays, raw_maps, _kinds(dicom_out))
        with _fetched(paths, study) as (places, archive):
            listing = list_sources(places)
            detector = Detector.load(model, device=device)
            summary = score_all(
                detector,
                listing,
                out_folder,
                outputs,
                batch_size=batch_size,
                any_kind=any_kind,
                progress=True,
            )
            if archive is not None and summary.objects:
                archive(summary.objects)
                out.print(f"{len(summary.objects)} DICOM objects stored in the archive")
    out.print(f"{summary.images} images, {summary.flagged} flagged: {out_folder / 'scores.csv'}")
    if summary.studies:
        out.print(
            f"{summary.studies} studies, {summary.flagged_studies} flagged: "
            f"{out_folder / 'studies.csv'}"
        )
    if listing.left_out:
        out.print(f"{listing.left_out} DICOM files hold no image and were left out")
    if summary.doubted:
        out.print(f"{summary.doubted} images are doubtful, see {out_folder / 'warnings.csv'}")
    for reason in summary.unwritten:
        err.print(f"[bold yellow]not written:[/] {reason}", soft_wrap=True)
    _report_skipped(summary.failures)


def _kinds(text: str | None) -> tuple[str, ...]:
    """The names between the commas."""
    if not text:
        return ()
    from scrd.dicom.write import check_kinds

    return check_kinds([name.strip() for name in text.split(",") if name.strip()])


@contextmanager
def _fetched(
    paths: Sequence[str], study: str | None
) -> Iterator[tuple[list[Path], Callable[[Sequence[Path]], None] | None]]:
    """Local paths as they are; a study of an archive in a folder that vanishes afterwards."""
    import tempfile

    from scrd.errors import ConfigError

    remote = [path for path in paths if path.startswith(("dicomweb://", "dicomwebs://"))]
    if bool(remote) != (study is not None) or (remote and len(paths) > 1):
        raise ConfigError("one dicomweb:// address and --study go together, and with nothing else")
    if study is None:
        yield [Path(path) for path in paths], None
        return
    from scrd.archive.dicomweb import fetch_study, store

    with tempfile.TemporaryDirectory(prefix="scrd-") as folder:
        fetch_study(remote[0], study, Path(folder))
        yield [Path(folder)], lambda files: store(remote[0], files)


@app.command()
def watch(
    model: Model,
    orthanc: Annotated[str | None, typer.Option(help="Address of an Orthanc.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Folder that files arrive in.")] = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="With --folder: where results go.")
    ] = None,
    state: Annotated[
        Path, typer.Option(help="File that remembers what was done; one a watch.")
    ] = Path("scrd-watch.sqlite"),
    dicom_out: Annotated[
        str, typer.Option(help="DICOM objects to store, with commas: sr, seg, sc, fseg, pm.")
    ] = "sr,seg,sc",
    settle: Annotated[
        float, typer.Option(min=0, help="With --folder: seconds without change that end a study.")
    ] = 10.0,
    poll: Annotated[float, typer.Option(min=0, help="Seconds between two looks.")] = 5.0,
    once: Annotated[bool, typer.Option("--once", help="Do what is there and end.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again what was given up.")
    ] = False,
    batch_size: BatchSize = 16,
    device: Device = "auto",
) -> None:
    """Score every study that arrives in an Orthanc or a folder and store the results back."""
    import logging

    from scrd.archive.folder import Folder
    from scrd.archive.orthanc import Orthanc
    from scrd.archive.state import State
    from scrd.archive.watch import stopping
    from scrd.archive.watch import watch as watch_archive
    from scrd.data.series import list_sources
    from scrd.detector import Detector
    from scrd.errors import ConfigError, ScrdError
    from scrd.report.outputs import Outputs, score_all

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")

    def process(study: Path, _uid: str) -> list[Path]:
        # of a watched folder these are links; results name what they lead to
        listing = list_sources(sorted(path.resolve() for path in study.iterdir()))
        results = study.parent / "results"
        summary = score_all(
            detector, listing, results, Outputs(overlays=False, kinds=kinds), batch_size=batch_size
        )
        for reason in summary.unwritten:
            logging.getLogger("scrd.watch").warning("not written: %s", reason)
        if summary.images == len(summary.failures):
            why = summary.failures[0].reason if summary.failures else "it holds none"
            raise ScrdError(f"none of {summary.images} images could be scored: {why}")
        tables = sorted(results.glob("*.csv")) if folder is not None else []
        return [*summary.objects, *tables]

    with refusing():
        kinds = _kinds(dicom_out)
        if (orthanc is None) == (folder is None):
            raise ConfigError("give either --orthanc or --folder")
        if (folder is None) != (out_folder is None):
            raise ConfigError("--folder needs --out, and --orthanc takes none")
        if orthanc is not None and not kinds:
            raise ConfigError("--dicom-out is empty: there would be nothing to store")
        detector = Detector.load(model, device=device)
        archive: Orthanc | Folder
        if orthanc is not None:
            archive = Orthanc(orthanc)
        else:
            assert folder is not None and out_folder is not None
            archive = Folder(folder, out_folder, settle_seconds=settle)
        assert detector.fingerprint is not None
        with (
            State(state, name=archive.name, model=detector.fingerprint) as known,
            stopping() as stop,
        ):
            if retry_failed:
                known.retry_failed()
            watch_archive(archive, process, known, poll_seconds=poll, once=once, stop=stop)
            counts = known.counts
    out.print(", ".join(f"{n} {status}" for status, n in counts.items()) or "no study")


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
    from scrd.report.outputs import write_overlay
    from scrd.report.run import write_evaluation

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
        name = scored.path.stem
        write_overlay(detector, scored, out_folder / "overlays" / f"{name}.jpg", name)
    _print_metrics(evaluation.metrics)
    out.print(note)
    out.print(f"{time.perf_counter() - started:.0f} s; open {out_folder / 'report.html'}")

"""`scrd train`. Heavy modules are imported inside."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from scrd.commands.common import (
    Data,
    Device,
    Out,
    Threads,
    print_counts,
    report_silence,
    report_skipped,
    saying_how_to_go_on,
)
from scrd.system.console import out, refusing


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
    threads: Threads = None,
    devices: Annotated[
        int, typer.Option(min=1, help="Devices that train together on each machine.")
    ] = 1,
    num_nodes: Annotated[int, typer.Option(min=1, help="Machines that train together.")] = 1,
    logger: Annotated[
        str | None, typer.Option(help="Log also to tensorboard, in MODEL.tensorboard, or mlflow.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after an interruption.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a model or an interrupted training.")
    ] = False,
) -> None:
    """Train on the normals of the train split and calibrate on held-out ones."""
    import shutil

    from scrd.config import Config
    from scrd.data.manifest import read_manifest
    from scrd.detector import Detector
    from scrd.errors import ConfigError
    from scrd.storage.model_folder import refuse_if_taken
    from scrd.synthesis.settings import NoiseSettings
    from scrd.system.devices import is_main_process
    from scrd.system.files import try_folder
    from scrd.training.loggers import make_logger

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
            objective=objective,  # type: ignore[arg-type]
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
        main_process = is_main_process()
        if main_process:
            refuse_if_taken(out_folder, overwrite)
        if main_process:
            try_folder(out_folder.parent)
        if main_process and work.exists() and not (resume or overwrite):
            raise ConfigError(
                f"{work}: an interrupted training is here; --resume goes on with it, "
                "--overwrite starts anew"
            )
        manifest = read_manifest(data, for_training=True)
        if main_process:
            print_counts(manifest)
        place = out_folder.with_name(out_folder.name + ".tensorboard")
        listener = make_logger(logger, out_folder.name, place) if logger else None
        with saying_how_to_go_on("the same command with --resume goes on"):
            detector = Detector.fit(
                manifest,
                config,
                work=work,
                resume=resume,
                device=device,
                devices=devices,
                num_nodes=num_nodes,
                progress=True,
                logger=listener,
            )
        if not main_process:
            return
        detector.save(out_folder, replace=overwrite)
    shutil.rmtree(work)
    calibration = detector.calibration
    out.print(
        f"{out_folder}: trained on {detector.provenance['normals']['trained']} normals, pooling "
        f"{calibration.pooling}, threshold {calibration.threshold:.6g}",
        highlight=False,
    )
    report_silence(calibration)
    report_skipped(detector.failures)


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

"""`scrd train`. Heavy modules are imported inside."""

from __future__ import annotations

from typing import Annotated

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
from scrd.commands.options import with_config
from scrd.config import Config
from scrd.presets.files import Preset
from scrd.system.console import err, out, refusing


@with_config
def train(
    data: Data,
    out_folder: Out,
    config: Config,
    preset: Preset | None,
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

    from scrd.data.manifest import read_manifest
    from scrd.detector import Detector
    from scrd.errors import ConfigError
    from scrd.storage.model_folder import refuse_if_taken
    from scrd.system.devices import is_main_process
    from scrd.system.files import try_folder
    from scrd.training.loggers import make_logger

    out_folder = out_folder.absolute()  # "." has no name
    work = out_folder.with_name(out_folder.name + ".partial")
    with refusing():
        main_process = is_main_process()
        if main_process:
            refuse_if_taken(out_folder, overwrite)
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
                preset=preset,
            )
        if not main_process:
            return
        detector.save(out_folder, replace=overwrite)
    shutil.rmtree(work)
    calibration = detector.calibration
    threshold = (
        f"threshold {calibration.threshold:.6g}" if calibration.calibrated else "no threshold"
    )
    out.print(
        f"{out_folder}: trained on {detector.provenance['normals']['trained']} normals, pooling "
        f"{calibration.pooling}, {threshold}"
    )
    for doubt in detector.provenance["doubtful"]:
        err.print(f"doubtful: {doubt}")
    report_silence(calibration)
    report_skipped(detector.failures)

"""`scrd score`. Heavy modules are imported inside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from scrd.commands.common import (
    BatchSize,
    Device,
    Model,
    Out,
    Threads,
    parse_kinds,
    report_silence,
    report_skipped,
    try_results,
)
from scrd.system.console import out, refusing


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
    engine: Annotated[str, typer.Option(help="local, or ray: on a Ray cluster.")] = "local",
    ray_address: Annotated[
        str | None, typer.Option(help="Of a running cluster, or auto; else one of this machine.")
    ] = None,
    batch_size: BatchSize = 16,
    device: Device = "auto",
    devices: Annotated[int, typer.Option(help="GPUs of this machine that score together.")] = 1,
    threads: Threads = None,
) -> None:
    """Score images: scores.csv, series.csv, studies.csv, heat maps, DICOM objects on request."""
    from functools import partial

    from scrd.cluster.bucket import is_uri, list_places
    from scrd.data.finding import in_words
    from scrd.errors import ConfigError
    from scrd.export.loading import load_scorer
    from scrd.outputs.pictures import Outputs
    from scrd.outputs.score_folder import score_all
    from scrd.system.progress import counting
    from scrd.system.threads import thread_count

    with refusing():
        outputs = Outputs(overlays, raw_maps, parse_kinds(dicom_out))
        if engine not in ("local", "ray"):
            raise ConfigError(f"the engine is local or ray, not {engine!r}")
        if devices != 1 and engine == "ray":
            raise ConfigError("--engine ray takes the devices of its cluster, not --devices")
        if ray_address is not None and engine != "ray":
            raise ConfigError("--ray-address needs --engine ray")
        try_results(out_folder, paths)
        with _fetched(paths, study) as (places, archive):
            if engine == "local" and any(is_uri(place) for place in places):
                raise ConfigError("an address such as s3://BUCKET needs --engine ray")
            with counting("looking for images", None, True):
                listing = list_places(places)
            scorer = load_scorer(model, device, devices if engine == "local" else 1)
            options: dict[str, Any] = {
                "batch_size": batch_size,
                "any_kind": any_kind,
                "progress": True,
            }
            if engine == "ray":
                from scrd.cluster.scoring import ray_results

                load = partial(load_scorer, model.absolute(), device)
                found = ray_results(
                    load,
                    listing.sources,
                    out_folder.absolute(),
                    outputs,
                    address=ray_address,
                    **options,
                )
                with found as results:
                    summary = score_all(
                        scorer, listing, out_folder, outputs, results=results, **options
                    )
            else:
                # a GPU waits for what threads alone can read
                options["processes"] = thread_count() if scorer.together > 1 else 0
                summary = score_all(scorer, listing, out_folder, outputs, **options)
            if archive is not None and summary.objects:
                archive(summary.objects)
                out.print(f"{len(summary.objects)} DICOM objects stored in the archive")
    for what, count, flagged in (
        ("images", summary.images, summary.flagged),
        ("studies", summary.studies, summary.flagged_studies),
    ):
        if count or what == "images":
            told = f", {flagged} flagged" if scorer.calibration.calibrated else ""
            table = "scores.csv" if what == "images" else "studies.csv"
            out.print(f"{count} {what}{told}: {out_folder / table}")
    if listing.left_out:
        out.print(f"{listing.left_out} DICOM files hold no image and were left out")
    if passed_over := in_words(listing.others):
        out.print(passed_over)
    if listing.copies:
        out.print(
            f"{len(listing.copies)} files are copies and were used once, "
            f"see {out_folder / 'warnings.csv'}"
        )
    if summary.doubted:
        out.print(f"{summary.doubted} images are doubtful, see {out_folder / 'warnings.csv'}")
    report_silence(scorer.calibration)
    report_skipped(summary.failures, summary.unwritten)


@contextmanager
def _fetched(
    paths: Sequence[str], study: str | None
) -> Iterator[tuple[Sequence[str], Callable[[Sequence[Path]], None] | None]]:
    """Local paths as they are; a study of an archive in a folder that vanishes afterwards."""
    import tempfile

    from scrd.errors import ConfigError

    remote = [path for path in paths if path.startswith(("dicomweb://", "dicomwebs://"))]
    if bool(remote) != (study is not None) or (remote and len(paths) > 1):
        raise ConfigError("one dicomweb:// address and --study go together, and with nothing else")
    if study is None:
        yield paths, None
        return
    from scrd.archive.dicomweb import fetch_study, store

    with tempfile.TemporaryDirectory(prefix="scrd-") as folder:
        fetch_study(remote[0], study, Path(folder))
        yield [folder], lambda files: store(remote[0], files)

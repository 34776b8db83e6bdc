"""The commands of `scrd dataset`. Heavy modules are imported inside each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scrd.system.console import SKIPPED, err, out, refusing

if TYPE_CHECKING:
    from scrd.datasets.protocol import Prepared

app = typer.Typer(
    no_args_is_help=True,
    help="Make the manifest of the paper's protocol from a data set as it is published.",
)

Source = Annotated[Path, typer.Argument(help="Folder as published; nothing in it is changed.")]
Out = Annotated[Path, typer.Option("--out", help="Folder for split.csv, outside SOURCE.")]
Seed = Annotated[int, typer.Option(help="Of the draw.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a different manifest.")]


@app.command()
def rsna(source: Source, out_folder: Out, seed: Seed = 0, overwrite: Overwrite = False) -> None:
    """RSNA Pneumonia Detection Challenge: 3,851 normals to train on, 1,000 + 1,000 to test."""
    from scrd.datasets.rsna import prepare_rsna

    with refusing():
        prepared = prepare_rsna(source, out_folder, seed=seed, overwrite=overwrite, progress=True)
    _show(prepared)


@app.command(name="brain-tumor")
def brain_tumor(
    source: Source,
    out_folder: Out,
    seed: Seed = 0,
    split: Annotated[
        str, typer.Option(help="groups, or paper: image by image, copies in both splits.")
    ] = "groups",
    overwrite: Overwrite = False,
) -> None:
    """Kaggle's Brain Tumor MRI Dataset: 1,000 normals to train on, 600 + 600 to test."""
    from scrd.datasets.brain_tumor import prepare_brain_tumor

    with refusing():
        prepared = prepare_brain_tumor(
            source,
            out_folder,
            seed=seed,
            split=split,
            overwrite=overwrite,
            progress=True,
        )
    _show(prepared)


@app.command()
def isic2018(source: Source, out_folder: Out, seed: Seed = 0, overwrite: Overwrite = False) -> None:
    """ISIC 2018, task 3: 6,705 naevi to train on, 909 naevi + 603 others to test."""
    from scrd.datasets.isic2018 import prepare_isic2018

    with refusing():
        prepared = prepare_isic2018(
            source, out_folder, seed=seed, overwrite=overwrite, progress=True
        )
    _show(prepared)


def _show(prepared: Prepared) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("split", "class", "label", "images", "wanted", "groups")
    for part in prepared.parts:
        classes = ", ".join(f"{kind} {count:,}" for kind, count in part.classes.items())
        numbers = (f"{number:,}" for number in (part.images, part.wanted, part.groups))
        table.add_row(part.split, Text(classes), str(part.label), *numbers)
    out.print(table)
    for note in prepared.notes:
        out.print(note)
    out.print(f"manifest: {prepared.folder / 'split.csv'}")
    if prepared.unreadable:
        for name, reason in prepared.unreadable.items():
            err.print(f"  {name}: {reason}")
        raise typer.Exit(SKIPPED)

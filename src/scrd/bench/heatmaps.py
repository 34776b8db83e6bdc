"""The figure of heat maps: the same cases under every method, by one colour rule."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scrd.bench.figures import Figure
from scrd.bench.found import Found
from scrd.bench.kept_maps import Pictures, read_maps, read_pictures
from scrd.report.figures import svg_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

HOTTEST = 4.0
"""Rarity at the end of the colour scale: one pixel of normals in 10,000."""
_OUTLINE = "#56b4e9"


class Column(NamedTuple):
    """One case: its picture, its lesions, and the map of each row that has one."""

    data: str
    image: NDArray[np.uint8]
    marks: NDArray[np.bool_]
    maps: dict[str, NDArray[np.float16]]


def heatmaps(found: Found, folders: Sequence[Path]) -> tuple[Figure | None, str]:
    """Draw the maps of the first seed of each row, as far as they were kept.

    Args:
        found: the runs.
        folders: of kept maps, see :func:`scrd.bench.kept_maps.maps_folder`.

    Returns:
        The figure, and a sentence about what is not in it, or empty. Without any map there is no
        figure, and the sentence says why.

    Raises:
        ResultsError: a file of maps is damaged.
    """
    columns: list[Column] = []
    absent = []
    by_name = []
    for data in found.sets:
        pictures, maps = _of_set(found, data, folders)
        if pictures is None or not maps:
            absent.append(data)
            continue
        if not pictures.by_size:
            by_name.append(data)
        for i, (image, marks) in enumerate(zip(pictures.images, pictures.marks, strict=True)):
            columns.append(Column(data, image, marks, {k: v[i] for k, v in maps.items()}))
    if not columns:
        return None, (
            "The figure of heat maps is left out: no maps lie beside the results file. "
            "`scrd bench run` keeps them there, in a folder of the same name that ends in `.maps`."
        )
    shown = [row.label for row in found.rows() if any(row.label in c.maps for c in columns)]
    gone = [row.label for row in found.rows() if row.label not in shown]
    told = [f"no maps were kept of {', '.join(absent)}"] if absent else []
    told += [f"no maps of {', '.join(gone)}"] if gone else []
    figure = Figure("heatmaps", _caption(by_name), _drawn(columns, shown))
    return figure, f"Not in the figure: {'; '.join(told)}." if told else ""


def _of_set(
    found: Found, data: str, folders: Sequence[Path]
) -> tuple[Pictures | None, dict[str, list[NDArray[np.float16]]]]:
    """The cases of a data set, and label → their maps; all of the same content of the set."""
    pictures: Pictures | None = None
    maps: dict[str, list[NDArray[np.float16]]] = {}
    content = None
    for row in found.rows():
        for line in found.runs.get((row.label, data), {}).values():
            key = line["key"]
            if content not in (None, key["fingerprint"]):
                continue
            kept = next((m for f in folders if (m := read_maps(f, key)) is not None), None)
            if kept is None:
                continue
            if pictures is None:
                pictures = next((p for f in folders if (p := read_pictures(f, key))), None)
            if pictures is not None and len(kept) == len(pictures.images):
                maps[row.label], content = kept, key["fingerprint"]
                break
    return pictures, maps


def _caption(by_name: Sequence[str]) -> str:
    exception = f" (of {', '.join(by_name)}, whose lesions are not marked, of the file names)"
    return (
        "Heat maps of the first seed. The cases stand at the quartiles of lesion size among the "
        f"abnormal test images{exception if by_name else ''}, chosen before any score. One colour "
        "rule for all: a pixel is as bright as its value is rare among the pixels of the same "
        "method's maps of all normal test images, from black, where every one of them is as high, "
        "to the brightest, where one in 10,000 is or fewer. Blue: the mask or box."
    )


def _drawn(columns: Sequence[Column], labels: Sequence[str]) -> str:
    names = ["image", "mask or box", *labels]

    def fill(canvas: Canvas) -> None:
        canvas.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
        grid = canvas.subplots(len(names), len(columns), squeeze=False)
        for axes in grid.flat:
            axes.set(xticks=[], yticks=[])
            axes.grid(False)
            for side in ("top", "bottom", "left", "right"):
                axes.spines[side].set_visible(False)
        for i, name in enumerate(names):
            grid[i, 0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        drawn = None
        for j, column in enumerate(columns):
            if j == 0 or columns[j - 1].data != column.data:
                grid[0, j].set_title(column.data, fontsize=9, loc="left")
            for axes in grid[:2, j]:
                axes.imshow(column.image, cmap="gray", vmin=0, vmax=255)
            _outline(grid[1, j], column.marks)
            for axes, label in zip(grid[2:, j], labels, strict=True):
                if label in column.maps:
                    drawn = axes.imshow(
                        column.maps[label].astype(np.float32), cmap="inferno", vmin=0, vmax=HOTTEST
                    )
                    _outline(axes, column.marks)
        if drawn is not None:
            bar = canvas.colorbar(
                drawn, ax=list(grid.flat), location="bottom", fraction=0.03, aspect=40, pad=0.02
            )
            ticks = range(0, int(HOTTEST) + 1, 2)  # more would touch below one set's columns
            bar.set_ticks(list(ticks), labels=[f"1 in {10**t:,}" for t in ticks])
            bar.ax.tick_params(labelsize=8)
            bar.set_label("normal pixels that are as high", fontsize=9)

    return svg_figure(fill, (1.6 + 1.05 * len(columns), 1.0 + 1.05 * len(names)))


def _outline(axes: Axes, marks: NDArray[np.bool_]) -> None:
    if marks.any():
        around = np.pad(marks, 1).astype(float)  # closes the line at the border of the image
        places = [np.arange(-1, size + 1) for size in marks.shape]
        axes.contour(places[1], places[0], around, levels=[0.5], colors=[_OUTLINE], linewidths=1)
        axes.set(xlim=(-0.5, marks.shape[1] - 0.5), ylim=(marks.shape[0] - 0.5, -0.5))

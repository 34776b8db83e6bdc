"""The report's figures as SVG text: ROC curve, score histograms, training curve.

Each is a complete ``<svg>`` element with a viewBox and no fixed size, letters as outlines, colours
of Okabe and Ito (told apart by colour-blind readers), and the same bytes for the same data. The
captions say to a reader without training in statistics what is to be seen.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from scrd.metrics.ranks import auroc, false_alarm_rate, roc_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROC_CAPTION = (
    "How many abnormal images are found (upwards) for how many normal images flagged by mistake "
    "(to the right). The nearer the curve comes to the top left corner the better; the dashed "
    "line is guessing."
)
HISTOGRAM_CAPTION = (
    "How the anomaly scores of normal and of abnormal images are spread. The less the two overlap "
    "the better; images to the right of the dashed line are flagged."
)
TRAINING_CAPTION = (
    "The course of training: the loss, which jumps from batch to batch and falls as the model "
    "learns."
)
SCALES_CAPTION = (
    "Below, how much each scale counts (scale 1 sees the finest detail). A weight that goes to 1 "
    "while the others go to 0 means that the other scales have stopped learning."
)

NORMAL, ABNORMAL = "#0072b2", "#d55e00"
SCALE_COLOURS = ("#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")

# 12 pt on a figure 4.8 in wide stays 12 px high when a phone shows it 345 px wide
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.color": "#dddddd",
    "axes.axisbelow": True,
    "legend.fontsize": 11,
    "legend.framealpha": 0.85,
    "svg.fonttype": "path",
    "svg.hashsalt": "scrd",
}


def roc_figure(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    interval: tuple[float, float] | None = None,
    threshold: float | None = None,
) -> str:
    """The ROC curve, its area in the legend.

    Args:
        scores: shape (N,), any real range.
        labels: shape (N,), 0 normal, 1 abnormal, both present.
        interval: of the area, 95 %.
        threshold: score threshold whose operating point is marked.

    Returns:
        SVG text.

    Raises:
        ValueError: as `scrd.metrics.ranks.auroc`.
    """
    false_alarms, sensitivity = roc_curve(scores, labels)
    area = f"AUROC {auroc(scores, labels):.3f}"
    if interval is not None:
        area += f"\n(95 % CI {interval[0]:.3f} to {interval[1]:.3f})"

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color="#777777", linestyle="--", linewidth=1, label="chance")
        axes.plot(false_alarms, sensitivity, color=NORMAL, linewidth=2, label=area)
        if threshold is not None:
            abnormal = np.asarray(scores)[np.asarray(labels) == 1]
            found = float(np.mean(abnormal >= threshold))
            alarms = false_alarm_rate(scores, labels, threshold)
            label = (
                f"threshold in use:\n{found * 100:.1f} % found at\n"
                f"{alarms * 100:.1f} % false alarms"
            )
            axes.plot(alarms, found, "o", color=ABNORMAL, markersize=9, label=label, clip_on=False)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.01)
        axes.set_xlabel("False-alarm rate (normals flagged)")
        axes.set_ylabel("Sensitivity (abnormals flagged)")
        axes.legend(loc="lower right")

    return draw_svg(draw, height=4.4)


def histogram_figure(
    scores: ArrayLike, labels: ArrayLike, *, threshold: float | None = None, bins: int = 40
) -> str:
    """Histograms of the normal and the abnormal scores over each other (the paper's figure 2).

    Each class is drawn as shares of its own images, so that classes of unequal size compare.

    Args:
        scores: shape (N,), finite.
        labels: shape (N,), 0 normal, 1 abnormal; a class may be absent.
        threshold: score threshold drawn as a line.
        bins: number of bars over the range of all scores.

    Returns:
        SVG text.
    """
    values, positive = np.asarray(scores, dtype=np.float64), np.asarray(labels) == 1
    edges = np.histogram_bin_edges(values, bins)

    def draw(axes: Axes) -> None:
        for name, chosen, colour in (
            ("normal", values[~positive], NORMAL),
            ("abnormal", values[positive], ABNORMAL),
        ):
            if chosen.size:
                axes.hist(
                    chosen,
                    edges.tolist(),
                    weights=np.full(chosen.size, 100 / chosen.size),
                    label=f"{name} ({chosen.size})",
                    color=(colour, 0.45),
                    edgecolor=colour,
                    histtype="stepfilled",
                )
        if threshold is not None:
            axes.axvline(threshold, color="#000000", linestyle="--", label="threshold in use")
        axes.set_xlabel("Anomaly score")
        axes.set_ylabel("Share of the class (%)")
        axes.grid(False, axis="x")
        # above the bars, which may lie anywhere
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)

    return draw_svg(draw, height=4.4)


def training_curve(log: Sequence[Mapping[str, Any]]) -> str:
    """Loss and scale weights over the iterations of training.

    Args:
        log: entries with ``iteration``, ``loss`` and ``scale_weights``, the mean alpha of each
            scale from fine to coarse, adding up to 1; without the weights only the loss is drawn.

    Returns:
        SVG text.

    Raises:
        ValueError: an empty log.
    """
    if not log:
        raise ValueError("an empty log has no training curve")
    iterations = [entry["iteration"] for entry in log]
    weights = np.array([entry.get("scale_weights") or [] for entry in log], dtype=np.float64)

    def loss(axes: Axes) -> None:
        axes.plot(iterations, [entry["loss"] for entry in log], color=NORMAL, linewidth=1.5)
        axes.set_ylabel("Loss")
        if not weights.size:
            axes.set_xlabel("Iteration")

    def alpha(axes: Axes) -> None:
        for scale, colour in zip(range(weights.shape[1]), SCALE_COLOURS, strict=False):
            label = f"scale {scale + 1}"
            axes.plot(iterations, weights[:, scale], color=colour, linewidth=2, label=label)
        axes.set_ylim(0, 1)
        axes.set_ylabel("Scale weight α")
        axes.set_xlabel("Iteration")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False)

    return draw_svg(loss, alpha, height=5.2) if weights.size else draw_svg(loss, height=3.2)


def draw_svg(*panels: Callable[[Axes], None], height: float) -> str:
    """Draw one panel below the other and return the figure as an SVG element.

    Args:
        panels: each draws on the axes that it is given; all share the x axis.
        height: of the figure in inches; it is 4.8 wide.
    """

    def fill(figure: Figure) -> None:
        grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)
        for draw, axes in zip(panels, grid[:, 0], strict=True):
            draw(axes)

    return svg_figure(fill, (4.8, height))


def svg_figure(fill: Callable[[Figure], None], size: tuple[float, float]) -> str:
    """A figure in the style of the report as an SVG element.

    Args:
        fill: draws on the empty figure that it is given.
        size: width and height in inches, to which the letters are in proportion.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        fill(figure)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    # the viewBox stays, so the page decides the size
    return re.sub(r' (?:width|height)="[\d.]+pt"', "", text[text.index("<svg") :], count=2)

"""Figures of a suite from result lines, as SVG text, the same bytes for the same lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from scrd.bench.found import Cell, Found, cell, costs, overall_auroc
from scrd.bench.results import Line
from scrd.bench.suite import OWN, Row
from scrd.bench.words import NAMES
from scrd.report.figures import ABNORMAL, NORMAL, SCALE_COLOURS, draw_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Panel = Callable[["Axes"], None]

_LINES = (NORMAL, ABNORMAL, *SCALE_COLOURS)
_STYLES = ("-", "--", ":", "-.")


class Figure(NamedTuple):
    """A picture.

    Attributes:
        name: of its file, without suffix and without the suite's name.
        caption: what is to be seen.
        svg: the picture.
    """

    name: str
    caption: str
    svg: str


def figures(found: Found) -> Iterator[Figure]:
    """Draw the figures that a suite asks for, as far as there are runs.

    Those of maps are not made of lines, see :mod:`scrd.bench.heatmaps`.
    """
    makers = {
        "curve": _curve,
        "cost": _cost,
        "roc": _roc,
        "histograms": _histograms,
        "alpha": _alpha,
    }
    for name in found.suite.figures:
        if name in makers:
            yield from makers[name](found)


def _style(i: int) -> dict[str, Any]:
    return {"color": _LINES[i % len(_LINES)], "linestyle": _STYLES[i // len(_LINES) % len(_STYLES)]}


def _drawn(found: Found) -> list[Row]:
    return [row for row in found.suite.rows_of(found.budget) if row.drawn]


def _curves(line: Line, row: Row) -> Mapping[str, Any]:
    """ROC and histogram under the pooling of a row; empty in lines that are older than these."""
    curves: Mapping[str, Any] = line["curves"]
    if row.pooling in (OWN, line["pooling"]):
        return curves
    return curves.get("by_pooling", {}).get(row.pooling, {})  # type: ignore[no-any-return]


def _curve(found: Found) -> Iterator[Figure]:
    """A panel a metric against a setting, one line a data set, bars of one standard deviation."""
    suite = found.suite
    assert suite.curve is not None
    if not found.runs:
        return
    panels = [_curve_panel(found, metric, suite.curve) for metric in suite.metrics]

    def labelled(axes: Axes) -> None:
        panels[-1](axes)
        axes.set_xlabel("λ" if suite.curve == "noise.strength" else suite.curve or "")

    def headed(axes: Axes) -> None:
        first = labelled if len(panels) == 1 else panels[0]
        first(axes)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)

    several = [headed, *panels[1:-1], *([labelled] if len(panels) > 1 else [])]
    names = ", ".join(NAMES[metric] for metric in suite.metrics)
    caption = (
        f"{names} against `{suite.curve}`, mean over the seeds; the bars are one standard "
        "deviation over them."
    )
    yield Figure("curve", caption, draw_svg(*several, height=1.0 + 2.2 * len(panels)))


def _curve_panel(found: Found, metric: str, curve: str) -> Panel:
    lines: dict[str, list[tuple[float, Cell]]] = {}
    for data in found.sets:
        for row in found.rows():
            point = cell(found, row, data, metric)
            if point is not None:
                line = next(iter(found.runs[row.label, data].values()))
                lines.setdefault(data, []).append((_setting(line, curve.split(".")), point))

    def draw(axes: Axes) -> None:
        for i, (data, points) in enumerate(lines.items()):
            points.sort(key=lambda p: p[0])
            axes.errorbar(
                [x for x, _ in points],
                [100 * c.mean for _, c in points],
                yerr=[100 * np.nan_to_num(c.deviation) for _, c in points],
                marker="o",
                capsize=4,
                label=data,
                **_style(i),
            )
        axes.set_ylabel(f"{NAMES[metric]} (%)")

    return draw


def _setting(line: Line, path: list[str]) -> float:
    value: Any = line["key"]["settings"]
    for name in path:
        value = value[name]
    return float(value)


def _cost(found: Found) -> Iterator[Figure]:
    """AUROC against time, the area of a point by what is learnt or remembered."""
    points = []
    seen = set()
    for row in found.suite.rows_of(found.budget):
        overall = overall_auroc(found, row)
        if overall is not None and row.method not in seen:  # another pooling costs the same
            seen.add(row.method)
            points.append((row.label, overall.mean, costs(found, row)))
    if not points:
        return
    largest = max(c["bytes"] for _, _, c in points)

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import LogLocator

        for i, (label, mean, cost) in enumerate(points):
            at = 1e3 * cost["seconds_per_image"], 100 * mean
            area = 20 + 600 * cost["bytes"] / max(largest, 1)
            colour = _LINES[i % len(_LINES)]
            axes.scatter(*at, s=area, color=colour, alpha=0.5, linewidths=0)
            axes.annotate(str(i + 1), at, ha="center", va="center", fontsize=9)
            axes.plot([], [], " ", label=f"{i + 1}  {label}")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, handlelength=0)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
        axes.xaxis.set_minor_formatter("{x:g}")
        axes.margins(0.2)
        axes.set_xlabel("Scoring one image (ms)")
        axes.set_ylabel("AUROC (%)")

    caption = (
        "AUROC against the time to score one image in batches of 16, each method by its first row "
        "of the table; the area of a point grows "
        f"with all that the method learnt or remembers, the largest {largest / 1e6:.0f} MB. Upper "
        "left and small is best."
    )
    yield Figure("cost", caption, draw_svg(draw, height=4.8))


def _roc(found: Found) -> Iterator[Figure]:
    """One picture a data set, curves averaged over the seeds at equal false-alarm rates."""
    for data in found.suite.sets:
        curves = {}
        for row in _drawn(found):
            lines = found.runs.get((row.label, data), {}).values()
            several = [c["roc"] for line in lines if "roc" in (c := _curves(line, row))]
            if several:
                curves[row.label] = np.mean(several, axis=0)
        if not curves:
            continue

        def draw(axes: Axes, curves: Mapping[str, Any] = curves) -> None:
            axes.plot([0, 1], [0, 1], color="#777777", linestyle="--", linewidth=1)
            for i, (label, curve) in enumerate(curves.items()):
                axes.plot(np.linspace(0, 1, len(curve)), curve, label=label, **_style(i))
            axes.set_xlim(0, 1)
            axes.set_ylim(0, 1.01)
            axes.set_xlabel("False-alarm rate (normals flagged)")
            axes.set_ylabel("Sensitivity (abnormals flagged)")
            axes.legend(loc="lower right", fontsize=9)

        caption = f"ROC curves on {data}, each by the score of its row, mean over the seeds."
        yield Figure(f"roc-{data}", caption, draw_svg(draw, height=4.4))


def _histograms(found: Found) -> Iterator[Figure]:
    """One picture a data set: the score distributions of the drawn rows below each other."""
    for data in found.suite.sets:
        drawn = {
            row.label: curves["histogram"]
            for row in _drawn(found)
            if (seeds := found.runs.get((row.label, data)))
            and (curves := _curves(next(iter(seeds.values())), row))
        }
        if not drawn:
            continue
        panels = [_histogram_panel(label, histogram) for label, histogram in drawn.items()]
        caption = (
            f"Scores on {data}, first seed, each method's range brought to [0, 1]: normal in "
            "blue, abnormal in red, each as shares of its class."
        )
        svg = _stacked(panels, "Score")
        yield Figure(f"histograms-{data}", caption, svg)


def _stacked(panels: list[Panel], x_label: str) -> str:
    """Panels below each other, the lowest with the name of the common axis."""
    *above, lowest = panels

    def labelled(axes: Axes) -> None:
        lowest(axes)
        axes.set_xlabel(x_label)

    return draw_svg(*above, labelled, height=1.0 + 1.5 * len(panels))


def _histogram_panel(label: str, histogram: Mapping[str, Any]) -> Panel:
    def draw(axes: Axes) -> None:
        for name, colour in (("normal", NORMAL), ("abnormal", ABNORMAL)):
            counts = np.array(histogram[name], dtype=float)
            if counts.sum():
                edges = np.linspace(0, 1, len(counts) + 1)
                axes.stairs(100 * counts / counts.sum(), edges, fill=True, color=colour, alpha=0.45)
        axes.set_title(label, fontsize=11, loc="left")
        axes.set_ylabel("%")

    return draw


def _alpha(found: Found) -> Iterator[Figure]:
    """One picture a data set: how α is spread over the test images, rows below each other."""
    for data in found.suite.sets:
        panels = []
        for row in found.distinct_rows():
            lines = found.runs.get((row.label, data), {}).values()
            several = [
                line["curves"]["scale_weights"]
                for line in lines
                if "scale_weights" in line["curves"]
            ]
            if several:
                panels.append(_alpha_panel(row.label, np.sum(several, axis=0)))
        if panels:
            caption = (
                f"Scale weights α of the test images of {data}, all seeds (scale 1 sees the finest "
                "detail). All images of a scale at 0 or 1: α has collapsed; all of them at 1/3: "
                "the scales count alike."
            )
            svg = _stacked(panels, "α")
            yield Figure(f"alpha-{data}", caption, svg)


def _alpha_panel(label: str, counts: Any) -> Panel:
    def draw(axes: Axes) -> None:
        for i, (scale, colour) in enumerate(zip(counts, SCALE_COLOURS, strict=False)):
            edges = np.linspace(0, 1, len(scale) + 1)
            axes.stairs(100 * scale / scale.sum(), edges, color=colour, label=f"{i + 1}", lw=2)
        axes.set_title(label, fontsize=11, loc="left")
        axes.set_ylabel("%")
        axes.legend(title="scale", fontsize=8, title_fontsize=8, ncols=3, loc="upper right")

    return draw

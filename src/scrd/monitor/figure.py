"""A picture of a stream: the wealth, and how many images were flagged."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from scrd.monitor.drift import Drift
from scrd.monitor.martingale import LEVELS
from scrd.report.figures import ABNORMAL, NORMAL, SCALE_COLOURS, draw_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TOP = 5.2  # decimal logarithm: what is beyond says nothing new


def drift_figure(drift: Drift) -> str:
    """The wealth on a logarithmic scale with the alarm lines, and the flag rate by window.

    Returns:
        SVG text, see :func:`scrd.report.figures.draw_svg`.
    """
    places = np.arange(1, len(drift.log_wealth) + 1)
    highest = max(float(logs.max()) for logs in (drift.log_wealth, *drift.log_wealths.values()))
    top = min(max(highest / math.log(10) + 0.2, math.log10(LEVELS[-1]) + 0.4), _TOP)

    def wealth(axes: Axes) -> None:
        from matplotlib.ticker import MultipleLocator

        for (name, logs), colour in zip(drift.log_wealths.items(), SCALE_COLOURS, strict=False):
            axes.plot(places, logs / math.log(10), color=colour, linewidth=1, label=name)
        axes.plot(
            places, drift.log_wealth / math.log(10), color="#000000", linewidth=2, label="together"
        )
        for level, style in zip(LEVELS, ("--", "-"), strict=True):
            axes.axhline(math.log10(level), color=ABNORMAL, linestyle=style, linewidth=1)
            axes.annotate(
                f"alarm at {level}",
                (1, math.log10(level)),
                xycoords=("axes fraction", "data"),
                xytext=(0, 2),
                textcoords="offset points",
                ha="right",
                fontsize=9,
                color=ABNORMAL,
            )
        axes.set_ylim(top=top)
        axes.yaxis.set_major_locator(MultipleLocator(1))
        axes.yaxis.set_major_formatter(lambda tens, _: f"{10**tens:g}")
        axes.set_ylabel("Wealth")
        axes.legend(loc="lower left", bbox_to_anchor=(-0.1, 1), ncols=2, frameon=False)

    def rates(axes: Axes) -> None:
        low, high = (100 * limit for limit in drift.expected.limits)
        axes.axhspan(low, high, color=NORMAL, alpha=0.15, linewidth=0)
        axes.axhline(100 * drift.expected.rate, color=NORMAL, linestyle="--", linewidth=1)
        for window in drift.windows:
            middle = window.start + (1 + window.images) / 2
            off = drift.expected.compared(window) != "within"
            least, most = (100 * limit for limit in window.limits)
            colour = ABNORMAL if off else "#000000"
            axes.plot([middle, middle], [least, most], color=colour, linewidth=1.5)
            axes.plot(middle, 100 * window.rate, "o", color=colour, markersize=5)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("Flagged (%)")
        axes.set_xlabel("Image")

    return draw_svg(wealth, rates, height=5.6)

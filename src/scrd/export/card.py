"""What the card of an exported folder says beyond that of its source."""

from __future__ import annotations

from collections.abc import Mapping

from scrd.export.parity import (
    AUROC_TOLERANCE,
    MAP_TOLERANCE,
    RANK_TOLERANCE,
    SCORE_TOLERANCE,
    STEP_TOLERANCE,
    Parity,
)


def export_card(
    source: str, *, engine: str, precision: str, data: str, parity: Parity, model: str
) -> str:
    """The card of the source with a section about the export.

    Args:
        source: the card of the source, Markdown.
        engine: what runs the export.
        precision: ``fp32`` or ``int8``.
        data: name of the images that both were compared on.
        parity: what came of it.
        model: fingerprint of the source.
    """
    rows: Mapping[str, tuple[str, str]] = {
        "largest difference of a map, share of the range": (
            f"{parity.map_difference:.2g}",
            f"{MAP_TOLERANCE:g}",
        ),
        "largest difference of a score, share of the range": (
            f"{parity.score_difference:.2g}",
            f"{SCORE_TOLERANCE:g}",
        ),
        "largest difference of a p-value, calibration steps": (
            "there are none" if parity.p_value_steps is None else f"{parity.p_value_steps}",
            f"{STEP_TOLERANCE}",
        ),
        "rank correlation of the scores": (
            f"{parity.rank_correlation:.6f}",
            f"more than {RANK_TOLERANCE:g}",
        ),
        "flags that changed": (f"{parity.flags_changed}", ""),
    }
    if parity.auroc is not None:
        rows = {
            **rows,
            "difference of the AUROC, percentage points": (
                f"{parity.auroc_difference:+.3f} (from {parity.auroc:.2f})",
                f"{AUROC_TOLERANCE:g}",
            ),
        }
    lines = [
        "",
        "## Export",
        "",
        f"This is an export of the model with fingerprint `{model[:16]}` for {engine}, in "
        f"{precision}. Both were run on {parity.images} images of `{data}`:",
        "",
        "| figure | measured | allowed |",
        "|---|---|---|",
        *(f"| {name} | {found} | {allowed} |" for name, (found, allowed) in rows.items()),
        "",
    ]
    return source.rstrip("\n") + "\n" + "\n".join(lines)

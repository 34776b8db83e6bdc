"""The model card: what a person must know before trusting a model folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scrd.config import Config
from scrd.data.contract import Contract
from scrd.data.preprocess import Preprocessing
from scrd.scoring.calibration import Calibration
from scrd.scoring.promise import promised


def model_card(
    config: Config,
    preprocessing: Preprocessing,
    calibration: Calibration,
    provenance: Mapping[str, Any],
    contract: Contract,
) -> str:
    """Write the card in Markdown, from recorded facts only."""
    normals = provenance["normals"]
    intensity = preprocessing.intensity
    lines = [
        f"# Model card: {provenance['data']}",
        "",
        "For research use only. Not a medical device.",
        "",
        "## What it is",
        "",
        f"An anomaly detector: method `{config.objective}`, teacher "
        f"`{config.teacher}` (weights: {provenance['teacher_weights']}), input "
        f"{config.image_size} × {config.image_size} pixels.",
        *_preset(provenance),
        "",
        "## What it was trained on",
        "",
        f"- Data: `{provenance['data']}`, fingerprint `{provenance['fingerprint'][:16]}`.",
        f"- {normals['trained']} normal images trained it{_calibrated_by(config, normals)}. No "
        "abnormal image and no test image was used.",
        f"- {config.iterations} iterations of {config.batch_size} images, seed {config.seed}, "
        f"{provenance['seconds']:.0f} s on {provenance['device']}.",
        f"- {len(provenance['unreadable'])} training images could not be read.",
        *(f"- Doubtful: {doubt}." for doubt in provenance.get("doubtful", [])[:10]),
        "",
        "## How it reads images",
        "",
        f"- Percentiles {intensity.dark:g} to {intensity.bright:g} of each {intensity.scope} map "
        "to 0 to 1."
        if intensity.scope != "data"
        else f"- Intensities from {intensity.low:g} to {intensity.high:g} map to 0 to 1; values up "
        f"to {intensity.headroom:g} window widths beyond are kept, the rest is cut.",
        f"- Channels: {intensity.channels}. Size: {preprocessing.resize}.",
        "",
        "## Which images it knows",
        "",
        *_known(contract),
        "",
        "## How it decides",
        "",
        f"- Pooling `{calibration.pooling}`.",
    ]
    if calibration.calibrated:
        rate, promise = calibration.false_alarm_rate, calibration.promise
        lines.append(
            f"- Flags a score of at least {calibration.threshold:.6g}: "
            f"{promised(calibration.groups, rate, promise)}."
        )
    if calibration.silence:
        lines.append(f"- **Warning: {calibration.silence}.**")
    lines += [
        "",
        "## Limits",
        "",
        "- The promise on false alarms, if there is one, holds for images that come from where the "
        "calibration normals come from. Another scanner, protocol, view or population voids it.",
        "- A high score says *unlike the normals it has seen*, not *diseased*.",
        "- Sensitivity is unknown until it is measured on labelled cases: `scrd eval`.",
        "",
        "## Versions",
        "",
        *(f"- {name}: {value}" for name, value in provenance["versions"].items()),
        "",
    ]
    return "\n".join(lines)


def _preset(provenance: Mapping[str, Any]) -> list[str]:
    """Where the settings came from, if they were a preset's."""
    preset = provenance.get("preset")
    if preset is None:
        return []
    changed = f", but for {', '.join(preset['changed'])}" if preset["changed"] else ""
    return ["", f"Its settings are those of the preset `{preset['name']}`{changed}."]


def _calibrated_by(config: Config, normals: Mapping[str, Any]) -> str:
    """How many images were held out, and how their share came about."""
    if not normals["calibrated"]:
        return ", all there are: none calibrated it"
    return (
        f", {normals['calibrated']} in {normals['calibration_groups']} groups calibrated it"
        f"{_why_so_many(config, normals)}. The two parts share no group"
    )


def _why_so_many(config: Config, normals: Mapping[str, Any]) -> str:
    """How the share of the held-out images came about."""
    share = normals["calibrated"] / (normals["trained"] + normals["calibrated"])
    if config.held_out is not None:
        return f" ({share:.0%}; asked for: {config.held_out:.3g})"
    return (
        f" ({share:.0%}: a quarter, or more where a false-alarm rate of "
        f"{config.false_alarm_rate:g} takes more groups)"
    )


def _known(contract: Contract) -> list[str]:
    """A line each for what the headers of the training images said."""
    lines = []
    for name, seen in (
        ("Pixel values", contract.units),
        ("Modality", contract.modalities),
        ("Body part", contract.body_parts),
        ("View", contract.views),
        ("Plane", contract.planes),
    ):
        lines.append(f"- {name}: {', '.join(seen) if seen else 'not told by the files'}.")
    for name, span, unit in (
        ("Shorter side", contract.shorter_side, "pixels"),
        ("Pixel spacing", contract.spacing, "mm"),
    ):
        if span:
            lines.append(f"- {name}: {span[0]:g} to {span[1]:g} {unit}.")
    return lines

"""The report as one HTML file that needs nothing beside it: no fonts, pictures or other files.

Its only script is that of the list of cases, whose heat maps, where there are any, lie beside it.
"""

from __future__ import annotations

import math
import os
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from scrd.report.case_list import asset, case_list, policy
from scrd.report.cases import Cases
from scrd.system.files import write_atomically


@dataclass(frozen=True)
class Case:
    """One image in a gallery.

    Attributes:
        name: the image's name as in the manifest.
        kind: its class, such as ``normal`` or ``glioma``; may be empty.
        label: 0 normal, 1 abnormal, None unknown.
        score: anomaly score, any real range.
        p_value: share of normals that look at least as abnormal, in [0, 1]; None unknown.
        flag: whether the detector flags it; None where nothing calibrated it.
        overlay_jpeg: the picture, the bytes of a JPEG file.
    """

    name: str
    kind: str
    label: int | None
    score: float
    p_value: float | None
    flag: bool | None
    overlay_jpeg: bytes


@dataclass(frozen=True)
class Gallery:
    """Cases shown together, with a title and a sentence on what was picked."""

    title: str
    explanation: str
    cases: Sequence[Case]


@dataclass(frozen=True)
class Figure:
    """An SVG element and the sentence below it, which is its alternative text as well."""

    caption: str
    svg: str


@dataclass(frozen=True)
class _Table:
    title: str
    explanation: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]


def write_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    subtitle: str,
    metrics: Mapping[str, Any],
    figures: Sequence[Figure],
    galleries: Sequence[Gallery],
    notes: Sequence[str],
    settings: Mapping[str, Any],
    cases: Cases | None = None,
) -> None:
    """Write the report, whole or not at all. All text is escaped.

    Args:
        path: the HTML file; its folder exists.
        title: heading.
        subtitle: one line below it.
        metrics: the content of ``metrics.json``. What is missing or None is left out: ``auroc``,
            ``auroc_ci95``, ``ap``, ``f1``, ``acc``, ``sensitivity_at_far``, ``far`` (the rate
            chosen), ``false_alarm_rate``, ``n_normal``, ``n_abnormal``, ``seconds_per_image``,
            and as tables of their own ``by_class`` (class to ``auroc`` and ``n``), ``within``
            (column to value to ``auroc``, ``n_normal``, ``n_abnormal``),
            ``localisation``, ``auroc_by_pooling`` and ``confounds`` (name to value).
        figures: drawings with captions.
        galleries: pictures of single images.
        notes: paragraphs that a reader must know, shown above everything else.
        settings: what produced the figures; nested mappings are shown with dotted names.
        cases: every test image, as a list to sort and to filter.

    Raises:
        OSError: the file cannot be written; an older one is left as it was.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=_number, data_uri=_data_uri)
    page = environment.get_template("template.html").render(
        title=title,
        subtitle=subtitle,
        headline=_headline(metrics),
        tables=[table for table in _tables(metrics) if table.rows],
        figures=figures,
        galleries=[gallery for gallery in galleries if gallery.cases],
        notes=notes,
        settings=_flat(settings),
        policy=policy(),
        cases_style=asset("cases.css"),
        cases="".join(case_list([cases], "All cases")) if cases and cases.total else "",
    )
    write_atomically(Path(path), page)


def _headline(metrics: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """(measure, what it means, value, remark on the value), for what is there."""
    known = {key: value for key, value in metrics.items() if not _absent(value)}
    chosen = f"{known['far'] * 100:.3g}\u00a0%" if "far" in known else "the chosen rate of"
    target = f" It was set for {chosen}." if "far" in known else ""
    interval = ""
    if "auroc_ci95" in known:
        low, high = known["auroc_ci95"]
        interval = f"95\u00a0% interval {low:.3f} to {high:.3f}"
    best = (
        "At the threshold that suits this test set best: comparable with papers, optimistic as a "
        "forecast."
    )
    rows = [
        (
            "auroc",
            "AUROC",
            "How often an abnormal image scores higher than a normal one: 1 is always, 0.5 is "
            "guessing. The interval is the room that chance leaves with this many images.",
            _decimal,
        ),
        (
            "ap",
            "Average precision",
            "Share of right alarms among all alarms, averaged over all sensitivities.",
            _decimal,
        ),
        ("f1", "Best F1", f"Harmonic mean of precision and sensitivity. {best}", _decimal),
        ("acc", "Accuracy at best F1", f"Share of images judged rightly. {best}", _percent),
        (
            "sensitivity_at_far",
            f"Sensitivity at {chosen} false alarms",
            "Share of the abnormal images found while at most that share of this test set's "
            "normal images is flagged.",
            _percent,
        ),
        (
            "false_alarm_rate",
            "False-alarm rate observed",
            "Share of this test set's normal images flagged at the threshold that was fixed "
            f"beforehand on held-out normal images.{target}",
            _percent,
        ),
        ("n_normal", "Normal images", "In the test set.", _number),
        ("n_abnormal", "Abnormal images", "In the test set.", _number),
        ("seconds_per_image", "Seconds per image", "On the machine of this run.", _number),
    ]
    return [
        (name, meaning, shown(known[key]), interval if key == "auroc" else "")
        for key, name, meaning, shown in rows
        if key in known
    ]


def _tables(metrics: Mapping[str, Any]) -> list[_Table]:
    def pairs(key: str) -> list[tuple[str, str]]:
        return [(_words(name), _decimal(value)) for name, value in _items(metrics, key)]

    return [
        _Table(
            "By class",
            "Each abnormal class against all normal images.",
            ("Class", "Images", "AUROC"),
            [
                (name, _number(value.get("n")), _decimal(value.get("auroc")))
                for name, value in _items(metrics, "by_class")
            ],
        ),
        _Table(
            "Within",
            "Among images alike in one respect. An AUROC that is lower here than overall was "
            "partly earned by telling these apart.",
            ("Images", "Normal, abnormal", "AUROC"),
            [
                (
                    f"{column} {value}",
                    f"{_number(found.get('n_normal'))}, {_number(found.get('n_abnormal'))}",
                    _decimal(found.get("auroc")),
                )
                for column, strata in _items(metrics, "within")
                for value, found in strata.items()
            ],
        ),
        _Table(
            "Where the maps point",
            "Heat maps against the marked lesions. Pointing hit rate: share of images whose "
            "hottest pixel lies in a lesion. AUPRO: overlap with each lesion, averaged over "
            "strict thresholds.",
            ("Measure", "Value"),
            pairs("localisation"),
        ),
        _Table(
            "AUROC by pooling",
            "The same maps made into one score in other ways. For information: the way in use "
            "was fixed without looking at these figures.",
            ("Pooling", "AUROC"),
            pairs("auroc_by_pooling"),
        ),
        _Table(
            "Confounds",
            "How well a trivial property of the image or its file tells the classes apart. A "
            "value far from 0.5 means that the test set can be solved without seeing disease.",
            ("Property", "AUROC"),
            pairs("confounds"),
        ),
    ]


def _items(metrics: Mapping[str, Any], key: str) -> list[tuple[str, Any]]:
    return list((metrics.get(key) or {}).items())


def _absent(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _words(name: str) -> str:
    words = name.removeprefix("n_").replace("_", " ")
    for initials in ("auroc", "aupro", "ap"):
        words = re.sub(rf"\b{initials}\b", initials.upper(), words)
    return words[:1].upper() + words[1:]


def _number(value: object) -> str:
    """Four significant digits, integers whole, a dash for what is missing."""
    if _absent(value):
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _decimal(value: object) -> str:
    """Three decimals, so that a column of figures lines up; integers whole."""
    known = isinstance(value, float) and not math.isnan(value)
    return f"{value:.3f}" if known else _number(value)


def _percent(rate: float) -> str:
    return f"{rate * 100:.1f}\u00a0%"


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", "–" if value is None else str(value)))
    return rows


def _data_uri(content: bytes | str, media_type: str) -> str:
    raw = content.encode() if isinstance(content, str) else content
    return f"data:{media_type};base64,{b64encode(raw).decode('ascii')}"

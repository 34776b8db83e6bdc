"""Suites as TOML files: finding, reading and checking them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from scrd.bench.budgets import BUDGETS
from scrd.bench.suite import (
    BEST_ON_TEST,
    FIGURES,
    METRICS,
    OF_A_MAP,
    POOLED,
    SELECTIONS,
    SPLITS,
    Row,
    Suite,
    SuiteError,
    among,
    require,
    resolve,
)
from scrd.errors import ConfigError
from scrd.presets.files import Preset, read_preset

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def known_methods() -> list[str]:
    """Names of all objectives and baselines."""
    from scrd import baselines
    from scrd.objectives import OBJECTIVES

    return [*OBJECTIVES, *baselines.BASELINES]


def bundled_suites() -> list[str]:
    """Names of the suites that come with the package, sorted."""
    return sorted(p.stem for p in _bundled().iterdir() if p.suffix == ".toml")


def _bundled() -> Path:
    return Path(str(resources.files("scrd.bench"))) / "suites"


def read_suite(source: str) -> Suite:
    """Read and check a suite.

    Args:
        source: the name of a bundled suite, or the path of a TOML file.

    Raises:
        SuiteError: no such suite, no TOML, an unknown key, method or setting.
    """
    if source in bundled_suites():
        path = _bundled() / f"{source}.toml"
    else:
        path = Path(source)
        if not path.is_file():
            raise SuiteError(f"{source}: neither a file nor one of {', '.join(bundled_suites())}")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise SuiteError(f"{path}: cannot be read as TOML: {e}") from e
    return _build(path, content)


SUITE_KEYS: Mapping[str, type | tuple[type, ...]] = {
    "title": str,
    "text": str,
    "sets": list,
    "seeds": list,
    "row": list,
    "settings": dict,
    "budget": dict,
    "metrics": list,
    "costs": bool,
    "figures": list,
    "curve": str,
    "base": str,
    "effects": bool,
    "uses_test_labels": bool,
}
ROW_KEYS: Mapping[str, type | tuple[type, ...]] = {
    "label": str,
    "method": str,
    "preset": str,
    "settings": dict,
    "iterations_times": (int, float),
    "pooling": str,
    "split": str,
    "select": str,
    "budgets": list,
    "drawn": bool,
    "reference": dict,
    "reference_megabytes": (int, float),
    "reference_times": (int, float),
}


def _build(path: Path, content: Mapping[str, Any]) -> Suite:
    _check(f"{path}", content, SUITE_KEYS, ("title", "text", "sets", "seeds", "row"))
    common = content.get("settings", {})
    budgets = {name: {**settings, **common} for name, settings in BUDGETS.items()}
    for name, settings in content.get("budget", {}).items():
        require(isinstance(settings, dict), f"{path}: budget.{name}", "is not a table")
        budgets[name] = {**budgets.get(name, {}), **settings}
    rows = []
    for number, table in enumerate(content["row"], start=1):
        where = f"{path}: row {number}"
        require(isinstance(table, dict), where, "is not a table")
        _check(where, table, ROW_KEYS, ("label",))
        where = f"{path}: row {table['label']!r}"
        preset = _preset(f"{where}, preset", table["preset"]) if "preset" in table else None
        method = table.get("method", None if preset is None else preset.settings.get("objective"))
        named = {"preset": preset, "method": method, "budgets": tuple(table.get("budgets", ()))}
        row = Row(**{**table, **named})
        if row.method is not None:
            among(f"{where}, method", [row.method], known_methods())
        among(f"{where}, pooling", [row.pooling], POOLED)
        among(f"{where}, split", [row.split], SPLITS)
        among(f"{where}, select", [row.select], SELECTIONS)
        if row.select != SELECTIONS[0]:
            _check_selection(where, row, content.get("uses_test_labels", False))
        among(f"{where}, budgets", row.budgets, list(budgets))
        among(f"{where}, reference", list(row.reference), content["sets"])
        if row.method is not None:
            for name in row.budgets or budgets:
                config = resolve(f"{where}, settings", row, name, budgets[name], 0)
                if row.select != SELECTIONS[0]:
                    among(f"{where}, settings, pooling", [config.pooling], OF_A_MAP)
        rows.append(row)
    labels = [row.label for row in rows]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    require(not twice, f"{path}: row", f"label {', '.join(twice)} more than once")
    for name in ("sets", "seeds"):
        kind = int if name == "seeds" else str
        good = content[name] and all(type(item) is kind for item in content[name])
        require(good, f"{path}: {name}", f"must be a list of {kind.__name__}, not empty")
    among(f"{path}: metrics", content.get("metrics", ()), METRICS)
    among(f"{path}: figures", content.get("figures", ()), FIGURES)
    if "base" in content:
        among(f"{path}: base", [content["base"]], labels)
    require("base" in content or not content.get("effects"), f"{path}: effects", "needs a base")
    drawn_curve = "curve" in content.get("figures", ())
    require(
        drawn_curve == ("curve" in content),
        f"{path}: curve",
        "names the setting of the figure 'curve': there is one without the other",
    )
    return Suite(
        name=path.stem,
        path=path,
        title=content["title"],
        text=content["text"].strip(),
        sets=tuple(content["sets"]),
        seeds=tuple(content["seeds"]),
        rows=tuple(rows),
        budgets=budgets,
        metrics=tuple(content.get("metrics", ("auroc",))),
        costs=content.get("costs", False),
        figures=tuple(content.get("figures", ())),
        **{name: content[name] for name in _AS_THEY_ARE if name in content},
    )


_AS_THEY_ARE = ("curve", "base", "effects", "uses_test_labels")


def _check_selection(where: str, row: Row, allowed: bool) -> None:
    """Refuse a row that selects by test labels unless it and the suite say so."""
    from scrd.objectives import OBJECTIVES

    where = f"{where}, select"
    require(allowed, where, "test labels choose: only in a suite with uses_test_labels = true")
    require(BEST_ON_TEST in row.label, where, f"its label must say {BEST_ON_TEST!r}")
    objective = OBJECTIVES.get(str(row.method))
    require(
        objective and objective.student,
        where,
        "only an objective that trains a student has checkpoints",
    )


def _preset(where: str, name: str) -> Preset:
    try:
        return read_preset(name)
    except ConfigError as e:
        raise SuiteError(f"{where}: {e}") from e


def _check(
    where: str,
    table: Mapping[str, Any],
    kinds: Mapping[str, type | tuple[type, ...]],
    required: Sequence[str],
) -> None:
    for key, value in table.items():
        require(key in kinds, where, f"unknown key {key!r}: choose one of {', '.join(kinds)}")
        wrong = type(value) is bool and kinds[key] is not bool
        require(
            isinstance(value, kinds[key]) and not wrong,
            f"{where}, {key}",
            f"has the wrong type, {type(value).__name__}",
        )
    for key in required:
        require(key in table, where, f"no key {key!r}")

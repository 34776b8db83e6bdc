"""The results of a suite: which line belongs where, and means over seeds and data sets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scrd.bench.results import Line, canonical
from scrd.bench.suite import OWN, Row, Suite

COSTS = (
    "parameters_trained",
    "bytes",
    "seconds_per_image",
    "peak_memory_fit",
    "peak_memory_score",
    "fit_seconds",
)
"""Keys of ``cost`` in a result line that are averaged over the runs of a row."""

VERDICTS = (
    *("sensitivity", "false_alarm_rate"),
    *("sensitivity_by_image", "false_alarm_rate_by_image"),
)
"""At the threshold that is calibrated on held-out normals: for the rate as the settings promise it,
and, where that is by group, for the same rate by image."""

WITHIN = "auroc_within_"
"""And a manifest's column, such as the view: the AUROC of pairs of images that share its value."""


@dataclass(frozen=True)
class Found:
    """The result lines of a suite at one budget.

    Attributes:
        suite: what was asked for.
        budget: a key of its budgets.
        runs: (label of a row, data set) → seed → line.
        superseded: lines that a later one for the same table cell and seed replaces: of other
            data or another version.
    """

    suite: Suite
    budget: str
    runs: Mapping[tuple[str, str], Mapping[int, Line]]
    superseded: int

    def distinct_rows(self) -> list[Row]:
        """The rows with runs, without those that only pool another row's runs otherwise."""
        seen: set[tuple[int, ...]] = set()
        rows = []
        for row in self.suite.rows_of(self.budget):
            several = [self.runs.get((row.label, data), {}) for data in self.suite.sets]
            mine = tuple(id(line) for seeds in several for line in seeds.values())
            if mine and mine not in seen:
                rows.append(row)
            seen.add(mine)
        return rows

    def rows(self) -> list[Row]:
        """The rows with runs that have a score under their pooling."""

        def scored(row: Row) -> bool:
            several = (self.runs.get((row.label, data), {}) for data in self.suite.sets)
            return any(
                row.pooling in line["by_pooling"] for seeds in several for line in seeds.values()
            )

        return [row for row in self.suite.rows_of(self.budget) if scored(row)]

    @property
    def sets(self) -> list[str]:
        """The data sets with runs."""
        run = {data for _, data in self.runs}
        return [data for data in self.suite.sets if data in run]

    def strata(self, data: str) -> list[str]:
        """Names of the figures ``auroc_within_COLUMN`` that some row has on a data set."""
        rows = [row for row in self.suite.rows_of(self.budget) if (row.label, data) in self.runs]
        names = {
            name
            for row in rows
            for line in self.runs[row.label, data].values()
            for name in figures_of(line, row)
        }
        return sorted(name for name in names if name.startswith(WITHIN))

    @property
    def lines(self) -> list[Line]:
        """Every line in use, once."""
        used = {id(line): line for seeds in self.runs.values() for line in seeds.values()}
        return list(used.values())


def find(suite: Suite, budget: str, lines: Sequence[Line]) -> Found:
    """Pick the lines that belong to a suite; of several for one cell and seed the last counts.

    Seeds are those in the results, whether the suite names them or not.
    """
    by_asked: dict[str, dict[int, list[Line]]] = {}
    for line in lines:
        key = line["key"]
        asked = _question(key)
        by_asked.setdefault(asked, {}).setdefault(key["seed"], []).append(line)
    runs: dict[tuple[str, str], dict[int, Line]] = {}
    replaced: set[int] = set()
    for row in suite.rows_of(budget):
        for data in suite.sets if row.method is not None else ():
            wanted = suite.run(row, budget, data, 0).asked()
            seeds = by_asked.get(_question(wanted), {})
            if seeds:
                runs[row.label, data] = {seed: seeds[seed][-1] for seed in sorted(seeds)}
                replaced |= {id(old) for several in seeds.values() for old in several[:-1]}
    return Found(suite, budget, runs, len(replaced))


def _question(key: Mapping[str, Any]) -> str:
    """What a table asks of a run, or a run answers.

    The file that the teacher's weights came from is no part of it, unless they are random.
    """
    names = ("method", "settings", "data", "split", "select")
    asked = {name: key[name] for name in names if name in key}
    weights = asked["settings"].get("weights")
    if weights != "random":
        asked["settings"] = {**asked["settings"], "weights": None}
    return canonical(asked)


@dataclass(frozen=True)
class Cell:
    """Figures over the seeds, as shares.

    Attributes:
        mean: of the seeds.
        deviation: standard deviation over the seeds (N - 1); NaN for one seed.
        interval: mean lower and mean upper end of the runs' 95 % intervals, if they have any.
        seeds: number of seeds.
    """

    mean: float
    deviation: float
    interval: tuple[float, float] | None
    seeds: int


def over_seeds(values: Sequence[float], intervals: Sequence[Sequence[float]] = ()) -> Cell:
    """Mean and deviation of N values, and the mean of N intervals."""
    ends = np.mean(intervals, axis=0).tolist() if len(intervals) else None
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return Cell(
        float(np.mean(values)), deviation, (ends[0], ends[1]) if ends else None, len(values)
    )


def cell(found: Found, row: Row, data: str, metric: str) -> Cell | None:
    """Mean over the seeds of a figure of a row, see :func:`cell_of`; None without such a run."""
    return cell_of(list(found.runs.get((row.label, data), {}).values()), row, metric)


def cell_of(lines: Sequence[Line], row: Row, metric: str) -> Cell | None:
    """Mean over runs of a figure under the pooling of a row; None where no run has it."""
    several = [figures_of(line, row) for line in lines]
    known = [figures for figures in several if metric in figures]
    if not known:
        return None
    interval = f"{metric}_ci95"
    return over_seeds([f[metric] for f in known], [f[interval] for f in known if interval in f])


def figures_of(line: Line, row: Row) -> Mapping[str, Any]:
    """What a row reports of a run: all figures under its pooling, and where its map points.

    ``auroc_within_COLUMN`` are among them for the columns of the manifest that can be compared.
    """
    # version 0.2.0 wrote the verdicts of the own score alone, and there
    own = line["metrics"] if row.pooling == OWN else {}
    verdicts = {name: own[name] for name in VERDICTS if name in own}
    pooled = {**line["by_pooling"].get(row.pooling, {})}
    strata = pooled.pop("within", own.get("within", {}))
    within = {f"{WITHIN}{column}": _stratified(values) for column, values in strata.items()}
    return {**line.get("localisation", {}), **verdicts, **pooled, **within}


def _stratified(strata: Mapping[str, Mapping[str, float]]) -> float:
    """AUROC of pairs from the same stratum: how often the abnormal one of two has more."""
    pairs = [one["n_normal"] * one["n_abnormal"] for one in strata.values()]
    return float(np.average([one["auroc"] for one in strata.values()], weights=pairs))


def mean_over_sets(found: Found, row: Row, metric: str) -> Cell | None:
    """Mean of the sets' means, with the deviation over the seeds of all; None if a set lacks runs.

    So it is the mean of what stands beside it in a table, whichever seeds that is of.
    """
    per_set = []
    for data in found.sets:
        seeds = found.runs.get((row.label, data), {})
        figures = {seed: figures_of(line, row) for seed, line in seeds.items()}
        per_set.append({seed: f[metric] for seed, f in figures.items() if metric in f})
    if not per_set or not all(per_set):
        return None
    common = sorted(set.intersection(*(set(values) for values in per_set)))
    by_seed = [float(np.mean([v[seed] for v in per_set])) for seed in common]
    mean = float(np.mean([np.mean(list(values.values())) for values in per_set]))
    deviation = over_seeds(by_seed).deviation if by_seed else math.nan
    return Cell(mean, deviation, None, len(common))


def costs(found: Found, row: Row) -> dict[str, float]:
    """Mean of each cost over the runs of a row; what no run has is left out."""
    lines = [
        line for data in found.suite.sets for line in found.runs.get((row.label, data), {}).values()
    ]
    values = {name: [x["cost"][name] for x in lines] for name in COSTS}
    known = {name: [v for v in several if v is not None] for name, several in values.items()}
    return {name: float(np.mean(several)) for name, several in known.items() if several}


def overall_auroc(found: Found, row: Row) -> Cell | None:
    """AUROC over all sets; of the only set with its interval."""
    if len(found.sets) == 1:
        return cell(found, row, found.sets[0], "auroc")
    return mean_over_sets(found, row, "auroc")


def times_slower(found: Found, row: Row, base: Row) -> float | None:
    """Time to score an image over that of another row; None without runs on one machine."""

    def times(row: Row) -> dict[str, list[float]]:
        known: dict[str, list[float]] = {}
        for data in found.sets:
            for line in found.runs.get((row.label, data), {}).values():
                machine = canonical(line["machine"])
                known.setdefault(machine, []).append(line["cost"]["seconds_per_image"])
        return known

    mine, others = times(row), times(base)
    for machine in sorted(others, key=lambda name: (-len(others[name]), name)):
        if machine in mine:
            return float(np.mean(mine[machine]) / np.mean(others[machine]))
    return None

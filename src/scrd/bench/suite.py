"""What is to be run: the rows of a table, the data sets and the seeds."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from scrd.bench.budgets import Settings
from scrd.config import Config
from scrd.errors import ConfigError, ScrdError
from scrd.presets.files import Preset
from scrd.storage.plain import from_plain, to_plain
from scrd.system.version import __version__

OWN = "own"
"""The pooling of a row that reports each method by its own score; for a detector the calibrated
one."""

OF_A_MAP = ("mean", "top", "max")
POOLED = (OWN, "areas", "excess", "excess_uniform", "excess_plain", *OF_A_MAP)
METRICS = ("auroc", "ap", "f1", "acc")
FIGURES = ("roc", "histograms", "alpha", "curve", "cost", "heatmaps")
SPLITS = ("set", "random")
SELECTIONS = ("last", "test")
BEST_ON_TEST = "best on test"
"""What the label of a row must say whose checkpoint test labels choose."""

_OVER_PRESETS = ("teacher", "weights", "image_size", "iterations", "batch_size")
"""What a budget may change of a preset: how much work it is, not which."""

_WITHOUT_EFFECT = ("deterministic", "checkpoint_every", "feature_cache_gib", "image_cache_gib")
_OF_A_BASELINE = (
    *("teacher", "weights", "image_size", "iterations", "batch_size"),
    *("resize", "channels", "window", "held_out", "false_alarm_rate", "promise"),
)


class SuiteError(ScrdError):
    """A suite cannot be read or contradicts itself; the message names the file and the key."""


@dataclass(frozen=True)
class Run:
    """One training and its evaluation.

    Attributes:
        data: name of the data set's folder.
        method: an objective of :data:`scrd.objectives.OBJECTIVES`, or a baseline.
        config: every setting, ``seed`` among them; a baseline takes from it what it has.
        split: ``"set"``, normals train and are tested as the data set says; ``"random"``, see
            :func:`scrd.bench.protocol.split_at_random`.
        select: ``"last"``, the last iteration is the model; ``"test"``, see
            :class:`scrd.bench.selection.BestOnTest`.
        rows: the rows of the suite that report it.
    """

    data: str
    method: str
    config: Config
    split: str = "set"
    select: str = "last"
    rows: tuple[Row, ...] = field(default=(), compare=False)

    @property
    def label(self) -> str:
        """What a table calls it: the label of the first row that reports it."""
        return self.rows[0].label if self.rows else self.method

    def settings(self) -> dict[str, Any]:
        """The settings that act on the result, the seed apart; plain JSON types."""
        from scrd.objectives import OBJECTIVES

        settings: dict[str, Any] = to_plain(self.config)
        for name in ("seed", "objective", *_WITHOUT_EFFECT):
            del settings[name]
        if self.method not in OBJECTIVES:
            settings = {name: settings[name] for name in _OF_A_BASELINE}
        if settings["weights"] is not None:  # where the file lies is nobody's business
            settings["weights"] = Path(settings["weights"]).name
        return settings

    def asked(self) -> dict[str, Any]:
        """What a table asks for: method, settings, name of the data set, seed.

        ``split`` and ``select`` are among it where they are not the usual ones.
        """
        asked = {
            "method": self.method,
            "settings": self.settings(),
            "data": self.data,
            "seed": self.config.seed,
        }
        unusual = {"split": self.split} if self.split != SPLITS[0] else {}
        return asked | unusual | ({"select": self.select} if self.select != SELECTIONS[0] else {})

    def key(self, fingerprint: str) -> dict[str, Any]:
        """What makes two runs the same, of whatever suite: ``asked``, data and version."""
        return {**self.asked(), "fingerprint": fingerprint, "version": __version__}


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        label: the name in the table.
        method: see :class:`Run`; None keeps the place of one that is not implemented.
        preset: settings of a published training, in the place of the budget's, of which only what
            makes it smaller acts on them, and the budget ``paper`` not at all.
        settings: fields of :class:`scrd.config.Config` beside or instead of those.
        iterations_times: factor on the budget's iterations.
        pooling: which score the table reports, one of ``POOLED``.
        split: one of ``SPLITS``, see :class:`Run`.
        select: one of ``SELECTIONS``, see :class:`Run`.
        budgets: the budgets that have this row; empty for all.
        drawn: whether figures of single rows (ROC, histograms) show it.
        reference: data set → AUROC that the paper prints, in %.
        reference_megabytes: size of the parameters that the paper prints.
        reference_times: how many times slower than its own method the paper says it is.
    """

    label: str
    method: str | None = None
    preset: Preset | None = None
    settings: Settings = field(default_factory=dict)
    iterations_times: float = 1
    pooling: str = OWN
    split: str = SPLITS[0]
    select: str = SELECTIONS[0]
    budgets: tuple[str, ...] = ()
    drawn: bool = False
    reference: Mapping[str, float] = field(default_factory=dict)
    reference_megabytes: float | None = None
    reference_times: float | None = None


@dataclass(frozen=True)
class Suite:
    """The content of a suite file.

    Attributes:
        name: of the file, without suffix.
        path: the file, for messages.
        title: heading of its section.
        text: what it shows.
        sets: folders of data.
        seeds: of the runs.
        rows: of the table.
        budgets: name → settings common to all rows.
        metrics: one table each, of ``METRICS``; without any there are figures alone.
        costs: whether there is a table of parameters, time and memory.
        figures: of ``FIGURES``.
        curve: the setting on the x axis of the figure ``curve``, such as ``noise.strength``.
        base: label of the row that ratios of time and the table of effects compare with.
        effects: whether there is a table of differences to ``base``.
        uses_test_labels: whether rows may select their checkpoint by them.
    """

    name: str
    path: Path
    title: str
    text: str
    sets: tuple[str, ...]
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    budgets: Mapping[str, Settings]
    metrics: tuple[str, ...] = ("auroc",)
    costs: bool = False
    figures: tuple[str, ...] = ()
    curve: str | None = None
    base: str | None = None
    effects: bool = False
    uses_test_labels: bool = False

    def rows_of(self, budget: str) -> list[Row]:
        """The rows that a budget has, implemented or not."""
        return [row for row in self.rows if not row.budgets or budget in row.budgets]

    def run(self, row: Row, budget: str, data: str, seed: int) -> Run:
        """The run behind one row, data set and seed.

        Raises:
            SuiteError: no such budget, or a setting that the method has not.
        """
        if budget not in self.budgets:
            raise SuiteError(
                f"{self.path}: no budget {budget!r}: choose one of {', '.join(self.budgets)}"
            )
        assert row.method is not None
        where = f"{self.path}: row {row.label!r}, settings"
        config = resolve(where, row, budget, self.budgets[budget], seed)
        return Run(data, row.method, config, row.split, row.select, (row,))

    def runs(
        self,
        budget: str,
        *,
        sets: Collection[str] = (),
        rows: Collection[str] = (),
        methods: Collection[str] = (),
        seeds: Collection[int] = (),
        weights: str | None = None,
    ) -> list[Run]:
        """All distinct runs, the first seed of everything first.

        Args:
            budget: a key of ``budgets``.
            sets: only these data sets; empty for all, as for the others.
            rows: only these labels.
            methods: only these methods.
            seeds: these seeds instead of the suite's.
            weights: file of the weights of the budget's teacher, or ``"random"``.

        Raises:
            SuiteError: a name that the suite has not.
        """
        present = [row for row in self.rows_of(budget) if row.method is not None]
        for what, wanted, known in (
            ("data set", sets, self.sets),
            ("row", rows, [row.label for row in present]),
            ("method", methods, [str(row.method) for row in present]),
        ):
            for name in wanted:
                if name not in known:
                    choices = ", ".join(dict.fromkeys(known))
                    raise SuiteError(f"{self.path}: no {what} {name!r}: choose one of {choices}")
        found = [
            _with_weights(self.run(row, budget, data, seed), weights, self.budgets[budget])
            for seed in seeds or self.seeds
            for data in (name for name in self.sets if not sets or name in sets)
            for row in present
            if (not rows or row.label in rows) and (not methods or row.method in methods)
        ]
        distinct: dict[str, Run] = {}
        for run in found:
            asked = json.dumps(run.asked(), sort_keys=True)
            same = distinct.get(asked)
            distinct[asked] = replace(same, rows=same.rows + run.rows) if same else run
        return list(distinct.values())


def _with_weights(run: Run, weights: str | None, budget: Settings) -> Run:
    own = run.config.teacher == budget.get("teacher", Config.teacher)
    if weights is None or run.config.weights is not None or not own:
        return run
    return replace(run, config=replace(run.config, weights=weights))


def resolve(where: str, row: Row, name: str, budget: Settings, seed: int) -> Config:
    """The full settings of a row under the budget of a name; refuses what does not act on it."""
    from scrd.objectives import OBJECTIVES

    settings = {**budget, **row.settings, "seed": seed}
    if row.preset is not None:
        smaller = {} if name == "paper" else {k: budget[k] for k in _OVER_PRESETS if k in budget}
        settings = row.preset.merged({**smaller, **row.settings, "seed": seed})
    for name, value in settings.items():
        kind = type(getattr(Config, name, None))
        if kind in (int, float, str) and not (kind is float and type(value) is int):
            require(type(value) is kind, f"{where}, {name}", f"{value!r} is no {kind.__name__}")
    try:
        if row.method in OBJECTIVES:
            settings["objective"] = row.method
        else:
            among(where, list(row.settings), _OF_A_BASELINE)
            # what a budget says of objectives is not for it
            settings = {k: v for k, v in settings.items() if k in (*_OF_A_BASELINE, "seed")}
        if row.iterations_times != 1:
            iterations = settings.get("iterations", Config.iterations)
            settings["iterations"] = max(1, round(row.iterations_times * iterations))
        return from_plain(Config, settings)
    except ConfigError as e:
        raise SuiteError(f"{where}: {e}") from e


def require(condition: object, where: str, message: str) -> None:
    """Raise SuiteError with the place and the message unless the condition holds."""
    if not condition:
        raise SuiteError(f"{where}: {message}")


def among(where: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Raise SuiteError for a name that is not known."""
    for name in names:
        require(name in known, where, f"unknown {name!r}: choose one of {', '.join(known)}")

"""Figures for Prometheus, in a registry of the service's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

_P = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_SECONDS = (0.005, 0.02, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_REASONS = (
    ("not what the model knows", "another kind"),
    ("truncated", "broken"),
    ("broken", "broken"),
    ("empty", "broken"),
    ("not a PNG", "no image"),
    ("is not read", "format"),
    ("pixels", "too large"),
    ("memory", "too large"),
    ("worker", "worker died"),
)


def reason_of(text: str) -> str:
    """One of a few words for a reason: a label must not have a value a file."""
    return next((word for start, word in _REASONS if start in text), "other")


class Metrics:
    """What is counted.

    Attributes:
        registry: what `text` tells.
        requests: by status and route.
        watch_well: by state file.
        worker_deaths: times that the worker died.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        common: dict[str, Any] = {"registry": self.registry, "namespace": "scrd"}
        self._images = Counter("images", "Images, by what came of them", ["verdict"], **common)
        self._results = Counter(
            "results", "Pictures and series, by verdict and model", ["verdict", "model"], **common
        )
        self._refusals = Counter(
            "refusals", "Images without a score, by reason", ["reason"], **common
        )
        self._doubted = Counter("doubted", "Results with doubts", **common)
        self._failures = Counter("jobs_failed", "Jobs that failed, by reason", ["reason"], **common)
        self._jobs = Counter("jobs_done", "Jobs with results", **common)
        self._seconds = Histogram(
            "seconds", "Seconds of a job, by stage", ["stage"], buckets=_SECONDS, **common
        )
        self._p_values = Histogram(
            "p_value", "p-values of pictures and series", ["model"], buckets=_P, **common
        )
        self._wealth = Gauge(
            "drift_wealth", "Of who bets on drift, 1 at the start", ["model"], **common
        )
        self._alarm = Gauge(
            "drift_alarm", "Highest level that the wealth has passed, or 0", ["model"], **common
        )
        self.watch_well = Gauge(
            "watch_well", "1 where a scrd watch lives and gets on", ["state"], **common
        )
        self.requests = Counter("requests", "Requests", ["route", "status"], **common)
        self.worker_deaths = Counter("worker_deaths", "Times that the worker died", **common)

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A figure that is asked for when it is told."""
        gauge = Gauge(name, text, registry=self.registry, namespace="scrd")
        gauge.set_function(value)

    def drifted(self, model: str, wealth: float, alarm: int) -> None:
        """The stream of a model was looked at.

        Args:
            model: its name.
            wealth: of a gambler who bets on drift.
            alarm: the highest level that it has passed, or 0.
        """
        self._wealth.labels(model).set(wealth)
        self._alarm.labels(model).set(alarm)

    def uploaded(self, seconds: float) -> None:
        """A body was read and put on the disk."""
        self._seconds.labels("upload").observe(seconds)

    def failed(self, reason: str) -> None:
        """A job failed."""
        self._failures.labels(reason_of(reason)).inc()

    def finished(
        self,
        rows: Sequence[dict[str, Any]],
        model: str,
        *,
        queued: float,
        scoring: float,
        storing: float,
    ) -> None:
        """A job has its results.

        Args:
            rows: its results.
            model: that scored them.
            queued: seconds that it waited.
            scoring: seconds that it was scored.
            storing: seconds until its results counted.
        """
        self._jobs.inc()
        for stage, seconds in (("queue", queued), ("score", scoring), ("store", storing)):
            self._seconds.labels(stage).observe(max(0.0, seconds))
        for row in rows:
            verdict = _verdict(row)
            self._results.labels(verdict, model).inc()
            self._doubted.inc(bool(row["doubts"]))
            if row["p_value"] is not None:
                self._p_values.labels(model).observe(row["p_value"])
            for image in row["detail"]["images"]:
                self._images.labels(_verdict(image)).inc()
                if image.get("refusal"):
                    self._refusals.labels(reason_of(image["refusal"])).inc()

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)


def _verdict(row: dict[str, Any]) -> str:
    if row.get("refusal"):
        return "refused"
    return "flagged" if row.get("flag") else "not flagged"

"""Whether a stream has drifted: all that is found, put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrd.monitor.beyond import Beyond, beyond_training
from scrd.monitor.martingale import LEVELS, average, first_at, log_wealth
from scrd.monitor.p_values import online_p_values
from scrd.monitor.rates import Expected, Rate, calibrated, flag_rate, windows
from scrd.monitor.sample import QUANTITIES, Sample, of_calibration, of_stream
from scrd.monitor.stream import MonitorError, Stream
from scrd.storage.known import Known

SEED = 0
"""Of all that is drawn: the same tables give the same answer."""


@dataclass(frozen=True)
class Alarm:
    """The wealth has reached a level.

    Attributes:
        level: the wealth; if nothing has changed, the probability of this alarm is at most its
            inverse.
        at: place of the image at which it was first reached among the counted ones, from 0.
        path: of that image.
        driver: the quantity with the largest wealth at that moment.
        higher: whether its median, up to that image, lies above that of the reference.
    """

    level: int
    at: int
    path: str
    driver: str
    higher: bool


@dataclass(frozen=True)
class Drift:
    """What is found in a stream.

    Attributes:
        model: fingerprint.
        tables: what was read.
        images: scored images in them.
        unscored: images without a score.
        counted: the N images that count, one a study where studies are known.
        reference: what they are compared with.
        accepted: tables of the reference; empty for the calibration normals.
        log_wealths: by quantity, (N,) float64, natural logarithms, see
            :func:`scrd.monitor.martingale.log_wealth`.
        log_wealth: (N,) float64, their average, which raises the alarms.
        alarms: one a level that was reached, in rising order.
        flagged: of the counted images.
        expected: what that should be.
        windows: the same in parts.
        beyond: covariates against training; empty where no table tells them.
        notes: what limits all this, a sentence each.
    """

    model: str
    tables: tuple[Path, ...]
    images: int
    unscored: int
    counted: Sample
    reference: Sample
    accepted: tuple[Path, ...]
    log_wealths: Mapping[str, NDArray[np.float64]]
    log_wealth: NDArray[np.float64]
    alarms: tuple[Alarm, ...]
    flagged: Rate
    expected: Expected
    windows: tuple[Rate, ...]
    beyond: tuple[Beyond, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the single values, as JSON types; ``docs/commands.md`` has the keys."""
        return {
            "model": self.model,
            "tables": [str(table) for table in self.tables],
            "reference": {
                "tables": [str(table) for table in self.accepted],
                "images": len(self.reference),
            },
            "images": self.images,
            "unscored": self.unscored,
            "counted": len(self.counted),
            "wealth": {
                "together": _wealth(self.log_wealth),
                **{name: _wealth(found) for name, found in self.log_wealths.items()},
            },
            "medians": {
                name: {
                    "stream": float(np.median(self.counted.values[name])),
                    "reference": float(np.median(self.reference.values[name])),
                }
                for name in self.log_wealths
            },
            "alarms": [
                {
                    "wealth": alarm.level,
                    "image": alarm.at + 1,
                    "path": alarm.path,
                    "driver": alarm.driver,
                    "direction": "higher" if alarm.higher else "lower",
                }
                for alarm in self.alarms
            ],
            "flagged": _rate(self.flagged, self.expected),
            "expected": {"rate": self.expected.rate, "limits": list(self.expected.limits)},
            "windows": [_rate(window, self.expected) for window in self.windows],
            "beyond_training": [dict(vars(one)) for one in self.beyond],
            "notes": list(self.notes),
        }


def find_drift(stream: Stream, known: Known, accepted: Stream | None = None) -> Drift:
    """Compare a stream with the calibration normals, or with another stream.

    Args:
        stream: what is watched.
        known: the model that scored it.
        accepted: what to compare it with instead, such as the first weeks of a site, looked at
            and found in order. A study that is in both counts for these alone.

    Raises:
        ConfigError: no normals calibrated the model, so that nothing says how its scores and flags
            should be.
        MonitorError: every study of the stream is in these.
    """
    known.calibration.require("drift is told by calibration normals")
    before = {image.study for image in accepted.images} if accepted else set()
    counted = of_stream(stream.images, _generator("stream"), before)
    if not len(counted):
        raise MonitorError(
            f"{stream.tables[0]}: every study is in the reference: there is nothing to watch yet"
        )
    if accepted is None:
        reference = of_calibration(known.calibration, _generator("reference"))
        expected = calibrated(known.calibration)
    else:
        reference = of_stream(accepted.images, _generator("reference"))
        rate = flag_rate([image.flag for image in reference.images])
        expected = Expected(rate.rate, rate.limits)
    watched = [n for n in QUANTITIES if n in counted.values and n in reference.values]
    p_values = [
        online_p_values(reference.values[name], counted.values[name], _generator(name))
        for name in watched
    ]
    logs = dict(zip(watched, log_wealth(p_values), strict=True))
    together = average(list(logs.values()))
    flags = [image.flag for image in counted.images]
    told = [image.covariates for image in stream.images if image.covariates is not None]
    return Drift(
        model=known.fingerprint,
        tables=stream.tables,
        images=len(stream.images),
        unscored=stream.unscored,
        counted=counted,
        reference=reference,
        accepted=accepted.tables if accepted else (),
        log_wealths=logs,
        log_wealth=together,
        alarms=tuple(_alarms(together, logs, counted, reference)),
        flagged=flag_rate(flags),
        expected=expected,
        windows=windows(flags),
        beyond=beyond_training(told, known.contract),
        notes=tuple(_notes(known, counted, reference, accepted is not None)),
    )


def _generator(what: str) -> np.random.Generator:
    """One for each purpose, so that none changes what another one draws."""
    return np.random.default_rng([SEED, ("stream", "reference", *QUANTITIES).index(what)])


def _alarms(
    together: NDArray[np.float64],
    logs: Mapping[str, NDArray[np.float64]],
    counted: Sample,
    reference: Sample,
) -> list[Alarm]:
    found = []
    for level in LEVELS:
        at = first_at(together, level)
        if at is None:
            break
        driver = max(logs, key=lambda name: float(logs[name][at]))
        median = np.median(counted.values[driver][: at + 1])
        higher = bool(median > np.median(reference.values[driver]))
        found.append(Alarm(level, at, counted.images[at].path, driver, higher))
    return found


def _notes(known: Known, counted: Sample, reference: Sample, by_stream: bool) -> Sequence[str]:
    notes = []
    acquisition = set(QUANTITIES[1:])
    if not acquisition & counted.values.keys():
        notes.append(
            "not all images tell brightness, contrast and sharpness: only the score is watched"
        )
    elif not acquisition & reference.values.keys():
        whose = "the reference" if by_stream else "this model"
        notes.append(
            f"{whose} keeps no brightness, contrast and sharpness of its images: only the score is "
            "watched" + ("" if by_stream else "; train again, or give --reference")
        )
    unknown = sum(not image.study for image in counted.images)
    if unknown:
        notes.append(
            f"{unknown} images are of no known study and count as a patient each; several of one "
            "patient would raise false alarms"
        )
    if counted.repeated:
        notes.append(
            f"{counted.repeated} images are of studies that came before, and are not counted again"
        )
    if not by_stream and known.calibration.silence:
        notes.append(known.calibration.silence)
    return notes


def _wealth(logs: NDArray[np.float64]) -> dict[str, Any]:
    """Of a wealth, its decimal logarithms, since the number itself may exceed all bounds."""
    tens = logs / np.log(10)
    return {"log10_now": float(tens[-1]), "log10_highest": float(tens.max())}


def _rate(found: Rate, expected: Expected) -> dict[str, Any]:
    return {
        "first_image": found.start + 1,
        "images": found.images,
        "flagged": found.flagged,
        "rate": found.rate,
        "limits": list(found.limits),
        "compared": expected.compared(found),
    }

"""Sizes, spacings, manufacturers and kinds of files that training never showed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from scrd.data.contract import Contract
from scrd.data.covariates import Covariates

_SLACK = 1e-3  # of a spacing: headers round it


@dataclass(frozen=True)
class Beyond:
    """One covariate of a stream, against training.

    Attributes:
        name: what it is.
        images: how many images tell it.
        beyond: how many of them lie beyond what training showed.
        found: their values, in words; empty where there are none.
        trained: those of training, in words.
    """

    name: str
    images: int
    beyond: int
    found: str
    trained: str


def beyond_training(images: Iterable[Covariates], contract: Contract) -> tuple[Beyond, ...]:
    """Compare the images of a stream with the training images.

    Args:
        images: of the stream.
        contract: what training showed; what it leaves open is not compared.
    """
    seen = list(images)
    found = []
    for name, unit, span, values in (
        ("shorter side", "pixels", contract.shorter_side, _shorter_side),
        ("pixel spacing", "mm", contract.spacing, _spacings),
    ):
        if span is not None:
            found.append(_against_span(name, unit, span, [values(image) for image in seen]))
    for name, known, value in (
        ("manufacturer", contract.manufacturers, _manufacturer),
        ("kind of file", contract.files, _format),
    ):
        if known:
            found.append(_against_words(name, known, seen, value))
    return tuple(one for one in found if one.images)


def _shorter_side(image: Covariates) -> tuple[float, ...]:
    return (min(image.width, image.height),)


def _spacings(image: Covariates) -> tuple[float, ...]:
    return image.spacing or ()


def _manufacturer(image: Covariates) -> str | None:
    return image.manufacturer


def _format(image: Covariates) -> str | None:
    return image.format


def _against_span(
    name: str, unit: str, span: tuple[float, float], values: Sequence[tuple[float, ...]]
) -> Beyond:
    low, high = span[0] * (1 - _SLACK), span[1] * (1 + _SLACK)
    told = [one for one in values if one]
    out = [one for one in told if not all(low <= value <= high for value in one)]
    numbers = [value for one in out for value in one if not low <= value <= high]
    return Beyond(
        name,
        len(told),
        len(out),
        f"{_span(min(numbers), max(numbers))} {unit}" if numbers else "",
        f"{_span(*span)} {unit}",
    )


def _against_words(
    name: str,
    known: Sequence[str],
    images: Sequence[Covariates],
    value: Callable[[Covariates], str | None],
) -> Beyond:
    told = [word for image in images if (word := value(image)) is not None]
    out = [word for word in told if word not in known]
    return Beyond(name, len(told), len(out), ", ".join(sorted(set(out))), ", ".join(known))


def _span(low: float, high: float) -> str:
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"

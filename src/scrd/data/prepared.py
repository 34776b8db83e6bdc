"""One image, from its file to model input, and what is to be said about it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scrd.data.contract import Contract
from scrd.data.covariates import Covariates, acquisition, covariates
from scrd.data.intensity import Intensity, series_percentiles
from scrd.data.plausibility import Facts, measure, nothing
from scrd.data.preprocess import Preprocessing, content_masks, prepare
from scrd.data.reading import read_image, read_info
from scrd.data.sample import even
from scrd.data.source import Series, Source
from scrd.errors import ImageError

_WINDOW_IMAGES = 32


class Job(NamedTuple):
    """How images are read.

    Attributes:
        preprocessing: How they become input.
        contract: What they must be like.
        any_kind: Whether its refusals are doubts.
    """

    preprocessing: Preprocessing
    contract: Contract | None = None
    any_kind: bool = False


class Read(NamedTuple):
    """An image that was read.

    Attributes:
        image: (C, S, S), float32, as :func:`scrd.data.preprocess.prepare` makes it.
        size: Rows and columns of its file.
        facts: What is plain to see in it.
        doubts: What speaks against its being of the training images' kind.
        covariates: Where it comes from; None where no contract asks.
    """

    image: NDArray[np.float32]
    size: tuple[int, int]
    facts: Facts
    doubts: tuple[str, ...]
    covariates: Covariates | None


def prepare_image(source: Source, job: Job) -> Read | ImageError:
    """Read an image and make it model input; what is wrong with it is returned."""
    preprocessing, contract, any_kind = job
    intensity, series = preprocessing.intensity, source.series
    try:
        doubts: list[str] = []
        info = None
        if contract is not None:
            info = read_info(source)
            refusals, doubts = contract.check(info)
            if any_kind:
                doubts = refusals + doubts
            elif refusals:
                return ImageError(source.path, "not what the model knows: " + "; ".join(refusals))
        pixels = read_image(source)
        window = None
        if intensity.scope == "series" and series is not None:
            window = series.window(partial(measure_window, intensity=intensity))
    except ImageError as error:
        return error
    facts = measure(pixels, intensity, window)
    # a volume may well begin with slices of air, which belong to its picture
    if facts.constant and not any_kind and (series is None or len(series.places) == 1):
        return ImageError(source.path, nothing(facts))
    if contract is not None:
        doubts += contract.plausible.doubts(facts)
    image = prepare(pixels, preprocessing, window)
    size, known = (pixels.shape[0], pixels.shape[1]), None
    if contract is not None:
        numbers = acquisition(image[None], content_masks([size], preprocessing))[0]
        known = covariates(size, info, numbers)
    return Read(image, size, facts, tuple(doubts), known)


def measure_window(series: Series, intensity: Intensity) -> tuple[float, float]:
    """The window of a series, from at most 32 of its images, evenly spread.

    Args:
        series: The images.
        intensity: The rule that wants it, see `series_percentiles`.

    Raises:
        ImageError: None of them can be read; the error is that of the first.
    """
    chosen = even(series.sources, _WINDOW_IMAGES)
    failures: list[ImageError] = []

    def readable() -> Iterator[NDArray[Any]]:
        for source in chosen:
            try:
                yield read_image(source)
            except ImageError as error:
                failures.append(error)

    images = readable()
    first = next(images, None)
    if first is None:
        raise failures[0]
    return series_percentiles(itertools.chain([first], images), intensity)

"""How well anomaly maps point at marked lesions: pixel AUROC, pixel AP, AUPRO, pointing game.

Maps are float arrays (H, W) at the source image's resolution, any real range, higher meaning more
abnormal; masks are (H, W), nonzero inside a lesion. Images may differ in size, and an image
without a lesion takes part with a mask of zeros.

A test set holds hundreds of millions of pixels, so they are counted in at most `BINS` bins, one
map at a time, instead of being sorted. Half of the bins' edges are quantiles of the pixels inside
lesions, half of those outside, each from an even sample. Where a class has no more distinct values
than its half, all of them are edges and the result is exact. Otherwise values in one bin count as
tied, which moves a pixel AUROC by at most half of the largest share of normal pixels in one bin
(about 1e-4), and AP and AUPRO by about as little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scrd.metrics.ranks import auroc_from_counts, average_precision_from_counts

Array = NDArray[np.generic]
BINS = 1 << 16
_SAMPLE = 1 << 20


@dataclass(frozen=True)
class PixelTally:
    """Pixels of all images counted by score, highest score first.

    Attributes:
        abnormal: shape (V,), pixels inside lesions.
        normal: shape (V,), pixels outside.
        overlap: shape (V,), pixels inside lesions, each divided by the area of its region (a
            connected component, diagonal neighbours included), summed over regions.
        regions: number of regions.
    """

    abnormal: NDArray[np.float64]
    normal: NDArray[np.float64]
    overlap: NDArray[np.float64]
    regions: int


def tally_pixels(maps: Sequence[Array], masks: Sequence[Array]) -> PixelTally:
    """Count pixels by score; what all figures but the pointing game are computed from.

    Args:
        maps: anomaly maps, each (H, W) float. Read twice and one at a time, so a sequence that
            loads them lazily is welcome.
        masks: masks of the same sizes, nonzero inside a lesion.

    Raises:
        ValueError: no maps, unequal counts or sizes, NaN in a map, or masks that leave no
            abnormal or no normal pixel.
    """
    if len(maps) != len(masks) or not len(maps):
        raise ValueError(f"{len(maps)} maps for {len(masks)} masks: one of each is needed")
    lesion_pixels = sum(int(np.count_nonzero(mask)) for mask in masks)
    normal_pixels = sum(np.size(mask) for mask in masks) - lesion_pixels
    if not lesion_pixels or not normal_pixels:
        absent = "normal" if lesion_pixels else "abnormal"
        raise ValueError(f"the masks leave no {absent} pixel")
    edges = _edges(maps, masks, lesion_pixels, normal_pixels)
    abnormal, normal, overlap = np.zeros((3, edges.size))
    regions = 0
    for values, mask in zip(maps, masks, strict=True):
        inside = _as_mask(mask)
        # bin i holds edges[i] <= value < edges[i + 1], the first bin everything below as well
        place = np.maximum(np.searchsorted(edges, values, side="right") - 1, 0)
        normal += np.bincount(place[~inside], minlength=edges.size)
        component, count = _components(inside)
        area = np.maximum(np.bincount(component.ravel()), 1)
        abnormal += np.bincount(place[inside], minlength=edges.size)
        weights = 1 / area[component[inside]]
        overlap += np.bincount(place[inside], weights=weights, minlength=edges.size)
        regions += count
    return PixelTally(abnormal[::-1], normal[::-1], overlap[::-1], regions)


def aupro(tally: PixelTally, fpr_limit: float = 0.3) -> float:
    """Area under the per-region overlap curve (Bergmann et al., IJCV 2021, section 5.2).

    At each threshold the overlap is the share of a region's pixels at or above it, averaged over
    the regions of all images, so that a small lesion weighs as much as a large one. It is
    integrated over the pixel false-positive rate from 0 to ``fpr_limit``, with straight lines
    between thresholds, and divided by ``fpr_limit``.

    Args:
        tally: of all images.
        fpr_limit: upper end of the integral, in (0, 1].

    Returns:
        A value in [0, 1]; chance is ``fpr_limit / 2``.

    Raises:
        ValueError: ``fpr_limit`` outside (0, 1].
    """
    if not 0 < fpr_limit <= 1:
        raise ValueError(f"fpr_limit lies in (0, 1], not {fpr_limit}")
    fpr = np.concatenate([[0.0], np.cumsum(tally.normal) / tally.normal.sum()])
    overlap = np.concatenate([[0.0], np.cumsum(tally.overlap) / tally.regions])
    # the last point at or below the limit, then the curve where it crosses the limit
    below = int(np.searchsorted(fpr, fpr_limit, side="right"))
    at_limit = np.interp(fpr_limit, fpr[below - 1 : below + 1], overlap[below - 1 : below + 1])
    x, y = np.r_[fpr[:below], fpr_limit], np.r_[overlap[:below], at_limit]
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2) / fpr_limit)


def pointing_hit(anomaly_map: Array, mask: Array) -> bool:
    """Whether the map's maximum lies inside the mask (the pointing game, Zhang et al., IJCV 2018).

    Args:
        anomaly_map: (H, W) float.
        mask: (H, W), nonzero inside a lesion.

    Returns:
        True when every pixel that attains the maximum is inside: a constant map points nowhere.

    Raises:
        ValueError: unequal sizes or NaN in the map.

    Example:
        >>> pointing_hit(np.array([[0.1, 0.9]]), np.array([[0, 1]]))
        True
        >>> pointing_hit(np.array([[0.5, 0.5]]), np.array([[0, 1]]))
        False
    """
    if anomaly_map.shape != np.shape(mask):
        raise ValueError(f"the map is {anomaly_map.shape} and its mask {np.shape(mask)}")
    maximum = np.max(anomaly_map)
    if np.isnan(maximum):
        raise ValueError("the map holds NaN")
    return bool(_as_mask(mask)[anomaly_map == maximum].all())


def localisation_metrics(maps: Sequence[Array], masks: Sequence[Array]) -> dict[str, float | int]:
    """Everything about localisation in one go, for ``metrics.json``.

    Args:
        maps: as `tally_pixels`.
        masks: as `tally_pixels`.

    Returns:
        ``pixel_auroc``, ``pixel_ap``, ``aupro`` (to a false-positive rate of 0.3),
        ``pointing_hit_rate`` (over the images with a lesion), ``n_images`` (of those) and
        ``n_regions``.

    Raises:
        ValueError: as `tally_pixels`.
    """
    tally = tally_pixels(maps, masks)
    pairs = zip(maps, masks, strict=True)
    hits = [pointing_hit(values, mask) for values, mask in pairs if np.any(mask)]
    return {
        "pixel_auroc": float(auroc_from_counts(tally.abnormal, tally.normal)),
        "pixel_ap": float(average_precision_from_counts(tally.abnormal, tally.normal)),
        "aupro": aupro(tally),
        "pointing_hit_rate": float(np.mean(hits)),
        "n_images": len(hits),
        "n_regions": tally.regions,
    }


def _edges(
    maps: Sequence[Array], masks: Sequence[Array], lesion_pixels: int, normal_pixels: int
) -> NDArray[np.generic]:
    """Distinct values, at most `BINS`, ascending, that cut each class into about equal counts."""
    lesion_step, normal_step = (-(-n // _SAMPLE) for n in (lesion_pixels, normal_pixels))
    lesion, normal = [], []
    for number, (values, mask) in enumerate(zip(maps, masks, strict=True)):
        if values.ndim != 2 or values.shape != np.shape(mask):
            raise ValueError(f"map {number} is {values.shape} and its mask {np.shape(mask)}")
        if np.isnan(np.max(values)):
            raise ValueError(f"map {number} holds NaN")
        inside = _as_mask(mask)
        lesion.append(values[inside][::lesion_step])
        normal.append(values[~inside][::normal_step])
    return np.union1d(_thinned(lesion), _thinned(normal))


def _thinned(samples: Sequence[Array]) -> NDArray[np.generic]:
    distinct = np.unique(np.concatenate(samples))
    if distinct.size <= BINS // 2:
        return distinct
    return distinct[np.linspace(0, distinct.size - 1, BINS // 2).astype(np.intp)]


def _as_mask(mask: Array) -> NDArray[np.bool_]:
    return np.asarray(mask).astype(np.bool_)


def _components(inside: NDArray[np.bool_]) -> tuple[NDArray[np.intp], int]:
    from scipy.ndimage import label

    component, count = label(inside, structure=np.ones((3, 3)))
    return component, int(count)

"""Copies of an image in other clothes: mirrored, turned, brightened, re-encoded, resized.

Two different brain slices or chest films have nearly the same large shapes, so plain correlation
of thumbnails cannot tell them from a brightened copy. What is compared here is the fine texture
alone, brought to the same strength everywhere (local contrast normalisation) and without what the
whole data set shares, such as a round field of view or the frame of a viewer. On the brain, skin
and chest images that the limit of 0.6 was set on, different patients stay below it and copies above
0.65, nearly all above 0.8. Neighbouring slices of one patient reach 0.8 now and then: they are no
copies, but no split should tear them apart either.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SIZE = 64
ORIENTATIONS = (
    "",
    "turned 90° counter-clockwise",
    "turned 180°",
    "turned 90° clockwise",
    "mirrored left-right",
    "mirrored along the falling diagonal",
    "mirrored top-bottom",
    "mirrored along the rising diagonal",
)

_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601
_COARSE_LIMIT = 0.4
_COARSE_WINDOWS = (3, 7)
_FINE_WINDOWS = (5, 9)
_ROWS = 512
_LEAST_OVERLAP = 0.1
_PRIOR_IMAGES = 50


@dataclass(frozen=True)
class Pair:
    """Two images of which one is made from the other.

    Attributes:
        first: Index of one image.
        second: Index of the other, larger than `first`.
        similarity: Correlation of their aligned textures, in [0, 1].
        transform: In words, what turns the first into the second.
    """

    first: int
    second: int
    similarity: float
    transform: str


def luminance(pixels: NDArray[Any]) -> Floats:
    """Grey values of an image.

    Args:
        pixels: (H, W) or (H, W, 3), any real type.

    Returns:
        (H, W) float32, in the units of `pixels`.
    """
    if pixels.ndim == 2:
        return pixels.astype(np.float32)
    red, green, blue = (
        pixels[..., channel] * np.float32(weight) for channel, weight in enumerate(_LUMINANCE)
    )
    return np.asarray(red + green + blue, np.float32)


def thumbnail(grey: NDArray[Any]) -> Floats:
    """Shrink an image to `SIZE` x `SIZE` by exact area averages, whatever its sides.

    Pixels that straddle two cells count in both by their share, so mirroring and turning the
    image mirrors and turns its thumbnail.

    Args:
        grey: (H, W), any real type and unit.

    Returns:
        (SIZE, SIZE) float32, in the units of `grey`.
    """
    return np.asarray(_shrunk(_shrunk(grey.astype(np.float64)).T).T, np.float32)


def oriented(images: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Mirror and turn square images (..., S, S); `ORIENTATIONS[orientation]` says how."""
    mirrored = images[..., ::-1] if orientation >= 4 else images
    return np.rot90(mirrored, orientation % 4, axes=(-2, -1))


def equal_groups(keys: Sequence[Hashable]) -> list[list[int]]:
    """Indices of equal keys, such as digests: every group of two or more, in order."""
    groups: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(key, []).append(index)
    return [group for group in groups.values() if len(group) > 1]


def components(count: int, links: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Connected components of two or more among `count` nodes, each sorted, by first member."""
    parent = list(range(count))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for first, second in links:
        parent[root(second)] = root(first)
    return equal_groups([root(node) for node in range(count)])


def near_duplicates(thumbnails: NDArray[Any], *, threshold: float = 0.6) -> list[Pair]:
    """Find images that are copies of one another up to orientation, tone and mild filtering.

    Pairs whose 32 x 32 textures correlate in one of the eight orientations of the square are
    compared again at 64 x 64. Where one of the two has no texture (clipped to white or black),
    nothing is compared. Inverted copies count. Copies that were cropped, shifted or turned by
    other angles are not found, nor are images without texture. In a set of fewer than about a
    hundred images, a frame that all share to the pixel can pass for a copy. Time grows with the
    square of N, memory with N.

    Args:
        thumbnails: (N, 64, 64), from `thumbnail`, each in any unit. The words "brightened" and
            "darkened" suppose that full scale is 1.
        threshold: The least correlation of a copy, in [0, 1].

    Returns:
        The pairs, sorted by index.

    Raises:
        ValueError: Wrong shape, or values that are not finite.
    """
    if thumbnails.ndim != 3 or thumbnails.shape[1:] != (SIZE, SIZE):
        raise ValueError(f"thumbnails of shape {thumbnails.shape}, not (N, {SIZE}, {SIZE})")
    if not np.isfinite(thumbnails).all():
        raise ValueError("thumbnails with values that are not finite")
    if not len(thumbnails):
        return []
    images = _standardised(thumbnails)
    first, second, orientation = _candidates(images)
    shared = _shared(images)
    pairs = []
    for turn in range(len(ORIENTATIONS)):
        chosen = np.flatnonzero(orientation == turn)
        for part in np.array_split(chosen, -(-len(chosen) // _ROWS) or 1):
            a, b = first[part], second[part]
            similarity = _similarity(images, a, b, shared, turn)
            for k in np.flatnonzero(np.abs(similarity) >= threshold):
                words = _in_words(thumbnails[a[k]], thumbnails[b[k]], turn, similarity[k] < 0)
                closeness = min(1.0, float(abs(similarity[k])))
                pairs.append(Pair(int(a[k]), int(b[k]), closeness, words))
    return sorted(pairs, key=lambda pair: (pair.first, pair.second))


def _shrunk(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area averages along the first axis, (H, W) to (SIZE, W), by differences of running sums.

    A matrix product would do, but its own threads get in the way of those that read files.
    """
    height = len(image)
    edges = np.linspace(0, height, SIZE + 1)
    whole = np.minimum(edges.astype(np.intp), height - 1)
    sums = np.concatenate([np.zeros_like(image[:1]), np.cumsum(image, axis=0)])
    up_to_edge = sums[whole] + (edges - whole)[:, None] * image[whole]
    return np.diff(up_to_edge, axis=0) * (SIZE / height)


def _standardised(images: NDArray[Any]) -> Floats:
    """Zero mean, unit deviation each; images that are constant up to rounding become zero."""
    out = np.zeros(images.shape, np.float32)
    for k, image in enumerate(images):
        exact = image.astype(np.float64)
        deviation = exact.std()
        if deviation > 1e-5 * np.abs(exact).max():
            out[k] = (exact - exact.mean()) / deviation
    return out


def _box(images: Floats, width: int) -> Floats:
    """Mean over width x width windows, (P, S, S), edges repeated."""
    from scipy.ndimage import uniform_filter

    return np.asarray(uniform_filter(images, (1, width, width), mode="nearest"))


def _texture(images: Floats, windows: tuple[int, int]) -> tuple[Floats, NDArray[np.bool_]]:
    """Locally normalised texture of (P, S, S) images, and where there is any.

    h = x - mean(x), t = h / sqrt(mean(h^2) + (0.1 rms(h))^2), means over small windows; as in
    Jarrett et al., ICCV 2009. Tone curves are nearly straight within a window, so t hardly
    depends on them.
    """
    detail = images - _box(images, windows[0])
    power = detail * detail
    overall = power.mean((1, 2), keepdims=True)
    local = np.maximum(_box(power, windows[1]), 0)
    texture = detail / np.sqrt(local + 0.01 * overall + np.float32(1e-12))
    return texture, _box(power, windows[0]) > 0.02**2 * overall


def _halved(images: Floats) -> Floats:
    side = images.shape[-1] // 2
    return np.asarray(images.reshape(-1, side, 2, side, 2).mean((2, 4)))


def _parts(count: int) -> Iterator[slice]:
    return (slice(start, start + _ROWS) for start in range(0, count, _ROWS))


def _share(count: int) -> float:
    # In a small set the mean is no evidence of what is shared: two copies would cancel out.
    return count / (count + _PRIOR_IMAGES)


def _shared(images: Floats) -> Floats:
    """(64, 64): the part of the fine texture that the whole set has in common."""
    total = np.zeros(images.shape[1:], np.float64)
    for part in _parts(len(images)):
        total += _texture(images[part], _FINE_WINDOWS)[0].sum(0)
    return np.asarray(total / len(images) * _share(len(images)), np.float32)


def _candidates(
    images: Floats,
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.int8]]:
    """Pairs with alike coarse textures, and the orientation in which they are most alike."""
    count = len(images)
    coarse = np.empty((count, SIZE // 2, SIZE // 2), np.float32)
    for part in _parts(count):
        coarse[part] = _texture(_halved(images[part]), _COARSE_WINDOWS)[0]
    coarse -= coarse.mean(0) * np.float32(_share(count))
    # The mean was taken off textureless images too: they must stay alike to nothing.
    coarse[~images.any((1, 2))] = 0
    norms = np.sqrt((coarse * coarse).sum((1, 2), keepdims=True))
    coarse /= np.maximum(norms, np.float32(1e-6))
    flat = coarse.reshape(count, -1)
    found: list[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.int8]]] = []
    for part in _parts(count):
        others = flat[part.start :].T
        best = np.full((len(coarse[part]), count - part.start), _COARSE_LIMIT, np.float32)
        orientation = np.full(best.shape, -1, np.int8)
        for turn in range(len(ORIENTATIONS)):
            alike = np.abs(oriented(coarse[part], turn).reshape(len(best), -1) @ others)
            better = alike > best
            best[better] = alike[better]
            orientation[better] = turn
        rows, columns = np.nonzero(np.triu(orientation >= 0, k=1))
        found.append((rows + part.start, columns + part.start, orientation[rows, columns]))
    first, second, turns = (np.concatenate(column) for column in zip(*found, strict=True))
    return first, second, turns


def _similarity(
    images: Floats, first: NDArray[np.intp], second: NDArray[np.intp], shared: Floats, turn: int
) -> Floats:
    """Correlation (P,) of the pairs' fine textures, where both images have texture, else 0."""
    used, place = np.unique(np.concatenate([first, second]), return_inverse=True)
    texture, textured = _texture(images[used], _FINE_WINDOWS)
    texture -= shared
    one, other = np.split(place, 2)
    both = oriented(textured[one], turn) & textured[other]
    x, y = oriented(texture[one], turn) * both, texture[other] * both
    power = (x * x).sum((1, 2)) * (y * y).sum((1, 2))
    correlation = (x * y).sum((1, 2)) / np.sqrt(np.maximum(power, np.float32(1e-12)))
    enough = both.mean((1, 2)) >= _LEAST_OVERLAP
    return np.asarray(np.where(enough, correlation, 0), np.float32)


def _in_words(first: Floats, second: Floats, turn: int, inverted: bool) -> str:
    """What turns the first image into the second."""
    words = [ORIENTATIONS[turn]] if turn else []
    brighter = float(second.mean() - first.mean())
    contrast = float(second.std() / max(first.std(), 1e-12))
    if inverted:
        words.append("inverted")
    elif abs(brighter) > 0.02:
        words.append("brightened" if brighter > 0 else "darkened")
    elif not 0.9 < contrast < 1.1:
        words.append("more contrast" if contrast > 1 else "less contrast")
    return ", ".join(words) or "nearly the same"

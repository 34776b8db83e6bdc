"""The picture of a scored image: source beside heat map, with a colour bar common to a run.

Nothing here changes a score or a map; windowing and resizing are for display only.
"""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from scrd.data.prepared import measure_window
from scrd.data.reading import read_image
from scrd.data.sample import even_pixels
from scrd.scoring.scorer import Scored, Scorer
from scrd.system.files import printable

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

# sides of a panel in pixels: small sources are enlarged to the first, large ones reduced
MIN_SIDE, MAX_SIDE = 320, 768
DISCLAIMER = "Research use only"

_BACKGROUND = (17, 17, 20)
_TEXT = (224, 224, 228)
_CONTOUR = (0, 229, 255)
_OPACITY = 0.8


def heat_overlay(
    pixels: NDArray[np.generic],
    anomaly_map: NDArray[np.floating],
    *,
    scale: tuple[float, float],
    threshold: float | None = None,
    title: str = "",
    caption: str = "",
    window: tuple[float, float] | None = None,
) -> Image.Image:
    """Draw the source image beside the same image under its anomaly map.

    The heat's opacity grows in proportion to its value, so that the anatomy stays visible. Below
    a colour source the heat lies on its grey version: the only hues are those of the colour bar.

    Args:
        pixels: (H, W) grey or (H, W, 3) RGB, uint8, uint16 or float32.
        anomaly_map: (h, w) float, covering the whole image; of any resolution.
        scale: map values at the two ends of the colour bar; values beyond are drawn as the ends.
            Pass the same pair for all images of a run.
        threshold: map value at which a contour is drawn and the colour bar marked.
        title: line above, cut in the middle where it is too long.
        caption: line below.
        window: pixel values shown as black and as white; see `display_image`.

    Returns:
        RGB image. The longer side of each of its two panels is the source's, but at least
        `MIN_SIDE` and at most `MAX_SIDE`.

    Raises:
        ValueError: an empty scale, or arrays of other shapes than above.
    """
    low, high = scale
    if not low < high:
        raise ValueError(f"the scale runs from low to high, not from {low} to {high}")
    if anomaly_map.ndim != 2:
        raise ValueError(f"an anomaly map is (h, w), not {anomaly_map.shape}")
    source = _panel(display_image(pixels, window))
    values = np.asarray(
        Image.fromarray(anomaly_map.astype(np.float32)).resize(
            source.size, Image.Resampling.BILINEAR
        )
    )
    return _compose(
        source.convert("RGB"),
        _heat(source, values, scale, threshold),
        scale,
        threshold,
        title,
        caption,
    )


def display_image(
    pixels: NDArray[np.generic], window: tuple[float, float] | None = None
) -> NDArray[np.uint8]:
    """Reduce an image of any depth to the 8 bits of a screen.

    Args:
        pixels: (H, W) grey or (H, W, 3) RGB, any real dtype.
        window: pixel values shown as black and as white. Without it 8-bit images are shown as
            they are and others from their 0.5th to their 99.5th percentile.

    Returns:
        uint8, of the shape given.

    Raises:
        ValueError: another shape.
    """
    if pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)):
        raise ValueError(f"an image is (H, W) or (H, W, 3), not {pixels.shape}")
    if window is None:
        if pixels.dtype == np.uint8:
            return pixels.astype(np.uint8, copy=False)
        # percentiles of some 100,000 pixels do for the eye
        some = even_pixels(pixels, 100_000).astype(np.float32)
        black, white = np.nanpercentile(some, [0.5, 99.5])
    else:
        black, white = window
    gain = 255 / (white - black) if white > black else 0.0
    shown = (pixels.astype(np.float32) - np.float32(black)) * np.float32(gain)
    return np.asarray(np.nan_to_num(shown).clip(0, 255), dtype=np.uint8)


def _panel(shown: NDArray[np.uint8]) -> Image.Image:
    image = Image.fromarray(shown)
    longer = max(image.size)
    factor = min(max(longer, MIN_SIDE), MAX_SIDE) / longer
    if factor == 1:
        return image
    width, height = (max(1, round(side * factor)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)


def _heat(
    source: Image.Image,
    values: NDArray[np.float32],
    scale: tuple[float, float],
    threshold: float | None,
) -> Image.Image:
    low, high = scale
    level = np.nan_to_num((values - low) / (high - low)).clip(0, 1)
    grey = np.asarray(source.convert("L"), dtype=np.float32)[..., None]
    colour = _colours()[(level * 255).astype(np.uint8)]
    mixed = grey + (colour - grey) * (np.float32(_OPACITY) * level[..., None])
    heat = mixed.astype(np.uint8)
    if threshold is not None:
        heat[_contour(values >= threshold)] = _CONTOUR
    return Image.fromarray(heat)


def _contour(above: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The two pixels on either side of every border between above and below."""
    line = np.zeros_like(above)
    across, down = above[:, 1:] != above[:, :-1], above[1:] != above[:-1]
    for border, first, second in ((across, line[:, :-1], line[:, 1:]), (down, line[:-1], line[1:])):
        first |= border
        second |= border
    return line


def _compose(
    source: Image.Image,
    heat: Image.Image,
    scale: tuple[float, float],
    threshold: float | None,
    title: str,
    caption: str,
) -> Image.Image:
    width, height = source.size
    size = max(13, round(width / 26))
    font = _font(size)
    gap, line = size // 2, round(size * 1.6)
    bar_height = max(height, 6 * line)
    ticks = _ticks(scale, threshold, bar_height, line)
    bar_left = 2 * width + 3 * gap
    total = bar_left + size + gap + int(max(font.getlength(text) for _, text, _ in ticks)) + gap
    total = max(total, MIN_SIDE)
    top = line + gap // 2
    canvas = Image.new("RGB", (total, top + bar_height + line + gap // 2), _BACKGROUND)
    canvas.paste(source, (gap, top))
    canvas.paste(heat, (2 * gap + width, top))
    bar = _colours()[np.linspace(255, 0, bar_height).astype(np.uint8)].astype(np.uint8)
    canvas.paste(Image.fromarray(np.repeat(bar[:, None], size, axis=1)), (bar_left, top))

    draw = ImageDraw.Draw(canvas)
    for y, text, colour in ticks:
        draw.line([(bar_left, top + y), (bar_left + size + gap // 2, top + y)], colour, 2)
        middle = min(max(y, line // 2), bar_height - line // 2)
        draw.text((bar_left + size + gap, top + middle), text, colour, font, anchor="lm")
    draw.text((gap, line // 2), _fitted(title, font, total - 2 * gap), _TEXT, font, anchor="lm")
    foot = top + bar_height + line // 2 + gap // 4
    room = total - 3 * gap - font.getlength(DISCLAIMER)
    draw.text((gap, foot), _fitted(caption, font, room), _TEXT, font, anchor="lm")
    draw.text((total - gap, foot), DISCLAIMER, _TEXT, font, anchor="rm")
    return canvas


def _ticks(
    scale: tuple[float, float], threshold: float | None, height: int, line: int
) -> list[tuple[int, str, tuple[int, int, int]]]:
    """(row, text, colour) of the colour bar's marks; the threshold's displaces its neighbours."""
    low, high = scale

    def row(value: float) -> int:
        return round((high - value) / (high - low) * (height - 1))

    ticks = []
    if threshold is not None and low <= threshold <= high:
        ticks.append((row(threshold), f"{threshold:.3g}", _CONTOUR))
    for value in np.linspace(low, high, 5):
        if all(abs(row(value) - y) >= line for y, _, _ in ticks):
            ticks.append((row(value), f"{value:.3g}", _TEXT))
    return ticks


def _fitted(text: str, font: ImageFont.FreeTypeFont, room: float) -> str:
    """The text on one line, its middle left out if it is wider than ``room``."""
    text = " ".join(text.split())
    keep = len(text)
    shown = text
    while keep > 0 and font.getlength(shown) > room:
        keep -= 1
        head = keep // 3
        shown = text[:head] + "…" + text[len(text) - (keep - head) :]
    return shown


@lru_cache(maxsize=1)
def _colours() -> NDArray[np.float32]:
    """256 colours of matplotlib's inferno, perceptually ordered, shape (256, 3), 0 to 255."""
    from matplotlib import colormaps

    inferno: Colormap = colormaps["inferno"]
    return np.asarray(inferno(np.arange(256))[:, :3] * 255, dtype=np.float32)


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont:
    import matplotlib

    # the one scalable font that a dependency is sure to bring; it knows most scripts' letters
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)


def draw(detector: Scorer, scored: Scored, title: str) -> Image.Image:
    """The overlay of a scored image, on the colour scale of the detector."""
    calibration = detector.calibration
    caption = f"score {scored.score:.3g}"
    if scored.p_value is not None:
        caption += f", p {scored.p_value:.2g}, {'flagged' if scored.flag else 'not flagged'}"
    intensity, series = detector.preprocessing.intensity, scored.source.series
    window = (intensity.low, intensity.high)
    if intensity.scope == "series" and series is not None:
        window = series.window(partial(measure_window, intensity=intensity))
    return heat_overlay(
        read_image(scored.source),
        detector.source_map(scored),
        scale=calibration.map_scale,
        threshold=calibration.map_threshold if calibration.calibrated else None,
        title=printable(title),
        caption=caption,
        window=window,
    )

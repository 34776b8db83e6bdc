import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import pytest

from scrd.report import figures

RNG = np.random.default_rng(0)
LABELS = np.repeat([0, 1], [60, 40])
SCORES = RNG.normal(size=100) + 1.5 * LABELS
LOG = [{"iteration": i, "loss": 1 / (i + 1), "scale_weights": [0.2, 0.3, 0.5]} for i in range(20)]

DRAWINGS = {
    "roc": lambda: figures.roc_figure(SCORES, LABELS, interval=(0.7, 0.9), threshold=1.0),
    "histogram": lambda: figures.histogram_figure(SCORES, LABELS, threshold=1.0),
    "training": lambda: figures.training_curve(LOG),
}


@pytest.fixture
def readable(monkeypatch):
    """Letters as text instead of outlines, so that a test can read them."""
    monkeypatch.setitem(figures._STYLE, "svg.fonttype", "none")


@pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS)
def test_svg_scales_repeats_and_leaves_no_trace(draw):
    before = {key: matplotlib.rcParams[key] for key in figures._STYLE}
    svg = draw()
    root = ET.fromstring(svg)
    assert root.tag.endswith("}svg")
    assert root.get("viewBox") and root.get("width") is None and root.get("height") is None
    assert svg == draw()
    assert {key: matplotlib.rcParams[key] for key in figures._STYLE} == before


def texts(svg):
    return " ".join(
        "".join(node.itertext()) for node in ET.fromstring(svg).iter() if node.tag.endswith("}text")
    )


def test_roc_tells_the_area_its_interval_and_the_operating_point(readable):
    shown = texts(DRAWINGS["roc"]())
    assert f"AUROC {figures.auroc(SCORES, LABELS):.3f}" in shown
    assert "0.700 to 0.900" in shown
    found, alarms = np.mean(SCORES[LABELS == 1] >= 1), np.mean(SCORES[LABELS == 0] >= 1)
    assert f"{found * 100:.1f} % found" in shown and f"{alarms * 100:.1f} % false" in shown
    bare = texts(figures.roc_figure(SCORES, LABELS))
    assert "CI" not in bare and "threshold" not in bare


def test_histogram_counts_the_classes_that_are_there(readable):
    shown = texts(DRAWINGS["histogram"]())
    assert "normal (60)" in shown and "abnormal (40)" in shown and "threshold" in shown
    normals = texts(figures.histogram_figure(SCORES[:60], LABELS[:60]))
    assert "normal (60)" in normals
    assert "abnormal" not in normals and "threshold" not in normals


def test_histogram_of_constant_scores_is_drawn():
    ET.fromstring(figures.histogram_figure(np.ones(4), [0, 0, 1, 1]))


def test_training_shows_each_scale_and_goes_without_weights(readable):
    shown = texts(DRAWINGS["training"]())
    assert all(f"scale {k}" in shown for k in (1, 2, 3))
    bare = texts(figures.training_curve([{"iteration": 1, "loss": 2.0}]))
    assert "Loss" in bare and "Iteration" in bare and "scale" not in bare
    with pytest.raises(ValueError, match="empty log"):
        figures.training_curve([])

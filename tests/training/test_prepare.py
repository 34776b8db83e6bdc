"""How the rules are fixed on training images, before anything is trained."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from scrd.config import Config
from scrd.data.contract import Contract
from scrd.data.manifest import read_manifest
from scrd.data.record import Record
from scrd.training import prepare
from scrd.training.log import TrainingError

QUICK = Config(image_size=64)


@pytest.fixture
def records(tmp_path) -> list[Record]:
    """511 normals, the last third of them brighter, and none of them large."""
    rng = np.random.default_rng(0)
    for i in range(511):
        pixels = rng.integers(0, 100, (4, 4)).astype(np.uint16) + (1000 if i > 340 else 0)
        Image.fromarray(pixels).save(tmp_path / f"{i:03}.png")
    return read_manifest(tmp_path, for_training=True).train_normals


def test_the_intensity_rule_is_fixed_on_images_from_all_over(records, monkeypatch):
    seen = []
    read = prepare.read_image
    monkeypatch.setattr(prepare, "read_image", lambda s: seen.append(s.path.name) or read(s))
    rule = prepare._fix_preprocessing(
        records, dataclasses.replace(QUICK, window="data"), Contract(units=("stored",))
    ).intensity
    assert len(seen) == prepare.INTENSITY_SAMPLE
    assert seen[-1] >= "508.png"
    assert rule.high > 1000


@pytest.mark.parametrize("window", [(0, 255), (0, 4095)])
def test_a_range_of_pictures_is_no_window_for_hounsfield_units(records, window):
    with pytest.raises(TrainingError, match="are HU, such as -1000 for air"):
        prepare._fix_preprocessing(
            records[:9], dataclasses.replace(QUICK, window=window), Contract(units=("HU",))
        )

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


def of_patients(sizes):
    return [
        Record(path=None, name=f"{p}-{i}", label=0, kind="normal", split="train", group=f"p{p:03}")
        for p, size in enumerate(sizes)
        for i in range(size)
    ]


def held_groups(normals, **settings):
    fitting, calibrating = prepare.hold_out(normals, dataclasses.replace(QUICK, **settings))
    assert not {r.group for r in fitting} & {r.group for r in calibrating}
    assert len(fitting) + len(calibrating) == len(normals)
    assert len(calibrating) < len(fitting)
    return len({r.group for r in calibrating})


def test_few_uneven_patients_are_held_out_as_the_rate_takes():
    normals = of_patients(np.random.default_rng(0).integers(2, 27, 65))
    quarter = [held_groups(normals, held_out=0.25, seed=seed) for seed in range(20)]
    chosen = [held_groups(normals, seed=seed) for seed in range(20)]
    assert min(quarter) < 19
    # half of the patients, or somewhat fewer where these have half of the images
    assert min(chosen) >= 19
    assert max(chosen) == 32
    assert held_groups(normals, seed=3, false_alarm_rate=0.2) == quarter[3]
    # what cannot be promised at all costs no more normals than before
    assert held_groups(normals, seed=3, false_alarm_rate=0.01) == quarter[3]
    assert held_groups(normals, promise="image", seed=3) == chosen[3]


@pytest.mark.parametrize("sizes", [[1] * 400, [1] * 300 + [20] * 40])
def test_where_a_quarter_suffices_it_is_cut_where_it_was(sizes):
    normals = of_patients(sizes)
    for seed in range(5):
        old, new = (
            prepare.hold_out(normals, dataclasses.replace(QUICK, seed=seed, held_out=share))
            for share in (0.25, None)
        )
        assert old == new

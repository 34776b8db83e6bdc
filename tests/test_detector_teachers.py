"""Any teacher goes the whole way: train, save, load, score, export; or is refused at loading."""

import json
import shutil
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from scrd.config import Config
from scrd.detector import Detector
from scrd.storage.model_folder import ModelFolderError

QUICK = Config(image_size=64, batch_size=4, iterations=2, held_out=0.4, false_alarm_rate=0.2)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    ramp = np.linspace(40, 200, 64)
    for i in range(66):
        pixels = ramp * rng.uniform(0.5, 1.2) + rng.normal(0, 5, (64, 64))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i:02}.png")
    return folder


def train(data, folder, **settings):
    config = Config(**{**vars(QUICK), **settings})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        detector = Detector.fit(data, config, device="cpu")
    detector.save(folder)
    return detector


def scores(detector, data):
    return [scored.score for scored in detector.score(sorted(data.iterdir())[:5])]


@pytest.mark.parametrize("teacher", ["vit_tiny_patch16_dinov3_qkvb", "deit_tiny_patch16_224"])
def test_transformer_scores_the_same_loaded_and_exported(teacher, data, tmp_path):
    detector = train(data, tmp_path / "model", teacher=teacher, weights="random")
    loaded = Detector.load(tmp_path / "model", device="cpu")
    assert scores(loaded, data) == scores(detector, data)

    pytest.importorskip("onnxscript", reason="no onnxscript: nothing can be exported")
    pytest.importorskip("onnxruntime", reason="no onnxruntime: nothing can run an export")
    from scrd.export.make import export_model

    parity = export_model(tmp_path / "model", tmp_path / "onnx", data)
    assert parity.map_difference < 5e-4


@pytest.fixture
def trained(teacher_package, data, tmp_path):
    teacher_package()
    return train(data, tmp_path / "model", teacher="tiny")


def test_what_it_was_trained_with_is_kept(trained, tmp_path):
    provenance = json.loads((tmp_path / "model" / "config.json").read_text())["provenance"]
    assert provenance["teacher"]["package"] == "tiny-teachers 1.0"
    assert len(provenance["teacher"]["sha256"]) == 64
    assert "package tiny-teachers 1.0" in (tmp_path / "model" / "card.md").read_text()


def test_other_weights_of_the_same_code_do_not_matter(trained, teacher_package, data, tmp_path):
    teacher_package(("manual_seed(3)", "manual_seed(4)"), version="1.1")
    loaded = Detector.load(tmp_path / "model", device="cpu")
    assert scores(loaded, data) == scores(trained, data)


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        (
            "image - 0.5",
            "image - 0.4",
            "does not compute what it did in training.*tiny-teachers 1.0",
        ),
        ("image - 0.5", "image.square() - 0.5", "does not compute what it did"),
        ("(4, 6, 8)", "(4, 6, 10)", "size mismatch"),
    ],
)
def test_another_teacher_of_the_name_is_refused(
    old, new, cause, trained, teacher_package, tmp_path
):
    teacher_package((old, new), version="1.1")
    with pytest.raises(ModelFolderError, match=f"(?s)^{tmp_path / 'model'}.*{cause}"):
        Detector.load(tmp_path / "model", device="cpu")


def test_a_teacher_that_is_not_installed_is_named_with_its_package(trained, tmp_path):
    shutil.rmtree(tmp_path / "tiny-teachers")
    sys.modules.pop("tiny_teachers")
    cause = r"the teacher tiny comes from .* scrd\.teachers .* install tiny-teachers 1\.0"
    with pytest.raises(ModelFolderError, match=cause):
        Detector.load(tmp_path / "model", device="cpu")


def test_a_model_without_the_record_still_loads(trained, data, tmp_path):
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    del config["provenance"]["teacher"]
    path.write_text(json.dumps(config))
    assert scores(Detector.load(path.parent, device="cpu"), data) == scores(trained, data)

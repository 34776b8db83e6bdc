"""Exports agree with their model, whatever the images, the batch and the engine."""

import dataclasses
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from scrd.config import Config
from scrd.detector import Detector
from scrd.errors import ConfigError
from scrd.export.errors import ExportError
from scrd.export.folder import is_exported
from scrd.export.runtime import ExportedScorer
from scrd.scoring.scorer import Scored
from scrd.storage.known import read_known

pytest.importorskip("onnxscript", reason="no onnxscript: nothing can be exported")
onnx = pytest.importorskip("onnx", reason="no onnx: nothing can be exported")
pytest.importorskip("onnxruntime", reason="no onnxruntime: nothing can run an export")
make = pytest.importorskip("scrd.export.make")

QUICK = Config(image_size=64, batch_size=4, iterations=4, false_alarm_rate=0.2, held_out=0.4)
SIZES = [(64, 64), (80, 50), (40, 100)]


def picture(rng, size, colours, spot):
    """A soft disc, each colour of a brightness of its own, with a bright square if abnormal."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    distance = np.hypot(rows - size[0] / 2 + rng.normal(), columns - size[1] / 2)
    disc = 1 / (1 + np.exp((distance - min(size) / 3) / 2))
    pixels = 60 + rng.uniform(40, 110, colours) * disc[..., None] + rng.normal(0, 3, (*size, 1))
    if spot:
        pixels[size[0] // 2 :, size[1] // 2 :][:12, :12] = 250
    return pixels.clip(0, 255).astype(np.uint8)


def data_set(folder, colours):
    """Forty normals to train on, thirty normals and ten abnormal ones to compare on."""
    rng = np.random.default_rng(colours)
    for place, count, spot in (
        ("train/normal", 40, False),
        ("test/normal", 30, False),
        ("test/spot", 10, True),
    ):
        (folder / place).mkdir(parents=True)
        for i in range(count):
            pixels = picture(rng, SIZES[i % 3], colours, spot)
            Image.fromarray(pixels.squeeze()).save(folder / place / f"{i:02}.png")
    return folder


def export_of(folder, colours, **settings):
    data = data_set(folder / "data", colours)
    config = dataclasses.replace(QUICK, **settings)
    Detector.fit(data, config, device="cpu").save(folder / "model")
    make.export_model(folder / "model", folder / "onnx", data)
    return folder


@pytest.fixture(scope="module")
def grey(tmp_path_factory):
    """A folder with data, model and ONNX export."""
    return export_of(tmp_path_factory.mktemp("grey"), 1, resize="letterbox")


@pytest.fixture(scope="module")
def rgb(tmp_path_factory):
    """The same; the scale weights of this objective differ from image to image."""
    return export_of(tmp_path_factory.mktemp("rgb"), 3, objective="paper", pooling="excess")


@pytest.fixture(params=["grey", "rgb"])
def case(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def traced(grey, monkeypatch):
    """The graph is that of the export that is there."""

    def copy(model, path, **_):
        shutil.copyfile(grey / "onnx" / "model.onnx", path)

    monkeypatch.setattr(make, "write_onnx", copy)


def files_of(case):
    return sorted((case / "data" / "test").rglob("*.png"))


def assert_same(model, export, files, batch_size):
    expected = list(model.score(files))
    found = list(export.score(files, batch_size=batch_size))
    spread = {n: np.ptp([e.statistics[n] for e in expected]) for n in expected[0].statistics}
    assert spread[model.calibration.pooling] > 0.1
    for a, b in zip(expected, found, strict=True):
        assert (a.path, a.source_size, a.doubts) == (b.path, b.source_size, b.doubts)
        np.testing.assert_allclose(b.input_map, a.input_map, atol=1e-4)
        np.testing.assert_allclose(b.scale_weights, a.scale_weights, atol=1e-5)
        assert b.statistics.keys() == a.statistics.keys()
        for name, value in a.statistics.items():
            assert b.statistics[name] == pytest.approx(value, abs=1e-3 * spread[name]), name
        assert (b.score, b.p_value, b.flag) == (
            b.statistics[model.calibration.pooling],
            a.p_value,
            a.flag,
        )


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_onnx_answers_like_its_model(case, batch_size):
    model = Detector.load(case / "model", device="cpu")
    assert model.config.objective == "scrd" or not model.model.scale_head.constant
    export = ExportedScorer.load(case / "onnx", threads=2)
    assert_same(model, export, files_of(case), batch_size)


def test_openvino_answers_like_its_model(grey, traced):
    pytest.importorskip("openvino", reason="no openvino")
    parity = make.export_model(grey / "model", grey / "ov", grey / "data", format="openvino")
    assert parity.images == 40
    assert 0 <= parity.map_difference < 1e-4 and parity.auroc_difference == 0
    assert {f.name for f in (grey / "ov").iterdir()} == {
        "model.xml",
        "model.bin",
        "calibration.json",
        "export.json",
        "card.md",
    }
    model = Detector.load(grey / "model", device="cpu")
    assert_same(model, ExportedScorer.load(grey / "ov", threads=2), files_of(grey), 3)


def test_the_graph_takes_any_batch_at_once(case):
    """Also where another program runs it, in one call."""
    import onnxruntime

    session = onnxruntime.InferenceSession(case / "onnx" / "model.onnx")
    model = Detector.load(case / "model", device="cpu")
    rng = np.random.default_rng(0)
    channels = 3 if model.preprocessing.intensity.channels == "rgb" else 1
    for count in (1, 3, 16):
        images = rng.random((count, channels, 64, 64), np.float32)
        content = np.ones((count, 64, 64), bool)
        content[:, :20] = False
        found = dict(
            zip(
                [o.name for o in session.get_outputs()],
                session.run(None, {"images": images, "content": content}),
                strict=True,
            )
        )
        expected = model.infer(images, content)
        np.testing.assert_allclose(found["maps"], expected.maps, atol=1e-4)
        for name, values in expected.statistics.items():
            np.testing.assert_allclose(found[f"score_{name}"], values, rtol=1e-3, atol=1e-4)


def test_the_folder_says_what_it_is(grey):
    folder = grey / "onnx"
    assert is_exported(folder) and not is_exported(grey / "model")
    index = json.loads((folder / "export.json").read_text())
    model = Detector.load(grey / "model", device="cpu")
    export = ExportedScorer.load(folder)
    assert index["source"]["fingerprint"] == model.fingerprint
    assert export.fingerprint not in (None, model.fingerprint)
    assert export.preprocessing == model.preprocessing
    assert export.contract == model.contract
    assert export.calibration == model.calibration
    assert index["parity"]["images"] == 40 and index["parity"]["auroc"] > 50
    card = (folder / "card.md").read_text()
    assert card.startswith((grey / "model" / "card.md").read_text().rstrip("\n"))
    assert "40 images" in card and model.fingerprint[:16] in card
    sizes = [len(f.read_bytes()) for f in folder.iterdir()]
    assert sum(sizes) < 1.1 * (grey / "model" / "weights.safetensors").stat().st_size + 1e6


def spoil(traced):
    """Turn the largest weight a little."""
    network = onnx.load(traced)
    weight = max(network.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = onnx.numpy_helper.to_array(weight).copy()
    values *= 1.5
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(network, traced)


def test_an_export_that_disagrees_leaves_nothing(grey, tmp_path, monkeypatch):
    def write_wrong(model, path, **_):
        shutil.copyfile(grey / "onnx" / "model.onnx", path)
        spoil(path)

    monkeypatch.setattr(make, "write_onnx", write_wrong)
    with pytest.raises(ExportError, match="maps differ by up to .* of their range"):
        make.export_model(grey / "model", tmp_path / "out", grey / "data")
    assert list(tmp_path.iterdir()) == []


def test_eight_bits_are_kept_only_if_they_agree(grey, traced, tmp_path):
    pytest.importorskip("nncf", reason="no nncf")
    out = tmp_path / "out"
    try:
        parity = make.export_model(grey / "model", out, grey / "data", format="openvino", int8=True)
    except ExportError as e:
        assert "int8" in str(e) and "was not kept" in str(e)
        assert list(tmp_path.iterdir()) == []
    else:
        assert parity.failures() == [] and is_exported(out)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"format": "tflite"}, ConfigError, "onnx or openvino"),
        ({"int8": True}, ConfigError, "openvino only"),
    ],
)
def test_what_cannot_be_is_refused(grey, tmp_path, options, error, said):
    with pytest.raises(error, match=said):
        make.export_model(grey / "model", tmp_path / "out", grey / "data", **options)
    assert list(tmp_path.iterdir()) == []


def test_too_few_images_and_a_taken_place_are_refused(grey, traced, tmp_path):
    few = tmp_path / "few"
    shutil.copytree(grey / "data" / "test" / "spot", few)
    with pytest.raises(ExportError, match="5 images .* at least 32"):
        make.export_model(grey / "model", tmp_path / "out", few)
    with pytest.raises(ExportError, match="something is there"):
        make.export_model(grey / "model", few, grey / "data")
    assert sorted(f.name for f in tmp_path.iterdir()) == ["few"]


@pytest.fixture
def damaged(grey, tmp_path):
    shutil.copytree(grey / "onnx", tmp_path / "onnx")
    return tmp_path / "onnx"


@pytest.mark.parametrize("name", ["model.onnx", "calibration.json"])
@pytest.mark.parametrize("how", ["changed", "missing"])
def test_a_damaged_folder_is_refused_by_name(damaged, name, how):
    file = damaged / name
    if how == "missing":
        file.unlink()
    else:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    with pytest.raises(ExportError, match=name):
        ExportedScorer.load(damaged)


@pytest.mark.parametrize(
    "change",
    [
        lambda index: index.update(format=99),
        lambda index: index.update(engine="tensorrt"),
        lambda index: index.pop("preprocessing"),
        lambda index: index["preprocessing"].update(image_size=0),
        lambda index: index["contract"].update(colour=1),
        lambda index: index.pop("sha256"),
        lambda index: index.update(sha256=3),
    ],
)
def test_a_strange_index_is_refused(damaged, change):
    file = damaged / "export.json"
    index = json.loads(file.read_text())
    change(index)
    file.write_text(json.dumps(index))
    with pytest.raises(ExportError, match="export.json"):
        ExportedScorer.load(damaged)
    file.write_text("[]")
    with pytest.raises(ExportError, match="export.json"):
        ExportedScorer.load(damaged)


def test_a_missing_engine_is_named(grey, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ExportError, match=r"pip install 'scrd\[runtime\]'"):
        ExportedScorer.load(grey / "onnx")


def test_a_broken_image_costs_only_itself(grey, tmp_path):
    files = files_of(grey)[:5]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"")
    found = list(ExportedScorer.load(grey / "onnx").score([files[0], broken, *files[1:]]))
    assert [isinstance(one, Scored) for one in found] == [True, False, True, True, True, True]


SCORE = """
import sys
from pathlib import Path
from scrd.data.series import list_sources
from scrd.export.runtime import ExportedScorer
from scrd.outputs.score_folder import score_all
from scrd.outputs.pictures import Outputs

export, data, out = map(Path, sys.argv[1:])
score_all(ExportedScorer.load(export), list_sources([data]), out, Outputs(raw_maps=True))
heavy = {"torch", "timm", "torchvision", "lightning_fabric", "safetensors", "scipy"}
print(sorted(heavy & set(sys.modules)))
"""


def test_what_an_export_says_of_normals_is_what_its_model_says(grey):
    export, model = read_known(grey / "onnx"), read_known(grey / "model")
    assert export.fingerprint == ExportedScorer.load(grey / "onnx").fingerprint
    assert model.fingerprint == Detector.load(grey / "model", device="cpu").fingerprint
    assert (export.calibration, export.contract) == (model.calibration, model.contract)
    assert len(export.calibration.acquisition.sharpness) == len(export.calibration.scores)


def test_scoring_needs_no_torch(grey, tmp_path):
    spots = grey / "data" / "test" / "spot"
    done = subprocess.run(
        [sys.executable, "-c", SCORE, grey / "onnx", spots, tmp_path],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 11
    assert len((tmp_path / "covariates.csv").read_text().splitlines()) == 11
    assert len(list((tmp_path / "overlays").iterdir())) == 10
    assert len(list((tmp_path / "maps").iterdir())) == 10

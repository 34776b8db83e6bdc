"""The detector from files to answers: fit, score, save, load, resume."""

import dataclasses
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from scrd.cli import app
from scrd.config import Config
from scrd.data.manifest import read_manifest
from scrd.data.preprocess import prepare
from scrd.data.reading import read_image
from scrd.data.record import Record
from scrd.detector import Detector
from scrd.errors import ImageError, ManifestError
from scrd.export.errors import ExportError
from scrd.export.folder import read_exported
from scrd.model.constants import Constants
from scrd.model.scores import infer
from scrd.scoring.scorer import Scored
from scrd.storage.card import model_card
from scrd.storage.model_folder import ModelFolderError
from scrd.storage.plain import to_plain
from scrd.training import fit as fitting
from scrd.training.log import TrainingError
from scrd.training.prepare import hold_out
from scrd.training.prepare import prepare as prepare_set

QUICK = Config(image_size=64, batch_size=4, iterations=4, false_alarm_rate=0.2, held_out=0.25)


def disc(rng, size=(64, 64), spot=False):
    """A soft bright disc on a grey ground; abnormal ones have a bright square."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    centre = [length / 2 + rng.normal(0, 2) for length in size]
    distance = np.hypot(rows - centre[0], columns - centre[1])
    image = 60 + 110 / (1 + np.exp((distance - min(size) / 3) / 2)) + rng.normal(0, 3, size)
    if spot:
        image[size[0] // 2 :, size[1] // 2 :][:10, :10] = 250
    return image.clip(0, 255).astype(np.uint8)


def save(pixels, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def normals(tmp_path_factory):
    """A folder of 32 grey normals."""
    folder, rng = tmp_path_factory.mktemp("data") / "normals", np.random.default_rng(0)
    for i in range(32):
        save(disc(rng), folder / f"{i:02}.png")
    return folder


@pytest.fixture(scope="module")
def trained(normals):
    return Detector.fit(normals, QUICK, device="cpu")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Ten files to score, three of them broken, of several sizes."""
    folder, rng = tmp_path_factory.mktemp("mixed"), np.random.default_rng(1)
    files = [
        save(disc(rng, size, spot=bool(i % 2)), folder / f"{i}.png")
        for i, size in enumerate([(64, 64), (80, 50), (40, 100), (64, 64), (65, 63)] * 2)
    ]
    files[3].write_bytes(b"")
    files[4].write_bytes(files[5].read_bytes()[:200])
    files[8] = folder / "absent.png"
    return files


def test_a_folder_is_divided_and_told(trained, normals):
    normals_used = trained.provenance["normals"]
    parts = [normals_used[part] for part in ("trained", "calibrated")]
    assert sum(parts) == 32
    assert min(parts) >= 1
    assert len(trained.calibration.scores) == normals_used["calibrated"]
    assert trained.provenance["fingerprint"] == read_manifest(normals).fingerprint
    assert trained.provenance["versions"]["torch"] == torch.__version__
    assert trained.preprocessing.intensity.channels == "grey"
    assert trained.failures == ()
    json.dumps(trained.provenance, allow_nan=False)


def test_the_same_files_train_the_same_from_a_tree_and_a_table(normals, trained, tmp_path):
    files = sorted(normals.iterdir())
    (tmp_path / "tree" / "train").mkdir(parents=True)
    (tmp_path / "tree" / "train" / "normal").symlink_to(normals)
    save(np.zeros((8, 8), np.uint8), tmp_path / "tree" / "train" / "tumour" / "x.png")
    table = tmp_path / "table" / "split.csv"
    table.parent.mkdir()
    rows = [f"{file},0,normal,train" for file in files]
    rows += ["a.png,1,tumour,train", "b.png,0,normal,test"]  # neither exists, neither is opened
    table.write_text("\n".join(["path,label,class,split", *rows]) + "\n")
    for data in (tmp_path / "tree", table):
        other = Detector.fit(data, QUICK, device="cpu")
        assert other.failures == ()
        assert other.calibration == trained.calibration


def test_fitting_leaves_the_global_generators_alone(normals):
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    Detector.fit(normals, dataclasses.replace(QUICK, iterations=1), device="cpu")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_calibrating_normals_have_no_part_in_the_model(normals, trained):
    prepared = fitting.prepare(normals, QUICK)
    images = np.ascontiguousarray(prepared.calibrating.images[:, :, ::-1]) * 0.5 + 0.3
    changed = dataclasses.replace(prepared.calibrating, images=images)
    other = Detector.fit(dataclasses.replace(prepared, calibrating=changed), QUICK, device="cpu")
    state = other.model.state_dict()
    assert all(torch.equal(t, state[name]) for name, t in trained.model.state_dict().items())
    assert other.calibration.scores != trained.calibration.scores
    # while those that train have
    images = np.ascontiguousarray(prepared.fitting.images[:, :, ::-1])
    changed = dataclasses.replace(prepared.fitting, images=images)
    other = Detector.fit(dataclasses.replace(prepared, fitting=changed), QUICK, device="cpu")
    for part in ("memory", "normals", "areas", "lesion_head"):
        names = [name for name in state if name.startswith(part)]
        assert any(not torch.equal(state[n], other.model.state_dict()[n]) for n in names)


def test_what_normals_taught_is_in_the_model_folder(trained, tmp_path):
    trained.save(tmp_path / "model")
    stored = load_file(tmp_path / "model" / "weights.safetensors")
    loaded = Detector.load(tmp_path / "model", device="cpu").model.state_dict()
    for name, tensor in trained.model.state_dict().items():
        assert torch.equal(loaded[name], tensor) and torch.equal(stored[name], tensor), name
    for part in ("memory", "normals", "areas"):
        assert any(name.startswith(part) for name in stored)
    assert (stored["normals.mean0"] != 0).all() and (stored["areas.std"] != 1).all()


@pytest.mark.parametrize(("objective", "rectified"), [("srd", False), ("rd", True)])
def test_standardised_features_get_a_student_of_both_signs(normals, objective, rectified, tmp_path):
    config = dataclasses.replace(
        QUICK, teacher="resnet18", weights="random", objective=objective, iterations=1
    )
    with pytest.warns(UserWarning, match="RANDOM"):
        detector = Detector.fit(normals, config, device="cpu")
    assert detector.model.teacher.is_rectified()
    assert detector.model.student.rectified is rectified
    detector.save(tmp_path / "model")
    loaded = Detector.load(tmp_path / "model", device="cpu")
    assert loaded.model.student.rectified is rectified
    files = sorted(normals.iterdir())[:2]
    pairs = zip(detector.score(files), loaded.score(files), strict=True)
    assert all(a.score == b.score for a, b in pairs)


def test_saved_and_loaded_gives_identical_scores(trained, normals, tmp_path):
    trained.save(tmp_path / "model")
    loaded = Detector.load(tmp_path / "model", device="cpu")
    files = sorted(normals.iterdir())[:6]
    for a, b in zip(trained.score(files), loaded.score(files), strict=True):
        assert (a.score, a.p_value, a.flag) == (b.score, b.p_value, b.flag)
        assert (a.statistics, a.scale_weights) == (b.statistics, b.scale_weights)
        np.testing.assert_array_equal(a.input_map, b.input_map)
    assert loaded.config == trained.config
    assert loaded.preprocessing == trained.preprocessing
    assert loaded.log == trained.log
    assert loaded.calibration.scores == trained.calibration.scores
    assert loaded.provenance == json.loads(json.dumps(trained.provenance))
    loaded.save(tmp_path / "again")
    for name in ("weights.safetensors", "calibration.json", "card.md", "training.jsonl"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "model" / name).read_bytes()


def test_every_file_of_the_model_folder_is_strict_json_or_text(trained, tmp_path):
    # with a rate that eight groups cannot hold the threshold is infinite, which JSON cannot say
    endless = dataclasses.replace(trained.calibration, threshold=float("inf"))
    detector = Detector(
        trained.model,
        trained.config,
        trained.preprocessing,
        endless,
        trained.provenance,
        trained.contract,
    )
    detector.save(tmp_path / "model")

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    for name in ("config.json", "calibration.json"):
        json.loads((tmp_path / "model" / name).read_text(), parse_constant=refuse)
    assert Detector.load(tmp_path / "model", device="cpu").calibration.threshold == float("inf")


@pytest.mark.parametrize("damage", ["no log", "bad log", "strange setting", "no settings"])
def test_a_damaged_model_folder_is_named(trained, tmp_path, damage):
    folder = tmp_path / "model"
    trained.save(folder)
    log, config = folder / "training.jsonl", folder / "config.json"
    content = json.loads(config.read_text())
    if damage == "no log":
        log.unlink()
    elif damage == "bad log":
        log.write_text("{")
    elif damage == "strange setting":
        content["config"]["colour"] = 1
        config.write_text(json.dumps(content))
    else:
        del content["preprocessing"]
        config.write_text(json.dumps(content))
    with pytest.raises(ModelFolderError) as caught:
        Detector.load(folder, device="cpu")
    assert (log.name if "log" in damage else config.name) in str(caught.value)


def test_the_card_says_what_it_was_trained_on(trained, tmp_path):
    trained.save(tmp_path / "model")
    card = (tmp_path / "model" / "card.md").read_text()
    used = trained.provenance["normals"]
    for fact in (
        "normals",
        trained.provenance["fingerprint"][:16],
        f"{used['trained']} normal images trained it",
        f"{used['calibrated']} in {used['calibration_groups']} groups calibrated it",
        "Not a medical device",
        f"{trained.calibration.threshold:.6g}",
    ):
        assert fact in card
    assert "nothing is ever flagged" not in card
    assert "(25%; asked for: 0.25)" in card
    assert "of new groups, such as patients, a share of 0.2 or less is flagged" in card
    sizes = dataclasses.replace(trained.calibration, groups=(0, 0, 0, 1, 2, 3, 4, 5))
    by_image = dataclasses.replace(sizes, promise="image")
    for calibration, words in ((sizes, "at worst 0.37, since"), (by_image, "be up to 0.46, the")):
        text = model_card(
            dataclasses.replace(trained.config, held_out=None),
            trained.preprocessing,
            calibration,
            trained.provenance,
            trained.contract,
        )
        assert words in text
        assert "a quarter, or more where a false-alarm rate of 0.2 takes more groups" in text


def test_results_come_in_order_with_broken_files_in_the_middle(trained, mixed):
    for batch_size in (1, 3, 16):
        results = list(trained.score(mixed, batch_size=batch_size))
        assert [r.path for r in results] == mixed
        broken = [i for i, r in enumerate(results) if isinstance(r, ImageError)]
        assert broken == [3, 4, 8]
        assert results[3].reason == "the file is empty"
        assert results[8].reason == "no such file"
        for i in set(range(10)) - set(broken):
            assert results[i].source_size == read_image(mixed[i]).shape


def test_only_broken_files_still_give_their_errors(trained, mixed):
    results = list(trained.score([mixed[3], mixed[8]]))
    assert [type(r) for r in results] == [ImageError, ImageError]
    assert list(trained.score([])) == []


def test_scores_do_not_depend_on_the_batch(trained, mixed):
    expected = [r for r in trained.score(mixed, batch_size=16) if isinstance(r, Scored)]
    for batch_size in (1, 2, 5):
        found = [r for r in trained.score(mixed, batch_size=batch_size) if isinstance(r, Scored)]
        for a, b in zip(found, expected, strict=True):
            for name in ("mean", "top", "max"):
                assert a.statistics[name] == pytest.approx(b.statistics[name], rel=1e-5)
            np.testing.assert_allclose(a.input_map, b.input_map, atol=1e-5)


def test_an_answer_agrees_with_itself(trained, mixed):
    calibration = trained.calibration
    scored = [r for r in trained.score(mixed) if isinstance(r, Scored)]
    assert min(r.input_map.min() for r in scored) < 0  # in units of normals, about their mean
    for r in scored:
        assert r.score == r.statistics["areas"]
        assert r.p_value == calibration.p_values(r.score)[0]
        assert r.flag == (r.score >= calibration.threshold)
        assert r.statistics["max"] == r.input_map.max()
        assert r.statistics["mean"] == pytest.approx(r.input_map.mean(), rel=1e-5)
        assert sum(r.scale_weights) == pytest.approx(1, abs=1e-5)
        assert r.input_map.min() < r.input_map.max()


def test_maps_come_back_in_the_geometry_of_the_source(trained, mixed):
    for r in trained.score(mixed):
        if isinstance(r, Scored):
            source = trained.source_map(r)
            assert source.shape == read_image(r.path).shape
            assert source.dtype == np.float32


@pytest.mark.parametrize(("objective", "pooling"), [("scrd", "areas"), ("srd", "excess")])
def test_letterbox_padding_has_no_say_in_the_score(tmp_path, objective, pooling):
    rng = np.random.default_rng(6)
    for i in range(16):
        save(disc(rng, (48, 96)), tmp_path / "data" / f"{i}.png")
    detector = Detector.fit(
        tmp_path / "data",
        dataclasses.replace(QUICK, resize="letterbox", objective=objective, pooling=pooling),
        device="cpu",
    )
    (scored,) = detector.score([tmp_path / "data" / "0.png"])
    image = torch.from_numpy(prepare(read_image(scored.path), detector.preprocessing)[None])
    content = torch.zeros(1, 64, 64, dtype=torch.bool)
    content[:, 16:48] = True
    found = infer(detector.model, image, content)
    assert scored.score == pytest.approx(found.statistics[pooling].item(), rel=1e-4)
    everywhere = infer(detector.model, image, torch.ones_like(content)).statistics
    assert scored.score != pytest.approx(everywhere[pooling].item(), rel=1e-3)


def test_letterbox_pads_for_the_model_and_not_for_the_answer(tmp_path):
    rng = np.random.default_rng(2)
    for i in range(30):
        save(disc(rng, (48, 96)), tmp_path / "data" / f"{i}.png")
    config = dataclasses.replace(QUICK, resize="letterbox", pooling="mean")
    detector = Detector.fit(tmp_path / "data", config, device="cpu")
    (scored,) = detector.score([tmp_path / "data" / "0.png"])
    assert scored.input_map.shape == (64, 64)
    content = scored.input_map[16:48]  # 96 x 48 becomes 64 x 32, centred
    assert scored.score == pytest.approx(content.mean(), rel=1e-5)
    assert scored.score != pytest.approx(scored.input_map.mean(), rel=1e-5)
    source = detector.source_map(scored)
    assert source.shape == (48, 96)
    assert source.mean() == pytest.approx(content.mean(), rel=0.02)
    peak = np.unravel_index(content.argmax(), content.shape)
    found = np.unravel_index(source.argmax(), source.shape)
    assert abs(found[0] - 1.5 * peak[0]) <= 3 and abs(found[1] - 1.5 * peak[1]) <= 3


def test_colour_images_train_in_colour_and_score_grey_ones(tmp_path):
    rng = np.random.default_rng(3)
    for i in range(30):
        grey = disc(rng)
        colour = np.stack([grey, grey // 2, 255 - grey], axis=2)
        save(colour, tmp_path / "data" / f"{i}.png")
    detector = Detector.fit(tmp_path / "data", QUICK, device="cpu")
    assert detector.preprocessing.intensity.channels == "rgb"
    same = [save(grey, tmp_path / "g.png"), save(np.stack([grey] * 3, axis=2), tmp_path / "c.png")]
    in_one, in_three, in_colour = detector.score([*same, tmp_path / "data" / "29.png"])
    assert in_one.score == pytest.approx(in_three.score, rel=1e-5)
    assert in_one.score != pytest.approx(in_colour.score, rel=1e-3)


def test_sixteen_bits_keep_their_levels_on_the_way_to_the_model(tmp_path):
    rng = np.random.default_rng(4)
    for i in range(30):
        levels = 878 + disc(rng).astype(np.uint16) * 245 // 256
        save(levels, tmp_path / "data" / f"{i}.png")
    detector = Detector.fit(tmp_path / "data", QUICK, device="cpu")
    ramp = np.resize(np.arange(878, 878 + 245, dtype=np.uint16), (64, 64))
    pixels = read_image(save(ramp, tmp_path / "ramp.png"))
    assert pixels.dtype == np.uint16
    reached = prepare(pixels, detector.preprocessing)
    assert len(np.unique(reached)) == 245
    order = np.argsort(ramp.ravel(), kind="stable")
    assert (np.diff(reached.ravel()[order]) >= 0).all()
    detector.save(tmp_path / "model")
    again = Detector.load(tmp_path / "model", device="cpu")
    np.testing.assert_array_equal(prepare(pixels, again.preprocessing), reached)
    (scored,) = again.score([tmp_path / "ramp.png"])
    assert np.isfinite(scored.score)


def test_a_broken_training_image_is_skipped_and_named(normals, tmp_path):
    for file in normals.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    for name in ("05.png", "17.png"):
        (tmp_path / name).write_bytes(b"GIF89a")
    detector = Detector.fit(tmp_path, QUICK, device="cpu")
    assert sorted(f.path.name for f in detector.failures) == ["05.png", "17.png"]
    assert len(detector.provenance["unreadable"]) == 2
    used = detector.provenance["normals"]
    assert used["trained"] + used["calibrated"] == 30


def test_held_out_parts_never_share_a_group():
    rng = np.random.default_rng(5)
    for seed in range(20):
        count = int(rng.integers(12, 80))
        groups = [None if g > 12 else f"p{g}" for g in rng.integers(0, 16, count)]
        records = [
            Record(path=None, name=str(i), label=0, kind="normal", split="train", group=g)
            for i, g in enumerate(groups)
        ]
        parts = hold_out(records, dataclasses.replace(QUICK, seed=seed, held_out=None))
        assert sorted(int(r.name) for part in parts for r in part) == list(range(count))
        named = [{r.group for r in part} - {None} for part in parts]
        assert not named[0] & named[1]
        assert 0 < len(parts[1]) < len(parts[0])


def test_patients_reach_the_calibration_as_groups(normals, tmp_path):
    rows = [f"{f},0,normal,train,p{i // 2}" for i, f in enumerate(sorted(normals.iterdir()))]
    table = tmp_path / "split.csv"
    table.write_text("\n".join(["path,label,class,split,patient", *rows]) + "\n")
    detector = Detector.fit(table, QUICK, device="cpu")
    calibrated = detector.provenance["normals"]
    assert calibrated["calibration_groups"] == len(set(detector.calibration.groups))
    assert calibrated["calibrated"] == 2 * calibrated["calibration_groups"]


@pytest.mark.parametrize("pooling", ["areas", "mean"])
def test_few_normals_train_or_are_refused_in_words(normals, tmp_path, pooling):
    # at 16 images a single one chooses the pooling, and nothing has a standard deviation of one
    for file in sorted(normals.iterdir())[:16]:
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = dataclasses.replace(QUICK, pooling=pooling)
    try:
        detector = Detector.fit(tmp_path, config, device="cpu")
    except TrainingError as error:
        assert str(tmp_path) in str(error) or "normal" in str(error)
    else:
        (scored,) = detector.score([tmp_path / "00.png"])
        assert all(np.isfinite(value) for value in scored.statistics.values())


def test_what_cannot_be_trained_on_is_refused(normals, tmp_path):
    with pytest.raises(ManifestError, match="no such file or folder"):
        Detector.fit(tmp_path / "absent", QUICK)
    save(np.eye(8, dtype=np.uint8), tmp_path / "one" / "0.png")
    with pytest.raises(TrainingError, match="1 groups? cannot be split into 2"):
        Detector.fit(tmp_path / "one", QUICK)
    for i in range(9):
        save(np.full((8, 8), 7, np.uint8), tmp_path / "flat" / f"{i}.png")
    with pytest.raises(TrainingError, match="constant"):
        Detector.fit(tmp_path / "flat", QUICK)
    (tmp_path / "broken").mkdir()
    for i in range(9):
        (tmp_path / "broken" / f"{i}.png").write_bytes(b"")
    with pytest.raises(TrainingError, match=r"broken.\d\.png"):
        Detector.fit(tmp_path / "broken", QUICK)


RESUMABLE = dataclasses.replace(QUICK, iterations=5, checkpoint_every=3)


def test_a_fit_resumes_from_its_work_folder_and_refuses_other_data(normals, tmp_path):
    undisturbed = Detector.fit(normals, RESUMABLE, device="cpu")
    Detector.fit(normals, RESUMABLE, work=tmp_path, device="cpu")  # leaves that of step 3
    assert (tmp_path / "checkpoint.safetensors").exists()
    resumed = Detector.fit(normals, RESUMABLE, work=tmp_path, resume=True, device="cpu")
    for name, tensor in undisturbed.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], tensor)
    assert resumed.calibration == undisturbed.calibration

    free = dataclasses.replace(RESUMABLE, false_alarm_rate=0.3, pooling="max", checkpoint_every=5)
    assert Detector.fit(normals, free, work=tmp_path, resume=True, device="cpu")
    finer = dataclasses.replace(RESUMABLE, false_alarm_rate=0.1, held_out=None)
    with pytest.raises(TrainingError, match="held_out changed"):  # it takes more groups
        Detector.fit(normals, finer, work=tmp_path, resume=True, device="cpu")
    changed = dataclasses.replace(RESUMABLE, seed=1, learning_rate=1e-4)
    with pytest.raises(TrainingError, match="learning_rate, seed changed"):
        Detector.fit(normals, changed, work=tmp_path, resume=True, device="cpu")
    other = tmp_path / "other"
    other.mkdir()
    for file in sorted(normals.iterdir())[1:]:
        (other / file.name).write_bytes(file.read_bytes())
    with pytest.raises(TrainingError, match="data changed"):
        Detector.fit(other, RESUMABLE, work=tmp_path, resume=True, device="cpu")
    assert Detector.fit(other, RESUMABLE, work=tmp_path, device="cpu")  # anew, without resume


def test_a_training_killed_in_the_middle_resumes_to_the_same_weights(normals, tmp_path):
    settings = Config(image_size=64, batch_size=4, iterations=24, checkpoint_every=4)
    command = [
        *(sys.executable, "-c", "import torch; torch.set_num_threads(1)\n"),
        *("train", str(normals), "--out", str(tmp_path / "model"), "--device", "cpu"),
        *("--image-size", "64", "--batch-size", "4", "--iterations", "24"),
        *("--checkpoint-every", "4"),
    ]
    command[2] += "from scrd.cli import app; app()"
    victim = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoint = tmp_path / "model.partial" / "checkpoint.safetensors"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and victim.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    victim.kill()
    assert victim.wait() == -signal.SIGKILL, "it ended before it was killed"
    assert checkpoint.exists()
    assert not (tmp_path / "model").exists()
    with pytest.raises(ModelFolderError, match=r"model: .*--resume"):
        Detector.load(tmp_path / "model")

    resumed = CliRunner().invoke(app, [*command[3:], "--resume"])
    assert resumed.exit_code == 0, resumed.output
    assert not (tmp_path / "model.partial").exists()
    found = load_file(tmp_path / "model" / "weights.safetensors")
    undisturbed = Detector.fit(normals, settings, device="cpu")
    expected = undisturbed.model.state_dict()
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    lines = (tmp_path / "model" / "training.jsonl").read_text().splitlines()
    assert [json.loads(line)["loss"] for line in lines] == [e.loss for e in undisturbed.log]


def test_one_path_or_array_is_an_image_and_not_a_sequence(trained, mixed):
    pixels = read_image(mixed[0])
    (from_text,), (from_path,) = trained.score(str(mixed[0])), trained.score(mixed[0])
    (from_array,) = trained.score(pixels)
    assert from_text.score == from_path.score == from_array.score
    assert str(from_array.path) == "array 0"
    assert trained.source_map(from_array).shape == pixels.shape


def test_arrays_meet_the_same_checks_as_files(trained, mixed):
    pixels = read_image(mixed[0])
    wrong = [
        np.full((64, 64), 9, np.uint8),
        pixels[None],
        np.zeros((0, 4), np.uint8),
        pixels.astype(str),
        pixels.astype(np.uint16) * 257,
    ]
    *results, colour, strange, file = trained.score(
        [*wrong, np.dstack([pixels] * 3), pixels.astype(float), mixed[0]]
    )
    words = ("nothing to see", "not (1, 64, 64)", "no pixels", "type", "8 bits")
    for number, (result, word) in enumerate(zip(results, words, strict=True)):
        assert isinstance(result, ImageError)
        assert str(result).startswith(f"array {number}: ")
        assert word in result.reason
    assert "a colour image" in colour.doubts[0]
    assert isinstance(strange, ImageError)
    assert file.doubts == ()
    (holed,) = trained.score(np.full((64, 64), np.nan), any_kind=True)
    assert "not finite" in holed.reason
    (anyway,) = trained.score(pixels.astype(float), any_kind=True)
    assert anyway.score == file.score
    assert anyway.doubts


def test_what_the_training_images_never_showed_is_doubted_until_after_a_reload(trained, tmp_path):
    faint = np.random.default_rng(0).integers(0, 5, (64, 64)).astype(np.uint8)
    trained.save(tmp_path / "model")
    for detector in (trained, Detector.load(tmp_path / "model")):
        (scored,) = detector.score(faint)
        assert any("grey values run from 0 to 4; in training" in d for d in scored.doubts)


def test_constants_of_scoring_are_those_of_the_model_folder(trained, normals, tmp_path):
    trained.save(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    assert config["constants"] == to_plain(Constants())
    before = next(trained.score(normals / "00.png")).statistics
    config["constants"] |= {"top_fraction": 1.0, "sharpness": 0.5}
    config["preprocessing"]["intensity"]["bright"] = 60.0
    path.write_text(json.dumps(config))
    changed = Detector.load(tmp_path / "model")
    after = next(changed.score(normals / "00.png")).statistics
    assert after["top"] == pytest.approx(after["mean"])
    assert after["areas"] != before["areas"]
    assert changed.preprocessing.intensity.bright == 60


def test_a_model_saved_without_rules_of_today_keeps_what_they_were(trained, normals, tmp_path):
    trained.save(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    for name in ("dark", "bright", "own_headroom", "least_width"):
        del config["preprocessing"]["intensity"][name]
    for name in ("files", "windowed", "aspect", "plausible"):
        del config["contract"][name]
    path.write_text(json.dumps(config))
    old, new = (next(d.score(normals / "00.png")) for d in (Detector.load(path.parent), trained))
    assert old.statistics == new.statistics
    assert old.doubts == ()


@pytest.mark.parametrize(
    ("images", "word"),
    [
        ([disc(np.random.default_rng(0))] * 12, "copies of one image"),
        ([disc(np.random.default_rng(i % 3)) for i in range(12)], "3 different normal images"),
        ([np.full((8, 8), 10 * i, np.uint8) for i in range(12)], "nothing to see"),
    ],
)
def test_a_set_that_teaches_nothing_is_refused(images, word, tmp_path):
    for i, image in enumerate(images):
        save(image, tmp_path / f"{i:02}.png")
    with pytest.raises(TrainingError, match=word):
        prepare_set(tmp_path, QUICK)


def test_a_window_in_another_unit_stops_before_training(normals):
    with pytest.raises(TrainingError, match="300,400 holds 0 % .* run from"):
        prepare_set(normals, dataclasses.replace(QUICK, window=(300, 400)))


def test_too_few_groups_are_told_before_the_work_and_in_the_card(normals, tmp_path, capsys):
    config = dataclasses.replace(QUICK, false_alarm_rate=0.01)
    prepare_set(normals, config, progress=True)
    said = "can flag nothing: 8 held-out groups of normals calibrate it"
    assert said in " ".join(capsys.readouterr().err.split())
    prepare_set(normals, QUICK, progress=True)
    assert "can flag nothing" not in capsys.readouterr().err


def test_an_export_is_not_taken_for_a_model_nor_a_model_for_an_export(tmp_path):
    (tmp_path / "export.json").write_text("{}")
    with pytest.raises(ModelFolderError, match=r"ExportedScorer\.load"):
        Detector.load(tmp_path)
    (tmp_path / "export.json").rename(tmp_path / "config.json")
    with pytest.raises(ExportError, match=r"Detector\.load"):
        read_exported(tmp_path)

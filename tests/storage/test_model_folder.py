"""The model folder: whole or not at all, and what a damaged one is called."""

import hashlib
import json
import os
import pickle

import pytest
import torch
from safetensors.torch import load_file

from scrd.storage import model_folder as storage
from scrd.storage.model_folder import (
    FORMAT,
    Contents,
    ModelFolderError,
    read_model_folder,
    refuse_if_taken,
    write_model_folder,
)
from scrd.system.files import write_atomically

FILES = ["calibration.json", "card.md", "config.json", "training.jsonl", "weights.safetensors"]


def contents(value=1.0):
    weights = {"a": torch.full((2, 3), value), "b": torch.arange(4.0).view(2, 2).T}
    return Contents({"scrd_version": "9.9", "note": "é"}, {"threshold": 0.5}, weights)


def write(folder, value=1.0, **options):
    write_model_folder(folder, contents(value), log_lines="{}\n", card="# card\n", **options)


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "model")
    return tmp_path / "model"


def rewrite_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_what_was_written_is_read_back(folder):
    assert sorted(p.name for p in folder.iterdir()) == FILES
    assert [p.name for p in folder.parent.iterdir()] == ["model"]
    back = read_model_folder(folder)
    assert back.config["note"] == "é"
    assert back.config["format"] == FORMAT
    assert back.calibration == {"threshold": 0.5}
    for name, tensor in contents().weights.items():
        assert torch.equal(back.weights[name], tensor)
    recorded = back.config["sha256"]["weights.safetensors"]
    data = (folder / "weights.safetensors").read_bytes()
    assert recorded == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("step", ["save_file", "sha256"])
def test_a_failure_in_the_middle_leaves_nothing_at_the_place(tmp_path, monkeypatch, step):
    def fail(*_args, **_kwargs):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(storage, step, fail)
        with pytest.raises(OSError, match="no space"):
            write(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    write(tmp_path / "model")  # what the failure left is no hindrance
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    read_model_folder(tmp_path / "model")


@pytest.mark.parametrize("step", ["save_file", "sha256", "os.replace"])
def test_a_failure_in_the_middle_keeps_the_older_model(folder, monkeypatch, step):
    def fail(*_args, **_kwargs):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        target, name = (os, "replace") if step == "os.replace" else (storage, step)
        patch.setattr(target, name, fail)
        with pytest.raises(OSError, match="no space"):
            write(folder, 2.0, replace=True)
    assert read_model_folder(folder).weights["a"][0, 0] == 1.0


def test_a_model_is_replaced_only_when_asked(folder):
    with pytest.raises(ModelFolderError, match="model: a model is there already; --overwrite"):
        write(folder, 2.0)
    assert read_model_folder(folder).weights["a"][0, 0] == 1.0
    write(folder, 2.0, replace=True)
    assert read_model_folder(folder).weights["a"][0, 0] == 2.0
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


def test_what_is_no_model_is_never_replaced(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    refuse_if_taken(photos, False)  # an empty folder is free
    (photos / "cat.png").write_bytes(b"1")
    file = tmp_path / "file"
    file.write_text("1")
    for taken in (photos, file):
        with pytest.raises(ModelFolderError, match=f"{taken.name}: exists and is not a model"):
            refuse_if_taken(taken, True)
        with pytest.raises(ModelFolderError):
            write(taken, replace=True)
    assert (photos / "cat.png").read_bytes() == b"1"


@pytest.mark.parametrize("name", ["config.json", "calibration.json", "weights.safetensors"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ModelFolderError, match=f"{name}: missing from the model folder"):
        read_model_folder(folder)


@pytest.mark.parametrize("name", ["calibration.json", "weights.safetensors"])
def test_a_changed_file_does_not_match_its_hash(folder, name):
    data = bytearray((folder / name).read_bytes())
    data[-2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(ModelFolderError, match=f"{name}: does not match the hash in config.json"):
        read_model_folder(folder)


def test_another_format_is_named_with_the_version_that_wrote_it(folder):
    rewrite_config(folder, format=FORMAT + 1)
    with pytest.raises(ModelFolderError) as caught:
        read_model_folder(folder)
    for word in ("config.json", f"format {FORMAT + 1}", f"format {FORMAT}", "9.9"):
        assert word in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00"])
def test_a_config_that_is_not_json(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelFolderError, match=r"config\.json: .*JSON"):
        read_model_folder(folder)


def test_a_config_that_is_not_text(folder):
    (folder / "config.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelFolderError, match=r"config\.json: not readable as JSON"):
        read_model_folder(folder)


class Bomb:
    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return open, (str(self.trace), "w")


@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_a_pickle_in_place_of_the_weights_is_refused_and_not_run(folder, tmp_path, how):
    trace, path = tmp_path / "ran", folder / "weights.safetensors"
    if how == "pickle":
        path.write_bytes(pickle.dumps(Bomb(trace)))
    else:
        torch.save(Bomb(trace), path)
    hashes = json.loads((folder / "config.json").read_text())["sha256"]
    hashes[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    rewrite_config(folder, sha256=hashes)  # an attacker gets the hash right
    with pytest.raises(ModelFolderError, match=r"weights\.safetensors: not a safetensors file"):
        read_model_folder(folder)
    assert not trace.exists()
    if how == "pickle":
        pickle.loads(path.read_bytes()).close()
        assert trace.exists()  # it would have been


def test_an_absent_folder_and_an_interrupted_training(tmp_path):
    with pytest.raises(ModelFolderError) as caught:
        read_model_folder(tmp_path / "model")
    assert str(caught.value) == f"{tmp_path / 'model'}: no such model folder"
    (tmp_path / "model.partial").mkdir()
    with pytest.raises(ModelFolderError, match="interrupted.*--resume"):
        read_model_folder(tmp_path / "model")


def test_weights_are_plain_safetensors(folder):
    assert set(load_file(folder / "weights.safetensors")) == {"a", "b"}


def test_a_text_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "new" / "x.json"
    write_atomically(path, "one")
    assert path.read_text() == "one"

    def fail(*_args):
        raise OSError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="power cut"):
            write_atomically(path, "two")
    assert path.read_text() == "one"

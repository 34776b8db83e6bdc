from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from scrd.commands.dataset import app
from scrd.data.manifest import read_manifest
from scrd.datasets import brain_tumor
from scrd.system.console import REFUSED, SKIPPED


@pytest.fixture
def source(tmp_path: Path, picture, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two training and two test normals, one tumour of each kind; the counts to go with them."""
    root = tmp_path / "kaggle"
    for folder in ("Training", "Testing"):
        for number, kind in enumerate(("notumor", "glioma", "meningioma")):
            place = root / folder / kind
            place.mkdir(parents=True)
            for k in range(2):
                seed = 10 * number + 2 * (folder == "Testing") + k
                Image.fromarray(picture(seed)).save(place / f"{folder}_{k}.png")
    monkeypatch.setitem(
        brain_tumor.prepare_brain_tumor.__kwdefaults__,
        "counts",
        {"train": 2, "test_normal": 2, "test_glioma": 1},
    )
    return root


def test_a_manifest_is_written_and_shown(source: Path, tmp_path: Path) -> None:
    arguments = ["brain-tumor", str(source), "--out", str(tmp_path / "out"), "--seed", "3"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert len(read_manifest(tmp_path / "out").records) == 6
    assert "glioma 1" in result.stdout and "Patients are unknown" in result.stdout


def test_skipped_files_are_named_with_a_code_of_their_own(source: Path, tmp_path: Path) -> None:
    (source / "Training" / "glioma" / "broken.jpg").write_bytes(b"")
    arguments = ["brain-tumor", str(source), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == SKIPPED
    assert "Training/glioma/broken.jpg: the file is empty" in result.stderr
    assert (tmp_path / "out" / "split.csv").is_file()


@pytest.mark.parametrize("name", ["rsna", "brain-tumor", "isic2018"])
def test_another_folder_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    arguments = [name, str(tmp_path / "empty"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == REFUSED
    assert "error:" in result.stderr and "no such" in result.stderr
    assert not (tmp_path / "out").exists()

"""Pictures that PyArrow's file systems hold; the tests reach them as `file://`."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scrd.cluster.bucket import Remote, fetched, list_places
from scrd.cluster.scoring import ray_results
from scrd.data.source import Source
from scrd.errors import ConfigError, ImageError
from scrd.outputs.pictures import Outputs


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(path)
    return path


def test_pictures_are_found_at_any_depth_in_order_and_nothing_else(tmp_path):
    pytest.importorskip("pyarrow", reason="the extra ray is not installed")
    for name in ("b.png", "a/ä c.JPG", "a/.hidden/x.png", ".x.png", "z.tif"):
        picture(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    local = picture(tmp_path / "local.png")
    found = list_places([(tmp_path / "in").as_uri(), str(local)]).sources
    assert found[0] == Source(local)
    assert [str(s) for s in found[1:]] == [
        f"file://{tmp_path}/in/{name}" for name in ("a/ä c.JPG", "b.png", "z.tif")
    ]
    (alone,) = list_places([local.as_uri()]).sources
    assert str(alone) == f"file://{local}"


def test_copies_live_as_long_as_the_block(tmp_path):
    pytest.importorskip("pyarrow", reason="the extra ray is not installed")
    original = picture(tmp_path / "a.png")
    (remote,) = list_places([original.as_uri()]).sources
    gone = Remote(Path("/gone.png"), uri="file:///gone.png", root="file:///", key="/gone.png")
    local = Source(original)
    with fetched([local, remote, gone]) as (first, copy, failed):
        assert first is local
        assert copy.path != original
        assert copy.path.read_bytes() == original.read_bytes()
        assert isinstance(failed, ImageError)
        assert "cannot be fetched" in failed.reason
    assert not copy.path.exists()


def test_an_empty_bucket_and_an_unknown_scheme_are_refused_without_credentials(tmp_path):
    pytest.importorskip("pyarrow", reason="the extra ray is not installed")
    with pytest.raises(ConfigError, match="no pictures there"):
        list_places([tmp_path.as_uri()])
    with pytest.raises(ConfigError, match=r"nowhere://host/x: cannot be listed") as refusal:
        list_places(["nowhere://key:secret@host/x?token=secret"])
    assert "secret" not in str(refusal.value)


def test_local_places_need_no_pyarrow_and_a_cluster_says_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "ray", None)
    local = picture(tmp_path / "a.png")
    found = list_places([str(tmp_path)]).sources
    assert found == (Source(local),)
    with fetched(found) as copies:
        assert copies == [Source(local)]
    with (
        pytest.raises(ConfigError, match=r"pip install 'scrd\[ray\]'"),
        ray_results(lambda: None, found, tmp_path, Outputs()),
    ):
        pass
    with pytest.raises(ConfigError, match=r"pip install 'scrd\[ray\]'"):
        list_places([tmp_path.as_uri()])

"""Scoring on a Ray cluster of two workers: the answers of one process, whatever dies."""

import csv
import os
import signal
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from scrd.cluster import scoring as cluster
from scrd.cluster.bucket import list_places
from scrd.cluster.scoring import make_tasks, ray_results
from scrd.config import Config
from scrd.data.contract import Contract
from scrd.data.intensity import Intensity
from scrd.data.preprocess import Preprocessing
from scrd.data.series import list_sources
from scrd.data.source import Source
from scrd.detector import Detector
from scrd.errors import ConfigError, ImageError, ScrdError
from scrd.outputs.pictures import Outputs
from scrd.outputs.score_folder import score_all
from scrd.scoring.calibration import Calibration
from scrd.scoring.scorer import Inferred, Scored, Scorer
from synthetic_volumes import head, write_dicom, write_nifti

ray = pytest.importorskip("ray", reason="the extra ray is not installed")
# workers cannot import this module
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
PLAIN = Outputs(overlays=False)
START_LIMIT = 60  # seconds


@contextmanager
def time_limit(seconds, reason):
    def stop(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    except (TimeoutError, RuntimeError, OSError, ConnectionError) as error:
        pytest.skip(f"{reason}: {error!r}")
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def two_workers():
    """A cluster that stays for the module; its folder must have a short path."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:
        with time_limit(START_LIMIT, "Ray does not start here"):
            ray.init(
                num_cpus=2,
                include_dashboard=False,
                object_store_memory=100 << 20,
                log_to_driver=False,
                logging_level="ERROR",
                _temp_dir=folder,
            )
        yield
        ray.shutdown()


def write_pictures(root, seed):
    rng = np.random.default_rng(seed)
    for i in range(40):
        path = root / f"part{i % 3}" / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = 80 + np.mgrid[:64, :64][1] % 32 + rng.normal(0, 5, (64, 64))
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path)
    return root


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("pictures"), seed=0)


class Bright(Scorer):
    """Tells bright images by their mean; in a worker it is ready at once, without PyTorch."""

    def __init__(self, scope="image"):
        self.preprocessing = Preprocessing(Intensity(0, 255, 0, "grey", scope), 32)
        normals = tuple(np.linspace(0.3, 0.7, 19).tolist())
        self.calibration = Calibration(
            normals, tuple(range(19)), 0.1, 0.55, 0.6, (0.0, 1.0), "mean"
        )
        self.contract = Contract()
        self.fingerprint = None

    def infer(self, images, content, maps=True):
        means = images.mean(axis=(1, 2, 3)).astype(np.float64)
        return Inferred(images[:, 0], {"mean": means}, np.ones((len(images), 1), np.float32))


@pytest.fixture(scope="module")
def listing(pictures):
    (pictures / "part1" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return list_sources([pictures])


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def children():
    """The command lines of this process's children."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            if f"\nPPid:\t{os.getpid()}\n" in status.read_text():
                found.append(status.with_name("cmdline").read_text())
        except OSError:
            continue
    return found


def same_scores(one, other):
    assert [row[0] for row in one] == [row[0] for row in other]
    assert [row[3] for row in one] == [row[3] for row in other]
    for a, b in zip(one[1:], other[1:], strict=True):
        assert (a[1] == "") == (b[1] == "")
        if a[1]:
            # a worker computes with one thread, and sums in another order
            np.testing.assert_allclose(float(a[1]), float(b[1]), rtol=1e-4, atol=1e-6)
    return True


def run(listing, folder, outputs=PLAIN, load=Bright):
    with ray_results(load, listing.sources, folder, outputs, batch_size=4) as results:
        return score_all(load(), listing, folder, outputs, results=results)


def test_a_cluster_of_its_own_answers_as_one_process_does_and_is_gone_afterwards(
    pictures, listing, tmp_path
):
    config = Config(image_size=64, batch_size=4, iterations=4, false_alarm_rate=0.2)
    normals = write_pictures(tmp_path / "normals", seed=1)
    Detector.fit(normals, config, device="cpu").save(tmp_path / "m")
    load = partial(Detector.load, tmp_path / "m", device="cpu")
    outputs = Outputs(overlays=True, raw_maps=True)
    before = {path.name for path in Path("/tmp").glob("scrd-*")}
    with time_limit(2 * START_LIMIT, "Ray does not start here"):
        summary = run(listing, tmp_path / "ray", outputs, load)
    assert not [line for line in children() if "ray" in line]
    assert {path.name for path in Path("/tmp").glob("scrd-*")} <= before
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"

    local = score_all(load(), listing, tmp_path / "local", outputs, batch_size=4)
    plain = {"failures": (), "verdicts": ()}
    assert replace(summary, **plain) == replace(local, **plain)
    for ours, theirs in zip(summary.verdicts, local.verdicts, strict=True):
        assert (ours.images, ours.flag) == (theirs.images, theirs.flag)
    assert [failure.path.name for failure in summary.failures] == ["broken.png"]
    found = rows(tmp_path / "ray" / "scores.csv")
    assert len(found) == 1 + 41
    assert same_scores(found, rows(tmp_path / "local" / "scores.csv"))
    assert rows(tmp_path / "ray" / "errors.csv") == rows(tmp_path / "local" / "errors.csv")
    files = {p.relative_to(tmp_path / "local") for p in tmp_path.glob("local/[om]*/**/*.[jn]p*")}
    assert len(files) == 40 + 40
    assert all((tmp_path / "ray" / path).is_file() for path in files)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "auto"])
def test_a_missing_cluster_is_named(address, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))  # where `auto` looks for a running one
    with (
        pytest.raises(ConfigError, match=f"no Ray cluster at {address}"),
        ray_results(Bright, [], tmp_path, PLAIN, address=address),
    ):
        pass


def test_a_worker_killed_at_work_costs_no_row_and_doubles_none(
    two_workers, listing, tmp_path, monkeypatch
):
    marker = tmp_path / "killed"

    class Dying(cluster.Worker):
        def __call__(self, row):
            done = super().__call__(row)
            if done["start"] == 16 and not marker.exists():
                marker.write_text(str(os.getpid()))
                os.kill(os.getpid(), signal.SIGKILL)  # the work is done, the answer is lost
            return done

    monkeypatch.setattr(cluster, "_IMAGES", 8)
    monkeypatch.setattr(cluster, "Worker", Dying)
    summary = run(listing, tmp_path / "ray")
    assert int(marker.read_text()) != os.getpid()
    assert (summary.images, len(summary.failures)) == (41, 1)
    score_all(Bright(), listing, tmp_path / "local", PLAIN)
    found = rows(tmp_path / "ray" / "scores.csv")
    assert [row[0] for row in found[1:]] == [str(source) for source in listing.sources]
    assert same_scores(found, rows(tmp_path / "local" / "scores.csv"))


def test_an_image_that_kills_every_worker_is_found_and_the_only_one_to_fail(
    two_workers, listing, tmp_path, monkeypatch
):
    class Fatal(Bright):
        def infer(self, images, content, maps=True):
            if any(len(np.unique(image)) < 10 for image in images):
                os.kill(os.getpid(), signal.SIGKILL)
            return super().infer(images, content)

    killer = tmp_path / "halves.png"
    Image.fromarray(np.repeat(np.uint8([[0] * 64, [255] * 64]), 32, axis=0)).save(killer)
    monkeypatch.setattr(cluster, "_IMAGES", 4)
    sources = (*listing.sources[:5], Source(killer), *listing.sources[5:10])
    with ray_results(Fatal, sources, tmp_path, PLAIN, batch_size=4) as stream:
        results = list(stream)
    assert [r.source if isinstance(r, Scored) else Source(r.path) for r in results] == [*sources]
    (failed,) = (r for r in results if isinstance(r, ImageError))
    assert (failed.path, failed.reason) == (killer, "3 processes died over it, one by one")


def test_a_detector_that_no_worker_can_load_ends_the_run_with_the_reason(
    two_workers, listing, tmp_path
):
    load = partial(open, tmp_path / "nowhere")
    results = ray_results(load, listing.sources, tmp_path, PLAIN)
    with results as stream, pytest.raises(ScrdError, match="nowhere"):
        next(stream)


def test_pictures_of_a_bucket_are_fetched_and_called_by_their_address(
    two_workers, listing, pictures, tmp_path
):
    run(list_places([pictures.as_uri()]), tmp_path / "ray")
    score_all(Bright(), listing, tmp_path / "local", PLAIN)
    remote, local = (rows(tmp_path / name / "scores.csv") for name in ("ray", "local"))
    assert [row[0] for row in remote[1:]] == [f"file://{row[0]}" for row in local[1:]]
    assert [row[1:] for row in remote] == [row[1:] for row in local]


def test_series_have_the_windows_verdicts_and_volume_maps_of_one_process(
    two_workers, tmp_path, monkeypatch
):
    for i in range(5):
        write_dicom(tmp_path / "data" / f"{i}", head(i), i)
    write_nifti(tmp_path / "data" / "head.nii.gz", head(7))
    listing = list_sources([tmp_path / "data"])
    monkeypatch.setattr(cluster, "_IMAGES", 8)
    outputs = Outputs(overlays=False, raw_maps=True)
    load = partial(Bright, "series")
    summary = run(listing, tmp_path / "ray", outputs, load)
    assert summary == score_all(load(), listing, tmp_path / "local", outputs)
    assert summary.studies == 6
    for name in ("scores.csv", "series.csv", "studies.csv", "covariates.csv"):
        assert rows(tmp_path / "ray" / name) == rows(tmp_path / "local" / name)
    maps = [p.relative_to(tmp_path / "local") for p in tmp_path.glob("local/maps/**/*.nii.gz")]
    assert len(maps) == 6
    for path in maps:
        found, expected = (
            nib.load(tmp_path / engine / path).get_fdata() for engine in ("ray", "local")
        )
        np.testing.assert_array_equal(found, expected)


def test_tasks_hold_whole_studies_and_every_image_once(tmp_path):
    for i in range(3):
        write_dicom(tmp_path / f"{i}", head(i), i)
    studies = list_sources([tmp_path]).sources
    loose = [Source(Path(f"{i}.png")) for i in range(130)]
    sources = [*loose, *studies, *studies[:0]]
    tasks = list(make_tasks(sources, PLAIN))
    assert [s for task in tasks for s in task.sources] == sources
    assert [task.start for task in tasks] == [
        sum(len(t.sources) for t in tasks[:i]) for i in range(len(tasks))
    ]
    for study in {s.series.study for s in studies}:
        assert sum(any(s.series and s.series.study == study for s in t.sources) for t in tasks) == 1
    assert all(len(task.sources) <= 64 + len(studies) for task in tasks)
    assert list(make_tasks([], PLAIN)) == []

"""Scoring on the processes and machines of a Ray cluster, through Ray Data."""

from __future__ import annotations

import logging
import os
import pickle
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from scrd.cluster.worker import Ledger, Task, Worker
from scrd.data.source import Source
from scrd.errors import ConfigError, ImageError, ScrdError
from scrd.outputs.names import output_names
from scrd.outputs.pictures import Outputs
from scrd.outputs.score_folder import Result
from scrd.scoring.scorer import Scored, Scorer
from scrd.system.extras import needs
from scrd.system.progress import counting

_IMAGES = 64  # a task, where no study is larger
_CONNECT_SECONDS = 10
_OBJECT_STORE = 256 << 20  # bytes, of a cluster of our own


@contextmanager
def ray_results(
    load: Callable[[], Scorer],
    sources: Sequence[Source],
    folder: Path,
    outputs: Outputs,
    *,
    address: str | None = None,
    batch_size: int = 16,
    any_kind: bool = False,
    progress: bool = False,
) -> Iterator[Iterator[Result]]:
    """Score images on a Ray cluster, for :func:`scrd.outputs.score_folder.score_all`.

    A task is at least one study. If its worker dies another one takes it, from the third time
    image by image; an image at which too many died (:data:`scrd.cluster.worker.DEATHS`) counts as
    failed. The workers write what :func:`scrd.outputs.score_folder.write_pictures` writes, so that
    images, model and ``folder`` must have the same paths on all machines.

    Args:
        load: makes a worker's detector; picklable.
        sources: as :func:`scrd.data.series.list_sources` orders them.
        folder: where pictures are written.
        outputs: which ones.
        address: of a running cluster, ``auto`` for the one of this machine. None starts one of
            all processors of this machine and ends it with the ``with`` block.
        batch_size: images a batch.
        any_kind: see :meth:`scrd.scoring.scorer.Scorer.score`.
        progress: show a progress bar on standard error.

    Yields:
        An iterator of one result a source, in order, as workers finish them.

    Raises:
        ConfigError: Ray is not installed, or there is no cluster at the address.
        ScrdError: while results are taken: a worker cannot load the detector, or write.
    """
    with _cluster(address):
        import ray

        ledger = ray.remote(Ledger).options(num_cpus=0).remote()
        tasks = make_tasks(sources, outputs, batch_size)
        settings = (load, ledger, folder, outputs, batch_size, any_kind, os.getcwd())
        yield _stream(tasks, sources, settings, progress)


@contextmanager
def _cluster(address: str | None) -> Iterator[None]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its log files lie beside the sockets
    try:
        import ray
        import ray.data  # noqa: F401 - absent where Ray came without it
    except ImportError as error:
        raise ConfigError(needs("--engine ray", "ray")) from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    # sockets lie in this folder, and the system allows their paths about 100 characters
    short = "/tmp" if os.path.isdir("/tmp") else None  # noqa: S108 a new folder in it
    with tempfile.TemporaryDirectory(
        prefix="scrd-", dir=short, ignore_cleanup_errors=True
    ) as temporary:
        if address is None:
            ray.init(
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE,
                _temp_dir=temporary,
                **quiet,
            )
        else:
            try:
                _try_port(address)
                ray.init(address=address, **quiet)
            except OSError as error:
                raise ConfigError(f"no Ray cluster at {address}: {error}") from error
        try:
            yield
        finally:
            ray.shutdown()


def _try_port(address: str) -> None:
    """Raise OSError where nobody listens, for which Ray would wait many minutes."""
    host, _, port = address.rpartition("//")[2].rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()


def _stream(
    tasks: Iterable[Task], sources: Sequence[Source], settings: tuple[Any, ...], progress: bool
) -> Iterator[Result]:
    import ray

    rows = [{"task": pickle.dumps(task)} for task in tasks]
    if not rows:
        return
    gpus = int(ray.cluster_resources().get("GPU", 0))
    processors = int(ray.cluster_resources().get("CPU", 1))
    worker: Any = Worker  # Ray makes the instances, in its processes
    data = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        worker,
        fn_constructor_args=settings,
        compute=ray.data.ActorPoolStrategy(size=min(gpus or processors, len(rows))),
        num_cpus=None if gpus else 1,
        num_gpus=1 if gpus else None,
    )
    data.context.execution_options.preserve_order = True
    done = 0
    with counting("scoring", len(sources), progress) as advance:
        for row in data.iter_rows():
            if row["failure"]:
                raise ScrdError(f"a worker of the Ray cluster failed: {row['failure']}")
            results: list[Result] = pickle.loads(row["results"])  # noqa: S301 our own worker's
            if row["start"] != done:
                raise RuntimeError(f"results from {row['start']} on came where {done} was due")
            for source, result in zip(sources[done : done + len(results)], results, strict=True):
                if isinstance(result, Scored):
                    yield replace(result, source=source)
                else:
                    yield ImageError(source.path, result.reason)
            done += len(results)
            advance(done)
    if done != len(sources):
        raise RuntimeError(f"{done} results of {len(sources)} came")


def make_tasks(sources: Sequence[Source], outputs: Outputs, batch_size: int = 16) -> Iterator[Task]:
    """Divide images into tasks of some ``_IMAGES`` images, never a study.

    Args:
        sources: as :func:`scrd.data.series.list_sources` orders them.
        outputs: what is to be written about each image.
        batch_size: of pictures a task holds whole batches, which are then those of one process.
    """
    enough = -(-_IMAGES // batch_size) * batch_size
    wanted = outputs.overlays or outputs.raw_maps
    names = output_names(sources) if wanted else []
    start = end = 0
    for _, study in groupby(enumerate(sources), key=_study):
        end += sum(1 for _ in study)
        if end - start >= enough or end == len(sources):
            yield Task(start, tuple(sources[start:end]), tuple(names[start:end]))
            start = end


def _study(numbered: tuple[int, Source]) -> str | int:
    """Equal for images of one study; a picture is a study of its own."""
    number, source = numbered
    return number if source.series is None else source.series.study

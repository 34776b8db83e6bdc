"""Where a training log goes besides: TensorBoard or MLflow, through loggers of Lightning."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.logger import Logger

from scrd.errors import ConfigError
from scrd.system.extras import needs


def make_logger(kind: str, name: str, folder: Path) -> Logger:
    """Make a logger of the kind.

    Args:
        kind: ``tensorboard``, which writes into ``folder``, or ``mlflow``, which writes where
            ``MLFLOW_TRACKING_URI`` says.
        name: of the run.
        folder: made if needed.

    Raises:
        ConfigError: no such kind, its packages are not installed, or no address is given.
    """
    if kind not in _KINDS:
        raise ConfigError(f"the logger is {' or '.join(_KINDS)}, not {kind!r}")
    try:
        return _KINDS[kind](name, folder)
    except ModuleNotFoundError as e:
        raise ConfigError(needs(f"--logger {kind}", kind)) from e


def _tensorboard(name: str, folder: Path) -> Logger:
    from lightning_fabric.loggers.tensorboard import TensorBoardLogger

    return TensorBoardLogger(folder, name="", version="")


def _mlflow(name: str, folder: Path) -> Logger:
    from pytorch_lightning.loggers import MLFlowLogger

    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        raise ConfigError(
            "--logger mlflow needs an address in MLFLOW_TRACKING_URI, such as http://HOST:5000"
        )
    logger: Any = MLFlowLogger(experiment_name="scrd", run_name=name, tracking_uri=uri)
    return logger  # type: ignore[no-any-return]


_KINDS: dict[str, Callable[[str, Path], Logger]] = {
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
}

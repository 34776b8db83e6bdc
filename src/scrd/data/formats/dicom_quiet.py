"""Reading DICOM without a word of pydicom, which quotes odd values: they may be a patient's."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pydicom import config

_lock = threading.Lock()
_inside = 0
_before: tuple[int, int, Any] = (0, 0, None)


@contextmanager
def quiet() -> Iterator[None]:
    """Within it, pydicom takes values as they are, and neither warns nor logs.

    These are settings of the whole process: they hold in all threads until the last one has left,
    and are then again what the program had chosen. May be nested.
    """
    global _inside, _before
    logger = logging.getLogger("pydicom")
    with _lock:
        if _inside == 0:
            level, mode = logger.level, config.settings.reading_validation_mode
            logger.setLevel(logging.CRITICAL + 1)
            config.settings.reading_validation_mode = config.IGNORE
            warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")
            _before = (level, mode, warnings.filters[0])
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                level, mode, own = _before
                logger.setLevel(level)
                config.settings.reading_validation_mode = mode
                with suppress(ValueError):  # where somebody has put back an older list
                    warnings.filters.remove(own)  # type: ignore[attr-defined]

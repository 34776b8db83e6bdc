"""Scale-aware contrastive reverse distillation: what a normal medical image looks like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scrd.system.version import __version__

if TYPE_CHECKING:
    from scrd.config import Config
    from scrd.detector import Detector

__all__ = ["Config", "Detector", "__version__"]


def __getattr__(name: str) -> Any:
    """Import torch only for those who ask for more than the version."""
    if name == "Config":
        from scrd.config import Config

        return Config
    if name == "Detector":
        from scrd.detector import Detector

        return Detector
    raise AttributeError(f"module 'scrd' has no attribute {name!r}")

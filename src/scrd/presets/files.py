"""Presets as TOML files: finding, reading and checking them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

from scrd.config import Config
from scrd.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_ELSEWHERE = (
    *("seed", "deterministic", "checkpoint_every"),
    *("feature_cache_gib", "image_cache_gib"),
)
"""Settings that no preset is about."""


@dataclass(frozen=True)
class Preset:
    """Settings of a published training.

    Attributes:
        name: of the file, without suffix.
        text: what it is, and where from.
        settings: fields of :class:`scrd.config.Config`, those of ``noise`` in a mapping of their
            own; the others have their defaults.
    """

    name: str
    text: str
    settings: Mapping[str, Any]

    def merged(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The preset's settings, with ``settings`` beside or instead of them."""
        together = {**self.settings, **settings}
        ours, theirs = self.settings.get("noise"), settings.get("noise")
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            together["noise"] = {**ours, **theirs}
        return together

    def config(self, **settings: Any) -> Config:
        """The whole settings.

        Args:
            **settings: win over the preset's; plain JSON types.

        Raises:
            ConfigError: a setting is unknown, of the wrong type, or refused.
        """
        from scrd.storage.plain import from_plain  # slow to import, and `--help` needs none

        return from_plain(Config, self.merged(settings))

    def changed(self, config: Config) -> list[str]:
        """Names of the settings in which ``config`` is another training than the preset's."""
        own = self.config()
        return [
            f.name
            for f in fields(Config)
            if f.name not in _ELSEWHERE and getattr(own, f.name) != getattr(config, f.name)
        ]


def bundled_presets() -> list[str]:
    """Names of the presets that come with the package, sorted."""
    return sorted(p.stem for p in _bundled().iterdir() if p.suffix == ".toml")


def _bundled() -> Path:
    return Path(str(resources.files("scrd.presets")))


def read_preset(source: str) -> Preset:
    """Read and check a preset.

    Args:
        source: the name of a bundled preset, or the path of a TOML file.

    Raises:
        ConfigError: no such preset, no TOML, an unknown key or setting, a refused value.
    """
    path = Path(source)
    if source in bundled_presets():
        path = _bundled() / f"{source}.toml"
    elif not path.is_file():
        raise ConfigError(
            f"no preset {source!r}: choose one of {', '.join(bundled_presets())}, or give the path "
            "of a file like theirs"
        )
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise ConfigError(f"{path}: cannot be read as TOML: {e}") from e
    if set(content) != {"text", "settings"} or not isinstance(content["settings"], dict):
        raise ConfigError(f"{path}: a preset is a text and a table of settings, and nothing else")
    preset = Preset(path.stem, str(content["text"]).strip(), content["settings"])
    try:
        preset.config()
    except ConfigError as e:
        raise ConfigError(f"{path}: {e}") from e
    return preset

"""Frozen dataclasses to plain JSON types and back, by cattrs: no field is written out by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import cattrs
import cattrs.v
from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError, IterableValidationError

from scrd.config import Window
from scrd.errors import ConfigError, ScrdError

T = TypeVar("T")


def read_plain(path: Path, error: type[ScrdError]) -> dict[str, Any]:
    """Read a JSON object that belongs to a saved model.

    Args:
        path: the file.
        error: what is raised where it is missing, no JSON, or no object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error(f"{path}: missing from the model folder") from None
    except (OSError, ValueError) as e:
        raise error(f"{path}: not readable as JSON ({e})") from e
    if not isinstance(content, dict):
        raise error(f"{path}: does not hold a JSON object")
    return content


def to_plain(value: Any) -> Any:
    """A dataclass as dictionaries, lists, numbers, strings and None.

    JSON knows no infinity: an infinite number becomes None, which :func:`from_plain` takes for
    plus infinity where it expects a number.
    """
    return _converter.unstructure(value)


def from_plain(cls: type[T], values: Mapping[str, Any]) -> T:
    """Build a dataclass from what :func:`to_plain` made of it; a missing field takes its default.

    Types are checked, not converted: a text is not a number, and 2.5 is not a count.

    Raises:
        ConfigError: a field is unknown or missing, has the wrong type, or its value is refused;
            the message names the field.
    """
    try:
        return _converter.structure(values, cls)
    except (ClassValidationError, IterableValidationError) as e:
        raise ConfigError(_said(e, cls)) from e


def _said(error: Exception, cls: type) -> str:
    """What is wrong, in the words of the class itself where it refused a value."""
    nested = [error]
    while nested:
        one = nested.pop()
        if isinstance(one, ConfigError):
            return str(one)
        if isinstance(one, ForbiddenExtraKeysError):
            return f"{one.cl.__name__} has no field {', '.join(sorted(one.extra_fields))}"
        nested += reversed(getattr(one, "exceptions", ()))
    return "; ".join(cattrs.transform_error(error, cls.__name__, _format))


def _format(error: BaseException, kind: type | None) -> str:
    choices = [str(c) for c in get_args(kind)] if get_origin(kind) is Literal else []
    return f"not one of {', '.join(choices)}" if choices else cattrs.v.format_exception(error, kind)


def _number(value: Any, _: Any) -> float:
    if value is None:
        return math.inf
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("not a number")
    return float(value)


def _exactly(kind: type) -> Any:
    def check(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            raise ValueError(f"not of type {kind.__name__}")
        return value

    return check


def _window(value: Any, _: Any) -> Any:
    # a word is judged by Config, which says what it may be
    return value if isinstance(value, str) else _converter.structure(value, tuple[float, float])


_converter = cattrs.Converter(forbid_extra_keys=True)
_converter.register_structure_hook(float, _number)
for _kind in (bool, int, str):
    _converter.register_structure_hook(_kind, _exactly(_kind))
_converter.register_structure_hook(Window, _window)
_converter.register_unstructure_hook(float, lambda x: x if math.isfinite(x) else None)

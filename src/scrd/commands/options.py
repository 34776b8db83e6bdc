"""Command options made from the settings of :class:`scrd.config.Config`, so that they agree."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, get_args, get_type_hints

import typer

from scrd.config import Config, Window
from scrd.errors import ConfigError
from scrd.synthesis.settings import NoiseKind, NoiseSettings
from scrd.system.console import refusing

NETWORK, TRAINING, IMAGES, DECISION = "Network", "Training", "Images", "Decision"

_HELP = {
    "teacher": (NETWORK, "Backbone."),
    "weights": (NETWORK, "Teacher weights: a file, or 'random'."),
    "objective": (NETWORK, "What is minimised."),
    "image_size": (IMAGES, "Side of the model input in pixels."),
    "resize": (IMAGES, "Stretch images to the square, or keep their shape on a letterbox."),
    "channels": (IMAGES, "Read images as grey or colour; auto: as the training images are."),
    "window": (IMAGES, "What becomes 0 and 1: auto, image, series, data, or LOW,HIGH."),
    "iterations": (TRAINING, "Training steps."),
    "batch_size": (TRAINING, "Images per step."),
    "learning_rate": (TRAINING, "Learning rate of Adam."),
    "schedule": (TRAINING, "How the learning rate goes over the training."),
    "seed": (TRAINING, "Seed of all random numbers."),
    "precision": (TRAINING, "auto, 32-true, bf16-mixed and others."),
    "checkpoint_every": (TRAINING, "Iterations between checkpoints."),
    "held_out": (
        DECISION,
        "Share of the normals that calibrate instead of training; "
        "by default a quarter, or more where the rate of false alarms takes it.",
    ),
    "false_alarm_rate": (DECISION, "Rate of false alarms to calibrate for."),
    "promise": (DECISION, "What that rate holds for: new groups, or images like those seen."),
    "pooling": (DECISION, "How a map becomes a score."),
    "acquisition": (DECISION, "Allow for an image's brightness, contrast and sharpness."),
}
"""Setting → the panel and the help text of its option; the others have no option."""

_NOISE = {
    "noise": (NoiseKind, "kind", TRAINING, "Kind of the noise that perturbs images."),
    "noise_strength": (float, "strength", TRAINING, "The paper's lambda."),
}
"""Option → type, setting of the noise, panel and help text."""

_NAMES = {"false_alarm_rate": "--far"}


def with_config(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command an option for each setting.

    Args:
        command: whose parameter ``config`` is given the :class:`Config` that the options make.

    Returns:
        The command with these options in its signature in the place of ``config``. It ends with
        the refusal's message where the settings make no sense.
    """

    @wraps(command)
    def with_options(**given: Any) -> Any:
        with refusing():
            config = _config({name: given.pop(name) for name in (*_HELP, *_NOISE)})
        return command(**given, config=config)

    parameters = list(inspect.signature(command, eval_str=True).parameters.values())
    at = next(i for i, p in enumerate(parameters) if p.name == "config")
    parameters[at : at + 1] = _options()
    # typer reads options from the signature
    with_options.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    )
    return with_options


def _options() -> list[inspect.Parameter]:
    kinds = get_type_hints(Config)
    defaults = {f.name: f.default for f in dataclasses.fields(Config)}
    options = []
    for name, (panel, text) in _HELP.items():
        kind = str if kinds[name] == Window else kinds[name]
        options.append(_option(name, kind, defaults[name], panel, text))
    for name, (kind, setting, panel, text) in _NOISE.items():
        options.append(_option(name, kind, getattr(NoiseSettings(), setting), panel, text))
    return options


def _option(name: str, kind: Any, default: Any, panel: str, text: str) -> inspect.Parameter:
    flags = [_NAMES[name]] if name in _NAMES else []
    option = typer.Option(*flags, help=text, rich_help_panel=panel)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
    )


def _config(given: dict[str, Any]) -> Config:
    noise = {setting: given.pop(name) for name, (_, setting, _, _) in _NOISE.items()}
    return Config(**{**given, "window": _window(given["window"])}, noise=NoiseSettings(**noise))


def _window(text: str) -> Any:
    """A window's name, or the numbers of ``LOW,HIGH``."""
    names = get_args(get_args(Window)[1])
    if text in names:
        return text
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"--window takes {', '.join(names)}, or LOW,HIGH, two numbers, not {text!r}"
        ) from None
    return low, high

"""Command options made from the settings of :class:`scrd.config.Config`, so that they agree."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Annotated, Any, get_args, get_type_hints

import typer

from scrd.config import Config, Window
from scrd.errors import ConfigError
from scrd.presets.files import Preset, bundled_presets, read_preset
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
    "deterministic": (TRAINING, "Same bits each time on a GPU, or the fastest way."),
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
    """Give a command an option for each setting, and one for a preset of them.

    Args:
        command: whose parameters ``config`` and ``preset`` are given the :class:`Config` that the
            options make, and the :class:`scrd.presets.files.Preset` that was named, or None.

    Returns:
        The command with these options in its signature in the place of both. It ends with the
        refusal's message where the settings make no sense.
    """

    @wraps(command)
    def with_options(context: typer.Context, preset: str | None, **given: Any) -> Any:
        settings = {name: given.pop(name) for name in (*_HELP, *_NOISE)}
        with refusing():
            chosen = None if preset is None else read_preset(preset)
            if chosen is not None:
                settings = {n: v for n, v in settings.items() if _is_typed(context, n)}
            config = _config(settings, chosen)
        return command(**given, config=config, preset=chosen)

    signed = inspect.signature(command, eval_str=True).parameters.values()
    parameters = [p for p in signed if p.name != "preset"]
    at = next(i for i, p in enumerate(parameters) if p.name == "config")
    parameters[at : at + 1] = [*_own(), *_options()]
    # typer reads options from the signature
    with_options.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    )
    return with_options


def _own() -> list[inspect.Parameter]:
    """What the options themselves need: the context, which knows what was given; the preset."""
    names = ", ".join(bundled_presets())
    option = typer.Option(
        help=f"Settings of a published training: {names}, or a file. Options beside it win."
    )
    only = inspect.Parameter.KEYWORD_ONLY
    preset = Annotated[str | None, option]
    return [
        inspect.Parameter("context", only, annotation=typer.Context),
        inspect.Parameter("preset", only, default=None, annotation=preset),
    ]


def _is_typed(context: typer.Context, name: str) -> bool:
    """Whether an option was given, and not left to its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT")


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


def _config(given: dict[str, Any], preset: Preset | None) -> Config:
    """The settings of options, all of them or, beside a preset, those that were given."""
    if "window" in given:
        given["window"] = _window(given["window"])
    noise = {_NOISE[name][1]: given.pop(name) for name in _NOISE if name in given}
    base = Config() if preset is None else preset.config()
    return replace(base, **given, noise=replace(base.noise, **noise))


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

"""Errors that say what a user can do about them."""


class ScrdError(Exception):
    """The input or a setting cannot be used; the message names it and the cause."""


class ConfigError(ScrdError, ValueError):
    """A setting has no meaning; the message names it and says what it may be."""

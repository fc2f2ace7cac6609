"""Exceptions, and the phrases that their messages share.

* ZooError

  * ConfigError: an invalid config, recipe, option or name
  * DataError: data that are missing, corrupt, or do not fit the model

    * NoWindowError: a part of a data set without a single window

  * HubError: a hub or a model folder that is missing, unreachable or corrupt

    * NotFoundError: no hub has a model of that name

  * PluginError: a plugin that is missing, fails, or clashes with another
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "ConfigError",
    "DataError",
    "HubError",
    "NoWindowError",
    "NotFoundError",
    "PluginError",
    "ZooError",
    "abbreviate",
    "did_you_mean",
    "shorten",
]


#: The longest name that suggestions are made for, as comparing takes quadratic time.
LONGEST_NAME = 200


class ZooError(Exception):
    """An error that the caller can fix.

    The message is one line: what is wrong, what was expected, and how to fix it. The command
    line prints it and exits with 2.
    """


class ConfigError(ZooError):
    """A config, recipe, option or name is invalid."""


class DataError(ZooError):
    """Data are missing, corrupt, or do not fit the model."""


class NoWindowError(DataError):
    """A part of a data set has no window of the requested length."""


class HubError(ZooError):
    """A hub or a model folder is missing, unreachable or corrupt."""


class NotFoundError(HubError):
    """No hub has a model of that name."""


class PluginError(ZooError):
    """A plugin is missing, fails, or clashes with another."""


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """A suggestion for a mistyped name: " (did you mean a, b?)", or "" without a close match."""
    if len(name) > LONGEST_NAME:
        return ""
    close = difflib.get_close_matches(name, list(names), n=3, cutoff=0.5)
    return f" (did you mean {', '.join(close)}?)" if close else ""


def abbreviate(value: object) -> str:
    """The first 80 characters of the representation of any value."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, or a deep list
        return f"a {type(value).__name__} that is too large to print"
    return text if len(text) <= 80 else f"{text[:80]}…"


def shorten(names: Iterable[str]) -> str:
    """The first three names, shortened and on one line, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    shown = (name[:LONGEST_NAME] for name in names[:3])
    return ", ".join(name if name.isprintable() else ascii(name) for name in shown) + more

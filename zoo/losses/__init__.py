"""Training losses by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.errors import ConfigError, did_you_mean
from zoo.losses.loss import Loss
from zoo.plugins import Plugin, find, names

__all__ = ["Loss", "create_loss", "find_loss"]


def find_loss(name: str) -> tuple[type[Loss], Plugin] | None:
    """Find the loss of that name and its plugin; None if there is none.

    Raises:
        PluginError: if two plugins claim the name, or what is offered is not a loss.
    """
    return find("losses", name, _is_loss, "a Loss")


def create_loss(name: str, options: Mapping[str, Any] | None = None) -> Loss:
    """Create a loss from its options.

    Raises:
        ConfigError: if there is no loss of that name, or an option is unknown or invalid.
    """
    found = find_loss(name)
    if found is None:
        known = names("losses")
        raise ConfigError(
            f"no loss is named {name!r}{did_you_mean(name, known)}; available: {', '.join(known)}"
        )
    return found[0].parse(dict(options or {}), source=f"the loss {name}")


def _is_loss(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Loss)

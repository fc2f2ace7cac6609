"""Pictures and reports of forecasts, and views into networks."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["Field", "attribution", "features", "fields", "gates", "lag_influence"]

# Imported on first use, because they need torch.
_HOMES = {
    "Field": "zoo.inspect.gradients",
    "attribution": "zoo.inspect.gradients",
    "features": "zoo.inspect.recording",
    "fields": "zoo.inspect.gradients",
    "gates": "zoo.inspect.recording",
    "lag_influence": "zoo.inspect.gradients",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'zoo.inspect' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)

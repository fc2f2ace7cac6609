"""A plugin-based model zoo for recurrent spatiotemporal prediction.

Frames are (B, T, C, H, W) everywhere. Start with :func:`load` for a pretrained model and
:func:`create` for an untrained one; write a :class:`RecurrentCell` to bring your own.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError
from zoo.plugins import Pretrained, hookimpl

if TYPE_CHECKING:
    from zoo.cell import Place, RecurrentCell, Step
    from zoo.config import Config, Data
    from zoo.forecast import Forecaster
    from zoo.head import Head
    from zoo.hub import load, pull, save
    from zoo.ops import convolution, warp
    from zoo.registry import create, list_models
    from zoo.topology import Topology

__all__ = [
    "Config",
    "Data",
    "Forecaster",
    "Head",
    "Place",
    "Pretrained",
    "RecurrentCell",
    "Step",
    "Topology",
    "ZooError",
    "convolution",
    "create",
    "hookimpl",
    "list_models",
    "load",
    "pull",
    "save",
    "warp",
]

# Where each public name lives. They are imported when first used (PEP 562), because most
# of them need torch, which takes seconds, and `import zoo` should not.
_HOMES = {
    "Config": "zoo.config",
    "Data": "zoo.config",
    "Forecaster": "zoo.forecast",
    "Head": "zoo.head",
    "Place": "zoo.cell",
    "RecurrentCell": "zoo.cell",
    "Step": "zoo.cell",
    "Topology": "zoo.topology",
    "convolution": "zoo.ops",
    "create": "zoo.registry",
    "list_models": "zoo.registry",
    "load": "zoo.hub",
    "pull": "zoo.hub",
    "save": "zoo.hub",
    "warp": "zoo.ops",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])

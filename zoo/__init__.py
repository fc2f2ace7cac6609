"""A plugin-based model zoo for recurrent spatiotemporal prediction.

Frames are (B, T, C, H, W) everywhere. Start with :func:`load` for a pretrained model and
:func:`create` for an untrained one; subclass :class:`RecurrentCell` for a cell of your own.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError
from zoo.plugins import DISTRIBUTION, Pretrained, hookimpl

if TYPE_CHECKING:
    from zoo.cell import Place, RecurrentCell, Step
    from zoo.config import Config, Data
    from zoo.convolutions import convolution, convolve
    from zoo.exporting.export import export
    from zoo.forecast import Forecaster
    from zoo.head import Head
    from zoo.hub import list_models, load, pull, save
    from zoo.hub.publish import publish
    from zoo.losses import Loss
    from zoo.ops import activate, gated, recomputed, tanh, update
    from zoo.options import KernelSize
    from zoo.registry import create
    from zoo.scores import Metric
    from zoo.topology import Topology
    from zoo.warping import warp

__all__ = [
    "Config",
    "Data",
    "Forecaster",
    "Head",
    "KernelSize",
    "Loss",
    "Metric",
    "Place",
    "Pretrained",
    "RecurrentCell",
    "Step",
    "Topology",
    "ZooError",
    "activate",
    "convolution",
    "convolve",
    "create",
    "export",
    "gated",
    "hookimpl",
    "list_models",
    "load",
    "publish",
    "pull",
    "recomputed",
    "save",
    "tanh",
    "update",
    "warp",
]

# The module of each public name. They are imported on first use (PEP 562), because most need
# torch, which takes seconds to import.
_HOMES = {
    "Config": "zoo.config",
    "Data": "zoo.config",
    "Forecaster": "zoo.forecast",
    "Head": "zoo.head",
    "KernelSize": "zoo.options",
    "Loss": "zoo.losses",
    "Metric": "zoo.scores",
    "Place": "zoo.cell",
    "RecurrentCell": "zoo.cell",
    "Step": "zoo.cell",
    "Topology": "zoo.topology",
    "activate": "zoo.ops",
    "convolution": "zoo.convolutions",
    "convolve": "zoo.convolutions",
    "create": "zoo.registry",
    "export": "zoo.exporting.export",
    "gated": "zoo.ops",
    "list_models": "zoo.hub",
    "load": "zoo.hub",
    "publish": "zoo.hub.publish",
    "pull": "zoo.hub",
    "recomputed": "zoo.ops",
    "save": "zoo.hub",
    "tanh": "zoo.ops",
    "update": "zoo.ops",
    "warp": "zoo.warping",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version(DISTRIBUTION)
    if name not in _HOMES:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES, "__version__"])

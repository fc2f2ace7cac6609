"""Conversion of weights that were trained with other code.

A dialect knows how one code base names and shapes its tensors: a function, offered by the hook
``zoo_dialects``, that turns them into a config and our tensors. It is data more than code
(:mod:`zoo.convert.dialect`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from zoo.atomic import make_folder
from zoo.convert.checkpoint import read_tensors
from zoo.convert.dialect import Converted
from zoo.errors import ConfigError, ZooError, did_you_mean
from zoo.model_folder import WEIGHTS, write_config
from zoo.plugins import find, names
from zoo.registry import build
from zoo.weights import save_weights

__all__ = ["convert"]


def convert(
    dialect: str,
    file: str | Path,
    folder: str | Path,
    *,
    arch: str,
    topology: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Converted:
    """Convert a checkpoint to a model folder, for `local-dir:`.

    A cell whose equations differ in another code base is a cell of its own: the dialect `openstl`
    converts "mim" to `openstl_mim` and "predrnnpp" to `openstl_predrnnpp`.

    Nothing is rounded: every tensor keeps its dtype, and sums of several (biases of convolutions
    that are one here) are stored in float64.

    Args:
        dialect: Name of the dialect, for the code that wrote the checkpoint.
        file: .pth, .pt, .ckpt or .safetensors; code in it is never run.
        folder: New or empty folder, or one from an earlier conversion, which is overwritten.
        arch: Architecture, as for :func:`zoo.create`.
        topology: Topology, if it is not the one named by `arch`.
        options: Options that the tensors do not determine, as for :func:`zoo.create`.

    Returns:
        The config, our tensors, and the dropped tensors of the file with reasons.

    Raises:
        DataError: If the file cannot be read, or its tensors do not make that architecture.
            Nothing is written.
        ConfigError: If the dialect is unknown, options are missing or contradict the tensors, or
            the folder contains other files. Nothing is written.
    """
    if (found := find("dialects", dialect)) is None:
        known = names("dialects")
        raise ConfigError(
            f"no dialect is named {dialect!r}{did_you_mean(dialect, known)}; "
            f"available: {', '.join(known)}"
        )
    folder = Path(folder)
    _check_folder(folder)
    published = read_tensors(Path(file))
    try:
        converted = found[0](published, arch, topology, dict(options or {}))
    except ZooError as error:
        error.args = (f"{file}: {error}",)  # whichever ZooError it is
        raise
    with torch.device("meta"):  # no memory and random numbers for weights that are replaced
        model = build(converted.config)
    model.network.load_state_dict(converted.tensors, assign=True)
    make_folder(folder)
    save_weights(model.network, folder / WEIGHTS)
    write_config(folder, model.config)
    return converted


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; expected a new folder")
    others = {path.name for path in folder.glob("*")} - {"config.json", WEIGHTS}
    if others:
        raise ConfigError(
            f"{folder} contains {min(others)!r}, which no conversion wrote; expected a new folder"
        )

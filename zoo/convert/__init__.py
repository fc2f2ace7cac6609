"""Conversion of weights that were trained with other code.

A dialect knows how a code base names and shapes its tensors: a function in a module of its own,
listed in :data:`DIALECTS` or offered by a plugin, that converts them to a config and tensors of
ours. Most of it is tables (:mod:`zoo.convert.dialect`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from zoo.convert import msrnn, openstl
from zoo.convert.checkpoint import read_tensors
from zoo.convert.dialect import Converted, Dialect
from zoo.errors import ConfigError, ZooError, did_you_mean
from zoo.hub import save
from zoo.parts import WEIGHTS
from zoo.plugins import find, names
from zoo.registry import build

__all__ = ["DIALECTS", "convert"]

DIALECTS: dict[str, Dialect] = {
    "msrnn": msrnn.translate,
    "openstl": openstl.openstl,
    "predrnn": openstl.predrnn,
}


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
    own = DIALECTS.get(dialect)
    found = (own, None) if own else find("dialects", dialect)
    if found is None:
        known = [*DIALECTS, *names("dialects")]
        raise ZooError(
            f"there is no dialect {dialect!r}{did_you_mean(dialect, known)}; "
            f"it is one of: {', '.join(known)}"
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
    save(model, folder)
    return converted


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; expected a new folder")
    others = {path.name for path in folder.glob("*")} - {"config.json", WEIGHTS}
    if others:
        raise ConfigError(
            f"{folder} contains {min(others)!r}, which no conversion wrote; expected a new folder"
        )

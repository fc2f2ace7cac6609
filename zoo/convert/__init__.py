"""Weights that were trained with other people's code, brought in.

A dialect knows how one code base names and shapes its tensors: a function, offered by the hook
``zoo_dialects``, that turns them into a config and our tensors. It is data more than code
(:mod:`zoo.convert.dialect`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from zoo.convert.dialect import Converted
from zoo.convert.reading import read_tensors
from zoo.errors import ConfigError, ZooError, did_you_mean
from zoo.hub import save
from zoo.model_folder import WEIGHTS
from zoo.plugins import find, names
from zoo.registry import build

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
    """Write the model's folder, for `local-dir:`, that a checkpoint's tensors make.

    Args:
        dialect: whose code made the checkpoint: msrnn, openstl, predrnn or a plugin's.
        file: .pth, .pt, .ckpt or .safetensors; no code in it is run.
        folder: a new or empty one, or that of an earlier conversion, which is overwritten.
        arch: the architecture, as for :func:`zoo.create`.
        topology: if it is not the one that `arch` names.
        options: what no tensor tells, as for :func:`zoo.create`.

    A cell that another code base computes otherwise than the papers is a cell of its own: the
    dialect `openstl` makes `openstl_mim` of "mim", and `openstl_predrnnpp` of "predrnnpp".

    Every tensor is stored in the dtype that it has in the file, and the sum of several (the
    biases of convolutions that are one here) in float64, so that nothing is rounded.

    Returns the config, our tensors, and those of the file that were dropped, with the reason.
    Raises ZooError, and writes nothing, for a file that cannot be read, tensors that do not
    make that architecture (named), options that are missing or contradict the tensors, and a
    folder that holds something else.
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
        raise ZooError(f"{file}: {error}") from None
    with torch.device("meta"):  # no memory and no random numbers for weights that are replaced
        model = build(converted.config)
    model.network.load_state_dict(converted.tensors, assign=True)
    save(model, folder)
    return converted


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ZooError(f"{folder} is a file; name a new folder")
    others = {path.name for path in folder.glob("*")} - {"config.json", WEIGHTS}
    if others:
        raise ZooError(
            f"{folder} holds {min(others)!r}, which is not of a conversion; name a new folder"
        )

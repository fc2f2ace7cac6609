"""Checkpoint files, read without running what may be in them."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors.torch import load_file
from torch import Tensor

from zoo.errors import ZooError, shorten

__all__ = ["read_tensors"]

#: Where trainers put the tensors in a checkpoint: Lightning, accelerate, and plain loops.
WRAPPERS = ("state_dict", "model_state_dict", "model", "net_param")

#: What wrappers put before every name: DDP, torch.compile, Lightning.
PREFIXES = ("module.", "_orig_mod.", "model.", "method.")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, without the names that wrappers add.

    Only tensors and plain containers are unpickled. Names that begin with `__` are left out:
    they are no weights.

    Raises ZooError for a file that is absent or damaged, holds code, or holds no tensors.
    """
    if not path.is_file():
        raise ZooError(f"there is no file {path}")
    try:
        if path.suffix == ".safetensors":
            checkpoint: object = load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of how the file was written
                checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in any way at all
        raise ZooError(_explain(path, error)) from None
    while isinstance(checkpoint, dict):
        inner = [checkpoint[key] for key in WRAPPERS if isinstance(checkpoint.get(key), dict)]
        if not inner:
            break
        checkpoint = inner[0]
    if not isinstance(checkpoint, dict) or not checkpoint:
        raise ZooError(f"{path} holds no tensors by name; give a state dict")
    tensors = {str(k): v for k, v in checkpoint.items() if not str(k).startswith("__")}
    if wrong := [name for name, value in tensors.items() if not _is_weight(value)]:
        raise ZooError(f"{path} holds what is no weight: {shorten(wrong)}; give a state dict")
    return _unwrap({name: tensor.detach() for name, tensor in tensors.items()})


def _is_weight(value: object) -> bool:
    return (
        isinstance(value, Tensor)
        and value.is_floating_point()
        and value.layout == torch.strided
        and value.device.type == "cpu"
    )


def _unwrap(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefixes that all names have."""
    while prefix := next((p for p in PREFIXES if all(n.startswith(p) for n in tensors)), ""):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _explain(path: Path, error: Exception) -> str:
    again = "save its tensors alone, where you trust it: torch.save(model.state_dict(), FILE)"
    reason = " ".join(str(error).split())
    if isinstance(error, UnpicklingError):  # torch's advice stands around the reason
        reason = reason.partition("WeightsUnpickler error: ")[2] or reason
        reason = reason.partition(" Check the documentation")[0]
        if code := re.search(r"GLOBAL (\S+)", reason):
            return f"{path} holds code ({code[1]}), which is not run; {again}"
    return (
        f"{path} cannot be read as a checkpoint ({type(error).__name__}: {reason[:60]}); it is "
        f"damaged, or holds more than tensors, and nothing in it is run: copy it again, or {again}"
    )

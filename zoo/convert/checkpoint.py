"""Reading of checkpoint files, without running code in them."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from zoo.errors import DataError, shorten
from zoo.inputs import check_checkpoint, check_file

__all__ = ["read_settings", "read_tensors"]

#: Keys of the tensors in the checkpoints of Lightning, accelerate and plain loops.
WRAPPERS = ("state_dict", "model_state_dict", "model", "net_param")

#: Wrappers around wrappers that are removed, at most.
DEEPEST = 8

#: Functions that make NumPy's numbers and arrays from a pickle.
_SCALAR, _ARRAY = np.float64(0).__reduce__()[0], np.zeros(0).__reduce__()[0]

#: What pickles may name besides tensors: NumPy's numbers and arrays, in the states of trainers.
NUMPY: list[Any] = [
    np.ndarray,
    np.dtype,
    *(type(np.dtype(kind)) for kind in "?bhilqBHILQefd"),
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((_ARRAY, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
]

#: Prefixes that DDP, torch.compile and Lightning add to every name.
PREFIXES = ("module.", "_orig_mod.", "model.", "method.")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint by name, without the prefixes that wrappers add.

    Only tensors, plain containers, and NumPy's numbers and arrays are unpickled. Names that start
    with `__` are not weights and are left out.

    Raises:
        DataError: If the file is missing or corrupt, contains code, or contains no tensors.
    """
    checkpoint = _read(path)
    for _ in range(DEEPEST):  # a dict may contain itself
        inner: list[object] = []
        if isinstance(checkpoint, dict):
            inner = [checkpoint[key] for key in WRAPPERS if isinstance(checkpoint.get(key), dict)]
        if not inner:
            break
        checkpoint = inner[0]
    if not isinstance(checkpoint, dict) or not checkpoint:
        raise DataError(f"{path} does not contain tensors by name; expected a state dict")
    tensors = {str(k): v for k, v in checkpoint.items() if not str(k).startswith("__")}
    if wrong := [name for name, value in tensors.items() if not _is_weight(value)]:
        raise DataError(
            f"{path} contains values that are not weights: {shorten(wrong)}; expected a state dict"
        )
    return _unwrap({name: tensor.detach() for name, tensor in tensors.items()})


def read_settings(path: Path) -> dict[str, Any]:
    """Read the settings of training that a checkpoint of Lightning holds; {} if there are none.

    Raises:
        DataError: As in :func:`read_tensors`.
    """
    checkpoint = _read(path)
    settings = checkpoint.get("hyper_parameters") if isinstance(checkpoint, dict) else None
    return dict(settings) if isinstance(settings, dict) else {}


def _read(path: Path) -> object:
    """Read a file of tensors and plain containers."""
    check_file(path)
    check_checkpoint(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings(), torch.serialization.safe_globals(NUMPY):
            warnings.simplefilter("ignore")  # about the format of the file
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a corrupt file can raise anything
        raise DataError(_explain(path, error)) from None


def _is_weight(value: object) -> bool:
    """Return whether a value is a plain tensor whose numbers are all in the file."""
    return (
        isinstance(value, Tensor)
        and value.is_floating_point()
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_nested
        and value.numel() * value.itemsize <= value.untyped_storage().nbytes()
    )


def _unwrap(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove prefixes that all names have."""
    while prefix := next((p for p in PREFIXES if all(n.startswith(p) for n in tensors)), ""):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _explain(path: Path, error: Exception) -> str:
    advice = "save only the tensors, if you trust it: torch.save(model.state_dict(), FILE)"
    reason = " ".join(str(error).split())
    if isinstance(error, UnpicklingError):  # torch surrounds the reason with advice
        reason = reason.partition("WeightsUnpickler error: ")[2] or reason
        reason = reason.partition(" Check the documentation")[0]
        if code := re.search(r"GLOBAL (\S+)", reason):
            return f"{path} contains code ({code[1]}), which is never run; {advice}"
    return (
        f"{path} cannot be read as a checkpoint ({type(error).__name__}: {reason[:60]}); it is "
        f"corrupt or contains more than tensors, which is never run: copy it again, or {advice}"
    )

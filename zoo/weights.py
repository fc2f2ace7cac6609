"""Weights in safetensors files: written atomically, read strictly."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn

from zoo.atomic import atomic_path
from zoo.errors import HubError, shorten
from zoo.model_folder import open_weights

__all__ = ["fit_weights", "load_weights", "save_weights"]

#: Supported data types of stored weights, as safetensors names them.
DTYPES = ("F64", "F32", "F16", "BF16")


def save_weights(module: nn.Module, path: Path) -> None:
    """Write a module's weights to a safetensors file, atomically.

    Equal weights give equal files.

    Raises:
        ZooError: If the file cannot be written.
    """
    tensors = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    with atomic_path(path) as temporary:
        # Not save_file: its files are readable by their owner only. And one metadata key only:
        # safetensors writes several in random order.
        temporary.write_bytes(save(tensors, metadata={"sha256": _digest(tensors)}))


def fit_weights(module: nn.Module, path: Path) -> torch.dtype:
    """Check that the tensors of a safetensors file fit a module, without reading their data.

    Returns:
        The precision to compute in: float64 if all tensors are stored in it, else float32.

    Raises:
        HubError: If the file is missing or corrupt, or its tensors do not fit the module.
    """
    with open_weights(path, "pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        stored = {name: tuple(tensor.get_shape()) for name, tensor in slices.items()}
        expected = {name: tuple(t.shape) for name, t in module.state_dict().items()}
        _check_shapes(expected, stored, path)
        dtypes = {name: tensor.get_dtype() for name, tensor in slices.items()}
        if unsupported := sorted(name for name in dtypes if dtypes[name] not in DTYPES):
            raise HubError(
                f"{path} holds weights of other types than {', '.join(DTYPES)}: "
                f"{shorten(unsupported)}"
            )
        return torch.float64 if set(dtypes.values()) == {"F64"} else torch.float32


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a safetensors file into a module, which must have exactly the same tensors.

    Raises:
        HubError: If the file is missing or corrupt, its tensors do not fit the module or are not
            finite, or they have changed since they were saved. The module is then unchanged.
    """
    fit_weights(module, path)
    with open_weights(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in module.state_dict()}
        saved = (file.metadata() or {}).get("sha256")
    if saved and saved != _digest(tensors):
        raise HubError(f"{path} is corrupt: its values have changed; pull or copy it again")
    for name, tensor in module.state_dict().items():
        if not tensors[name].to(tensor.dtype).isfinite().all():
            raise HubError(
                f"{path}: {name} has values that are not finite as {tensor.dtype}; train the model "
                "again with a smaller learning rate, or load it with another dtype"
            )
    module.load_state_dict(tensors)


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of all names, types and values, regardless of their order in the file."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        sha.update(name.encode())
        if (dtype := tensors[name].dtype) != torch.float32:  # the default, left out
            sha.update(str(dtype).encode())
        sha.update(tensors[name].detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def _check_shapes(
    expected: dict[str, tuple[int, ...]], stored: dict[str, tuple[int, ...]], path: Path
) -> None:
    problems = []
    if missing := sorted(expected.keys() - stored.keys()):
        problems.append(f"missing: {shorten(missing)}")
    if unknown := sorted(stored.keys() - expected.keys()):
        problems.append(f"not in this model: {shorten(unknown)}")
    if differing := sorted(n for n in expected.keys() & stored.keys() if expected[n] != stored[n]):
        shapes = [f"{n} {list(stored[n])} (expected {list(expected[n])})" for n in differing]
        problems.append(f"wrong shape: {shorten(shapes)}")
    if problems:
        raise HubError(f"{path} does not fit its config.json; {'; '.join(problems)}")

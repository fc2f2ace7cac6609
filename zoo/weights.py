"""Weights as safetensors: out atomically, in strictly."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from zoo.atomic import atomic_path
from zoo.errors import ZooError, shorten

__all__ = ["fit_weights", "load_weights", "save_weights"]

#: What weights may be stored as.
DTYPES = ("F64", "F32", "F16", "BF16")


def save_weights(module: nn.Module, path: Path) -> None:
    """Write a module's weights to a safetensors file, whole or not at all."""
    tensors = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    with atomic_path(path) as temporary:
        # Not save_file, whose files only their owner may read.
        # One key alone: several are written in any order, and equal weights are equal files.
        temporary.write_bytes(save(tensors, metadata={"sha256": _digest(tensors)}))


def fit_weights(module: nn.Module, path: Path) -> torch.dtype:
    """Compare the tensors of a safetensors file with a module's, without reading their data.

    Returns the precision to compute in: float64 where all are stored so, else float32.
    Raises ZooError where the file is absent or corrupt, or its tensors do not fit (named).
    """
    with _open(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        found = {name: tuple(part.get_shape()) for name, part in slices.items()}
        _compare({name: tuple(t.shape) for name, t in module.state_dict().items()}, found, path)
        if wrong := sorted(n for n, part in slices.items() if part.get_dtype() not in DTYPES):
            raise ZooError(
                f"{path} holds weights of other types than {', '.join(DTYPES)}: {shorten(wrong)}"
            )
        exact = all(part.get_dtype() == "F64" for part in slices.values())
        return torch.float64 if exact else torch.float32


def load_weights(module: nn.Module, path: Path) -> None:
    """Read a safetensors file into a module, every tensor of both or none.

    Raises ZooError where the file is absent or corrupt, its tensors do not fit (named), or they
    are not those that it was saved with.
    """
    fit_weights(module, path)
    with _open(path) as file:
        tensors = {name: file.get_tensor(name) for name in module.state_dict()}
        saved = (file.metadata() or {}).get("sha256")
    if saved and saved != _digest(tensors):
        raise ZooError(f"{path} is damaged: its numbers have changed; pull or copy it again")
    module.load_state_dict(tensors)


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of all names, types and numbers, whatever their order in the file."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        sha.update(name.encode())
        if (dtype := tensors[name].dtype) != torch.float32:  # which goes without saying
            sha.update(str(dtype).encode())
        sha.update(tensors[name].detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


@contextmanager
def _open(path: Path) -> Iterator[safe_open]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError:
        raise ZooError(f"there are no weights at {path}") from None
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ZooError(
            f"{path} is not a sound safetensors file ({reason}); pull or copy it again"
        ) from None


def _compare(
    expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]], path: Path
) -> None:
    problems = []
    if missing := sorted(expected.keys() - found.keys()):
        problems.append(f"missing: {shorten(missing)}")
    if unknown := sorted(found.keys() - expected.keys()):
        problems.append(f"not of this model: {shorten(unknown)}")
    if differing := sorted(n for n in expected.keys() & found.keys() if expected[n] != found[n]):
        shapes = [f"{n} {list(found[n])} (expected {list(expected[n])})" for n in differing]
        problems.append(f"of another shape: {shorten(shapes)}")
    if problems:
        raise ZooError(f"{path} does not fit its config.json; {'; '.join(problems)}")

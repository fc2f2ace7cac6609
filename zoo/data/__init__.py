"""Data sets by name, and where their files are looked for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.config import nearest
from zoo.errors import ZooError
from zoo.plugins import find, names

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.data import Dataset

__all__ = ["DATASETS", "data_root", "open_dataset"]

#: The data sets, and the folder under the data root that holds the files of each.
DATASETS = {"mmnist": "mnist"}


def data_root() -> Path:
    """The folder of the data sets: that of the environment variable ZOO_DATA, or ./data."""
    return Path(os.environ.get("ZOO_DATA") or "data")


def open_dataset(
    name: str, split: str, *, root: Path | None = None, frames: int = 20, **options: Any
) -> Dataset[Tensor]:
    """A data set of sequences (T, C, H, W), scaled to [0, 1].

    Args:
        name: "mmnist", Moving MNIST, or that of a plugin's.
        split: "train" or "test".
        root: the folder of the data sets; :func:`data_root` by default.
        frames: T, the length of a sequence.
        options: of the data set.

    Raises ZooError for an unknown name, and where files are absent or broken.
    """
    root = root or data_root()
    if name in DATASETS:
        from zoo.data.mmnist import MovingMNIST

        return MovingMNIST(root / DATASETS[name], split=split, frames=frames, **options)
    if found := find("datasets", name):
        return found[0](root / name, split=split, frames=frames, **options)
    known = [*DATASETS, *names("datasets")]
    raise ZooError(
        f"no data set is named {name!r}{nearest(name, known)}; there are: {', '.join(known)}"
    )

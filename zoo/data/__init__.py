"""Data sets by name, and where their files are looked for."""

from __future__ import annotations

import importlib
import inspect
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from zoo.errors import ConfigError, DataError, did_you_mean
from zoo.options import argument_types, check_option
from zoo.plugins import find, names

if TYPE_CHECKING:
    from zoo.data.dataset import FrameDataset, RemoteFile
    from zoo.data.recordings import Series
    from zoo.data.series import SequenceDataset

__all__ = [
    "FrameDataset",
    "RemoteFile",
    "SequenceDataset",
    "Series",
    "data_root",
    "dataset_names",
    "find_dataset",
    "open_dataset",
]

# What a plugin's data set is made of. They are imported when first used (PEP 562), as they need
# torch, and the names of the data sets do not.
_HOMES = {
    "FrameDataset": "zoo.data.dataset",
    "RemoteFile": "zoo.data.dataset",
    "SequenceDataset": "zoo.data.series",
    "Series": "zoo.data.recordings",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'zoo.data' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def data_root() -> Path:
    """The folder of the data sets: that of the environment variable ZOO_DATA, or ./data."""
    return Path(os.environ.get("ZOO_DATA") or "data")


def dataset_names() -> list[str]:
    """Return the names of all data sets, the built-in ones first."""
    return names("datasets")


def find_dataset(name: str) -> type[FrameDataset]:
    """Find a data set, built in or a plugin's, by name.

    Raises:
        DataError: if there is none of that name.
        PluginError: if two plugins claim the name, or what is offered is not a function.
    """
    if found := find("datasets", name):
        return cast("type[FrameDataset]", found[0])
    known = dataset_names()
    raise DataError(
        f"no data set is named {name!r}{did_you_mean(name, known)}; available: {', '.join(known)}"
    )


def open_dataset(
    name: str,
    split: str,
    *,
    root: Path | None = None,
    frames: int = 20,
    folder: str | Path | None = None,
    **options: Any,
) -> FrameDataset:
    """Open a data set of sequences (T, C, H, W), scaled to [0, 1], with NaN for missing values.

    Args:
        name: Name of the data set; see :func:`dataset_names`.
        split: "train", "valid" or "test".
        root: Folder of the data sets; by default :func:`data_root`.
        frames: T, the length of a sequence.
        folder: Folder of the files under `root`; by default that of the data set.
        **options: Options of the data set.

    Raises:
        ConfigError: If an option is unknown or has a value of another type.
        DataError: If the name is unknown, or files are missing or corrupt.
    """
    kind = find_dataset(name)
    if folder is not None and not isinstance(folder, Path):
        check_option(f"the data set {name}", "folder", folder, str)
    place = (root or data_root()) / (folder or getattr(kind, "folder", "") or name)
    _check_options(name, kind, options)
    opened = kind(place, split=split, frames=frames, **options)  # type: ignore[call-arg]
    recorded = getattr(opened, "options", None)
    if folder is not None and isinstance(recorded, dict):
        recorded["folder"] = str(folder)
    return opened


def _check_options(name: str, kind: Any, options: dict[str, Any]) -> None:
    """Reject unknown options and values of another type.

    Types are read from the annotations of ``__init__`` and ``read_series``; an option without
    one accepts any value.
    """
    if not inspect.isclass(kind):
        return  # a plugin's function checks its own options
    reader = getattr(kind, "read_series", None)
    makers = [vars(base)["__init__"] for base in kind.__mro__ if "__init__" in vars(base)]
    functions = [reader, *makers] if reader else makers[:1]
    taken: dict[str, Any] = {}
    for function in reversed(functions):  # a subclass overrides its bases
        types, parameters = argument_types(function), inspect.signature(function).parameters
        taken |= {option: types.get(option, Any) for option in parameters}
    is_open = not reader and bool({"options", "kwargs"} & {*taken})
    for option in ("self", "root", "split", "frames", "options", "args", "kwargs"):
        taken.pop(option, None)
    for option, value in options.items():
        if option in taken:
            check_option(f"the data set {name}", option, value, taken[option])
        elif not is_open:
            raise ConfigError(
                f"the data set {name} has no option {option!r}{did_you_mean(option, taken)}; "
                f"it has: {', '.join(sorted(taken))}"
            )

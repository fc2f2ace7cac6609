"""The newest frames in a folder of files, for a forecast of what follows them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.config import Data
from zoo.data import SequenceDataset, find_dataset, open_dataset
from zoo.data.dataset import data_of
from zoo.errors import ConfigError
from zoo.units import check_data

if TYPE_CHECKING:
    import xarray

__all__ = ["newest_frames"]


def newest_frames(
    data: Data,
    dataset: str,
    folder: Path,
    input_frames: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> xarray.DataArray:
    """Return the newest frames in a folder, as :meth:`zoo.Forecaster.predict` takes them.

    Args:
        data: The data of the model; its data set options are used if it was trained on `dataset`.
            With the option `every`, frames are counted back from the newest.
        dataset: Name of the data set that the files belong to, or of a source of a mixed one that
            the model was trained on.
        folder: The folder.
        input_frames: Number of frames; by default as in training.
        settings: Options of the data set; they override those of training.

    Raises:
        ConfigError: If the data set has no recordings.
        DataError: If there are too few frames without a gap up to the newest, or their grid step is
            not that of the model.
    """
    trained_with = _training_options(data, dataset)
    dataset = trained_with.pop("data", dataset)
    trained_with |= settings or {}
    kind = find_dataset(dataset)
    if not (isinstance(kind, type) and issubclass(kind, SequenceDataset)):
        raise ConfigError(f"{dataset} is not a data set of recordings; it has no newest frames")
    # Read everything, regardless of the split, and do not scale.
    options: dict[str, Any] = {
        key: value
        for key, value in trained_with.items()
        if key not in (*kind.split_options, "every", "folder")
    }
    options |= {"test_share": 1.0, "low": 0.0, "high": 1.0}
    opened: Any = open_dataset(
        dataset, "test", root=folder.parent, folder=folder.name, frames=1, **options
    )
    check_data(data, grid_step=data_of(opened).grid_step)
    prepared_with_every = "every" in opened.options
    every = 1 if prepared_with_every else trained_with.get("every", 1)
    newest: xarray.DataArray = opened.newest(input_frames or data.input_frames or 10, every)
    return newest


def _training_options(data: Data, dataset: str) -> dict[str, Any]:
    """Return the options that a model was trained with; "data" is the data set of a source."""
    sources: Any = data.options.get("sources")
    if isinstance(sources, dict) and isinstance(source := sources.get(dataset), dict):
        data = Data(name=dataset, options=source)
    return data.trusted_options({"folder": ""}) if dataset == data.name else {}

"""The data set of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.config import Config, Data
from zoo.data import find_dataset, open_dataset
from zoo.data.dataset import data_of, times_of
from zoo.data.files import read_array
from zoo.errors import ConfigError, DataError
from zoo.known_inputs import sequence_inputs
from zoo.train.recipe import Recipe

__all__ = ["describe", "is_fresh", "known_of", "open_data", "read_static"]


def open_data(recipe: Recipe, root: Path | None) -> Any:
    """Open the data set to train on.

    Raises:
        ConfigError: if frames may differ in size and the recipe does not crop them.
        DataError: if the data are missing, or contain no sequence.
    """
    data = recipe.data
    options: dict[str, Any] = dict(data.options)
    if _is_endless(recipe):
        options.setdefault("seed", data.seed)
        if is_fresh(recipe):
            options["sequences"] = (recipe.train.steps or 1) * recipe.train.batch_size
    dataset: Any = open_dataset(
        data.name, "train", root=root, frames=data.input_frames + data.horizon, **options
    )
    if not len(dataset):
        raise DataError(f"the data set {data.name!r} has no training sequences; check data.options")
    if getattr(dataset, "any_size", False) and recipe.crop.size is None:
        raise ConfigError("frames of different sizes (any_size) need crops; set crop.size")
    return dataset


def known_of(config: Config, dataset: Any, indices: list[int], sequences: Tensor) -> Tensor:
    """Return the known inputs of the steps of training sequences, (B, T − 1, K, H, W).

    Args:
        config: the model.
        dataset: the data set of the sequences.
        indices: their places in it.
        sequences: the sequences (B, T, C, H, W), scaled.

    Raises:
        DataError: if the model needs times and the data set has none.
    """
    times = times_of(dataset, indices) if config.needs_times else None
    if times is None and config.needs_times:
        raise DataError(
            f"the model reads {', '.join(config.inputs)}, but the times of the frames are not "
            "known; set the options start and time_step of the data set, if it has them"
        )
    known = sequence_inputs(config, sequences, config.data.input_frames or 1, times)
    if known is None:
        return sequences.new_zeros(len(sequences), sequences.shape[1] - 1, 0, 1, 1)
    return known.expand(len(sequences), -1, -1, -1, -1)


def read_static(path: Path, config: Config) -> Tensor:
    """Read static maps from a file .npy or .npz, and scale each to mean 0 and standard deviation 1.

    Returns:
        The maps (S, H, W), float32.

    Raises:
        ConfigError: if their number or size is not that of the model.
        DataError: if the file cannot be read, or a value is missing.
    """
    maps = read_array(path)
    maps = maps[None] if maps.ndim == 2 else maps  # (H, W) to (1, H, W)
    if maps.shape != (config.static, *(config.size or ())):
        raise ConfigError(
            f"the static maps {path} are {maps.shape}; the model expects {config.static} of "
            f"{config.size}: set model.static and model.size, or crop the maps"
        )
    if not np.isfinite(maps).all():
        raise DataError(f"the static maps {path} have missing values; fill them")
    values = torch.from_numpy(maps.astype(np.float32))
    spread = values.std(dim=(1, 2), keepdim=True, correction=0)
    return (values - values.mean(dim=(1, 2), keepdim=True)) / spread.clamp(min=1e-12)


def is_fresh(recipe: Recipe) -> bool:
    """Return whether sequences are generated for every step, without end."""
    limited = "sequences" in recipe.data.options or recipe.train.steps is None
    return _is_endless(recipe) and not limited


def _is_endless(recipe: Recipe) -> bool:
    return getattr(find_dataset(recipe.data.name), "endless", False)


def describe(recipe: Recipe, dataset: Any) -> Data:
    """Describe the data for the config of the model: whole frames, if all have one size."""
    size = recipe.crop.size if getattr(dataset, "any_size", False) else dataset[0].shape[-2:]
    fields = {
        **data_of(dataset).model_dump(exclude_unset=True),
        "name": recipe.data.name,
        "title": recipe.data.title,
        "size": tuple(size) if size else None,
        "input_frames": recipe.data.input_frames,
        "horizon": recipe.data.horizon,
    }
    return Data.parse(fields, source=f"the data set {recipe.data.name}")

"""The data set of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zoo.config import Data
from zoo.data import find_dataset, open_dataset
from zoo.data.dataset import data_of
from zoo.errors import DataError
from zoo.train.recipe import Recipe

__all__ = ["describe", "is_fresh", "open_data"]


def open_data(recipe: Recipe, root: Path | None) -> Any:
    """Open the data set to train on.

    Raises:
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
    return dataset


def is_fresh(recipe: Recipe) -> bool:
    """Return whether sequences are generated for every step, without end."""
    limited = "sequences" in recipe.data.options or recipe.train.steps is None
    return _is_endless(recipe) and not limited


def _is_endless(recipe: Recipe) -> bool:
    return getattr(find_dataset(recipe.data.name), "endless", False)


def describe(recipe: Recipe, dataset: Any) -> Data:
    """Describe the data for the config of the model."""
    fields = {
        **data_of(dataset).model_dump(exclude_unset=True),
        "name": recipe.data.name,
        "size": tuple(dataset[0].shape[-2:]),
        "input_frames": recipe.data.input_frames,
        "horizon": recipe.data.horizon,
    }
    return Data.parse(fields, source=f"the data set {recipe.data.name}")

"""The data that a recipe names, opened and described."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zoo.config import Data
from zoo.data import find_dataset, open_dataset
from zoo.data.dataset import data_of
from zoo.errors import ZooError
from zoo.train.recipe import Recipe

__all__ = ["describe", "is_fresh", "open_data"]


def open_data(recipe: Recipe, root: Path | None) -> Any:
    """The data set to train on; ZooError where it has no sequences."""
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
        raise ZooError(f"the data set {data.name!r} has no sequences to train on; see data.options")
    return dataset


def is_fresh(recipe: Recipe) -> bool:
    """Whether every step gets sequences that are made for it."""
    told = "sequences" in recipe.data.options or recipe.train.steps is None
    return _is_endless(recipe) and not told


def _is_endless(recipe: Recipe) -> bool:
    return getattr(find_dataset(recipe.data.name), "endless", False)


def describe(recipe: Recipe, dataset: Any) -> Data:
    """What the model is to know of its data: what the data set tells, and the recipe."""
    fields = {
        **data_of(dataset).model_dump(exclude_unset=True),
        "name": recipe.data.name,
        "size": tuple(dataset[0].shape[-2:]),
        "input_frames": recipe.data.input_frames,
        "horizon": recipe.data.horizon,
    }
    return Data.parse(fields, source=f"the data set {recipe.data.name}")

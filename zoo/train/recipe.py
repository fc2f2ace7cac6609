"""Recipes: everything that decides what a training run ends with, in one TOML file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, model_validator

from zoo.config import Count, Validated
from zoo.errors import ZooError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["DataRecipe", "Recipe", "TrainRecipe", "read_recipe"]


class DataRecipe(Validated):
    """What to train on: a data set, and how its sequences are cut into past and future."""

    name: Literal["mmnist"]
    input_frames: Count = 10
    horizon: Count = 10
    seed: Annotated[int, Field(ge=0)] = 0


class TrainRecipe(Validated):
    """How to train. The defaults are the papers' (arXiv 2304.07724, section 4).

    steps, batch_size: the budget; sequences seen are their product. The batch is that of
        all processes together.
    optimizer, schedule: timm's names; the schedule runs from `lr` over all steps, after
        `warmup_steps` of linear growth.
    clip_norm: the largest norm of the gradient; larger ones are scaled down to it.
    sampling_steps: scheduled sampling: over these steps the probability of feeding the true
        frame in the forecast half falls linearly from 1 to 0. By default all steps.
    precision, channels_last, compile: how it is run, "bf16" being automatic mixed precision.
    checkpoint_every: steps between two checkpoints.
    """

    steps: Annotated[int, Field(ge=1)]
    batch_size: Count = 4
    optimizer: str = "adam"
    lr: Annotated[float, Field(gt=0)] = 3e-4
    schedule: Literal["constant", "cosine", "poly"] = "constant"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    sampling_steps: Annotated[int, Field(ge=0)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = False
    compile: bool = False
    checkpoint_every: Annotated[int, Field(ge=1)] = 500

    @model_validator(mode="after")
    def _check_steps(self) -> TrainRecipe:
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps ({self.warmup_steps}) must be below steps")
        return self

    def teacher_probability(self, step: int) -> float:
        """The probability of feeding the true frame in the forecast half at a step."""
        fall = self.steps if self.sampling_steps is None else self.sampling_steps
        return max(0.0, 1 - step / fall) if fall else 0.0


class Recipe(Validated):
    """A training run: `model` are the arguments of :func:`zoo.create`, `name` among them."""

    model: dict[str, JsonValue]
    data: DataRecipe
    train: TrainRecipe

    @model_validator(mode="after")
    def _check_name(self) -> Recipe:
        if not isinstance(self.model.get("name"), str):
            raise ValueError('[model] needs a name, as in: name = "mslstm"')
        return self


def read_recipe(path: Path) -> Recipe:
    """Read and validate a recipe; ZooError says in one line what is wrong with it."""
    values: dict[str, Any]
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ZooError(f"there is no recipe at {path}; see cards/*/recipe.toml for some") from None
    except (OSError, ValueError) as error:
        raise ZooError(f"{path} cannot be read as TOML: {error}") from None
    return Recipe.parse(values, source=str(path))

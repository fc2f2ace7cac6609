"""metrics.json of a model's folder: what was measured of it, and of its training."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from zoo.atomic import write_json
from zoo.errors import ZooError
from zoo.parts import read_json, writable_part

__all__ = ["read_metrics", "update_metrics"]


class _Part(BaseModel):
    """What the zoo relies on; there may be more."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Training(_Part):
    steps: int
    sequences: int
    minutes: float
    device: str
    torch: str
    threads: int = 1


class _Data(_Part):
    name: str
    split: str
    sequences: int
    input_frames: int
    horizon: int


class _Protocol(_Part):
    id: str


class _Cost(_Part):
    macs: int
    parameters: int
    size: Annotated[list[int], Field(min_length=2, max_length=2)]
    input_frames: int
    horizon: int


class _Errors(_Part):
    mse: float


class _Demo(_Part):
    model: _Errors
    persistence: _Errors


def _have_both(scores: dict[str, Any]) -> dict[str, Any]:
    if missing := {"model", "persistence"} - scores.keys():
        raise ValueError(f"nothing of {' and '.join(sorted(missing))}")
    return scores


Scores = Annotated[
    dict[str, dict[str, float | None]],
    AfterValidator(_have_both),
]


class _Metrics(_Part):
    training: _Training | None = None
    data: _Data | None = None
    protocol: _Protocol | None = None
    forecast: Scores | None = None
    all_steps: Annotated[Scores | None, Field(alias="all-steps")] = None
    demo: _Demo | None = None
    cost: _Cost | None = None


def read_metrics(folder: Path) -> dict[str, Any]:
    """What was measured of the model in a folder, {} where nothing was.

    Raises ZooError where metrics.json does not hold what is written there.
    """
    path = folder / "metrics.json"
    if not os.path.lexists(path):
        return {}
    metrics: dict[str, Any] = read_json(path)
    try:
        _Metrics.model_validate(metrics)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise ZooError(
            f"{path} is not what zoo train and zoo eval write ({place}: {first['msg']}); take it "
            "away and measure the model again: zoo eval --save"
        ) from None
    return metrics


def update_metrics(folder: Path, **values: Any) -> None:
    """Write values into metrics.json of a model's folder; the others in it stay."""
    path, kept = writable_part(folder, "metrics.json"), read_metrics(folder)
    write_json(path, kept | values)

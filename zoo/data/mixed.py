"""Several data sets as one: radars of several countries, or several folders."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from torch import Tensor

from zoo.config import Data
from zoo.data import open_dataset
from zoo.data.dataset import FrameDataset, data_of
from zoo.data.recordings import Series, format_size
from zoo.errors import ConfigError, DataError, NoWindowError, ZooError
from zoo.units import duration, is_same_unit, to_physical, to_unit_interval

__all__ = ["Mixed"]

#: Options of a source that the mixture sets.
RESERVED = ("name", "root", "split", "frames")

#: What must be the same for all sources, and how to make it the same.
FIXES = {
    "quantity": "read one quantity (of radars, rain = true converts reflectivity)",
    "number of channels": "select channels",
    "time step": "set every, or any_time_step = true",
    "grid step": "set pool",
    "size": "set crop or pool, or any_size = true to train on crops",
}


class Mixed(FrameDataset):
    """Sequences of several data sets, to train one model on all of them.

    All sources have one quantity, unit, number of channels, time step, grid step and size;
    `every`, `pool` and `crop` of the sources make them equal. Each is split by itself. If their
    scales are linear and differ, all get the range that covers them.

    The validation and the test part are those of one source, so scores say what they are of.

    sources: Tables by name. Of each, `data` is the name of the data set, and the other keys are
        its options, with `folder` in the data root. `sequences` draws that many of its training
        windows, so that a long source does not outweigh a short one.
    test: Name of the source that is evaluated (default: the first).
    any_time_step: Whether time steps may differ. The model then has none, and takes any.
    any_size: Whether sizes of frames may differ, for training on crops.
    """

    title = "Several data sets"
    folder = "."
    license = "those of the sources"
    layout = "the folders of the sources, in the data root"
    counts = "depend on the sources"
    data: Data = Data()

    def __init__(
        self,
        root: Path,
        *,
        split: str = "train",
        frames: int = 20,
        sources: Annotated[dict[str, dict[str, Any]], Field(max_length=64)] | None = None,
        test: str | None = None,
        any_time_step: bool = False,
        any_size: bool = False,
    ) -> None:
        if not sources:
            raise ConfigError("mixed needs the option sources: tables of data sets by name")
        self.test = next(iter(sources)) if test is None else test
        self.any_size = any_size
        if self.test not in sources:
            raise ConfigError(f"test is {test!r}; expected one of {', '.join(sources)}")
        opened = {
            name: _open(name, options, root, frames, split if name == self.test else "train")
            for name, options in sources.items()
        }
        allowed = {"time step": any_time_step, "size": any_size}
        _check_alike(opened, [key for key, is_allowed in allowed.items() if is_allowed])
        options: dict[str, Any] = {"sources": sources, "test": self.test}
        options |= {"any_time_step": True} if any_time_step else {}
        options |= {"any_size": True} if any_size else {}
        self.data = _describe([*map(data_of, opened.values())], any_time_step, options)
        self.options = self.data.options  # one dict, to which open_dataset adds the folder
        self.sources = opened if split == "train" else {self.test: opened[self.test]}
        self._starts = [0, *itertools.accumulate(map(len, self.sources.values()))]

    @property
    def series(self) -> list[Series]:
        """The recordings of all sources that are read."""
        return [s for dataset in self.sources.values() for s in getattr(dataset, "series", ())]

    def __len__(self) -> int:
        """Return the number of sequences."""
        return self._starts[-1]

    def __getitem__(self, index: int) -> Tensor:
        """Return a sequence, (T, C, H, W), on the common scale."""
        dataset, place = self._locate(index)
        frames, own = dataset[place], data_of(dataset)
        if _scale(own) == _scale(self.data):
            return frames
        return to_unit_interval(to_physical(frames, own), self.data)

    def when(self, index: int) -> np.ndarray | None:
        """Return the times of a sequence, (T,) of datetime64, if known."""
        dataset, place = self._locate(index)
        when: Callable[[int], np.ndarray | None] | None = getattr(dataset, "when", None)
        return None if when is None else when(place)

    def describe(self) -> dict[str, str]:
        """Return facts about every source."""
        low, high = self.data.limits
        facts = {
            "values": f"{self.data.variable} in {self.data.unit!r}, {low:g} to {high:g} is 0 to 1",
            "tested": self.test,
        }
        for name, dataset in self.sources.items():
            facts |= {f"{name}: {key}": value for key, value in dataset.describe().items()}
        return facts

    def scan(self) -> Iterator[tuple[int, int]]:
        """Read every frame of every source."""
        done = 0
        for dataset in self.sources.values():
            count = 0
            for count, total in dataset.scan():
                yield done + count, done + total
            done += count

    def _locate(self, index: int) -> tuple[Any, int]:
        """Return the source of a sequence, and its index there."""
        index = range(len(self))[index]  # IndexError past the end
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return [*self.sources.values()][number], index - self._starts[number]


def _open(name: str, options: Mapping[str, Any], root: Path, frames: int, split: str) -> Any:
    """Open a source."""
    settings = dict(options)
    data = settings.pop("data", None)
    if not isinstance(data, str):
        raise ConfigError(f"the source {name} names no data set; set data, such as data = 'knmi'")
    if reserved := [key for key in RESERVED if key in settings]:
        raise ConfigError(f"the source {name} has no option {reserved[0]!r}; remove it")
    if split != "train":  # these say how training draws sequences
        settings = {k: v for k, v in settings.items() if k not in ("sequences", "seed")}
    try:
        return open_dataset(data, split, root=root, frames=frames, **settings)
    except ZooError as error:
        kind = type(error) if isinstance(error, NoWindowError) else DataError
        raise kind(f"the source {name}: {error}") from error


def _check_alike(opened: Mapping[str, Any], allowed: Collection[str]) -> None:
    """Raise DataError if a source differs from the first one in anything but `allowed`."""
    shapes = {name: dataset[0].shape[1:] for name, dataset in opened.items()}  # (C, H, W)
    first, *others = opened
    data, shape = data_of(opened[first]), shapes[first]
    for name in others:
        other = data_of(opened[name])
        facts, others_facts = _facts(data, shape), _facts(other, shapes[name])
        differences = {
            "quantity": other.variable != data.variable or not is_same_unit(other.unit, data.unit),
            "number of channels": shapes[name][0] != shape[0],
            "time step": _differ(other.time_step or 0, data.time_step or 0, 0.001),
            # The step of a grid in degrees is not known.
            "grid step": bool(data.grid_step and other.grid_step)
            and _differ(other.grid_step or 0, data.grid_step or 0, 0.01),
            "size": shapes[name][1:] != shape[1:],
        }
        for key, differs in differences.items():
            if differs and key not in allowed:
                raise DataError(
                    f"the {key} of the source {name} is {others_facts[key]}, that of {first} "
                    f"{facts[key]}; {FIXES[key]}"
                )


def _facts(data: Data, shape: Sequence[int]) -> dict[str, str]:
    """Return what must be the same for all sources, for people."""
    return {
        "quantity": f"{data.variable} in {data.unit!r}",
        "number of channels": str(shape[0]),
        "time step": duration(data.time_step) if data.time_step else "unknown",
        "grid step": f"{data.grid_step:g} m" if data.grid_step else "unknown",
        "size": format_size(shape),
    }


def _differ(one: float, other: float, tolerance: float) -> bool:
    return abs(one - other) > tolerance * other


def _scale(data: Data) -> tuple[Any, ...]:
    return data.low, data.high, data.reflectivity, data.standardization


def _describe(sources: Sequence[Data], any_time_step: bool, options: dict[str, Any]) -> Data:
    """Return what the values of all sources mean."""
    fields = sources[0].model_dump(exclude_unset=True)
    if len({str(_scale(data)) for data in sources}) > 1:
        fields |= _common_range(sources)
    fields |= {
        "time_step": None if any_time_step else sources[0].time_step,
        "grid_step": next((data.grid_step for data in sources if data.grid_step), None),
        "missing": any(data.missing for data in sources),
        "options": options,
    }
    return Data.parse(fields, source="the data set mixed")


def _common_range(sources: Sequence[Data]) -> dict[str, float]:
    """Return the range that covers all linear scales."""
    if any(data.reflectivity or data.standardization for data in sources):
        raise DataError(
            "the sources are scaled to [0, 1] in different ways: set the same a, b, low_dbz and "
            "high_dbz for all radars, or low and high for all sources"
        )
    return {"low": min(d.low for d in sources), "high": max(d.high for d in sources)}

"""What config.json holds: the plain keyword arguments that make a model, validated.

This module knows neither torch nor plugins, so that a config can be read without either.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)
from pydantic_core import to_jsonable_python

from zoo.errors import ZooError, did_you_mean
from zoo.parts import read_json

__all__ = [
    "Config",
    "Data",
    "PluginSource",
    "Reflectivity",
    "Validated",
    "read_config",
]

Self = TypeVar("Self", bound="Validated")

#: Sizes are bounded so that a config from anywhere cannot ask for absurd amounts of memory.
LARGEST_COUNT = 4096
LONGEST = 500  # characters of a text
LONGEST_LIST = 32
Count = Annotated[int, Field(ge=1, le=LARGEST_COUNT, strict=True)]


class Validated(BaseModel):
    """A frozen record of JSON-safe values in which unknown keys are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, str_max_length=LONGEST
    )

    @classmethod
    def parse(cls: type[Self], values: object, *, source: str) -> Self:
        """Validate `values`; a ZooError of one line says what is wrong with `source`."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ZooError(f"{source}: {_explain(cls, error)}") from None


def _check_sizes(value: JsonValue) -> JsonValue:
    """Numbers, such as sizes and iterations, and lengths are bounded in options as well."""
    longest = LONGEST if isinstance(value, str) else LONGEST_LIST
    if isinstance(value, str | list | dict) and len(value) > longest:
        raise ValueError(f"a {type(value).__name__} of length {len(value)}, beyond {longest}")
    for one in (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    ):
        _check_sizes(one)
    if isinstance(value, int) and abs(value) > LARGEST_COUNT:
        raise ValueError(f"{value} is beyond ±{LARGEST_COUNT}")
    return value


# As JSON holds them, so that a config is the same before and after it was saved.
Options = Annotated[
    dict[str, JsonValue], BeforeValidator(to_jsonable_python), AfterValidator(_check_sizes)
]


class Reflectivity(Validated):
    """How the rain rate R in mm/h becomes [0, 1] by way of the reflectivity.

    dBZ = 10·log₁₀(a·R^b), then `low` to `high` dBZ are 0 to 1, values outside clipped. The
    defaults are those of the MS-RNN paper for the German radar: (dBZ + 10) / 70, a = 256,
    b = 1.42. Rain at or below `low` comes back as no rain at all.
    """

    a: Annotated[float, Field(gt=0)] = 256.0
    b: Annotated[float, Field(gt=0)] = 1.42
    low: float = -10.0
    high: float = 60.0

    @model_validator(mode="after")
    def _check_range(self) -> Reflectivity:
        if not self.low < self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")
        return self


class Data(Validated):
    """The data a model is for: what its numbers mean and what it was trained on.

    low, high: the values, in units of the data, that the model sees as 0 and 1.
    unit: of the data; "1" with low 0 and high 1 are pictures, for which an array of uint8
        (0 to 255) is taken and returned as well.
    reflectivity: for rain rates in mm/h, the way to [0, 1] in place of low and high.
    missing: whether values can be missing (NaN); the model is fed 0 for them.
    grid_step: from one cell of the grid to the next, in metres.
    time_step: from one frame to the next, in seconds.
    size, input_frames, horizon: of the training sequences; any others can be forecast.
    options: with which the data set was opened.
    """

    name: str | None = None
    variable: str = "intensity"
    unit: str = "1"
    low: float = 0.0
    high: float = 1.0
    reflectivity: Reflectivity | None = None
    missing: bool = False
    grid_step: Annotated[float, Field(gt=0)] | None = None
    time_step: Annotated[float, Field(gt=0)] | None = None
    size: tuple[Count, Count] | None = None
    input_frames: Count | None = None
    horizon: Count | None = None
    # As JSON holds them, so that a config is the same before and after it was saved.
    options: Annotated[dict[str, JsonValue], BeforeValidator(to_jsonable_python)] = {}

    @model_validator(mode="after")
    def _check_range(self) -> Data:
        if not self.low < self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")
        if self.reflectivity and (self.unit, self.low, self.high) != ("mm/h", 0.0, 1.0):
            raise ValueError(
                'reflectivity is for unit = "mm/h" and stands in place of low and high'
            )
        return self

    @property
    def is_picture(self) -> bool:
        """Whether the values are intensities from 0 to 1."""
        return (self.unit, self.low, self.high) == ("1", 0.0, 1.0)

    @property
    def limits(self) -> tuple[float, float]:
        """The smallest and the largest value, in units of the data, that the model can tell."""
        if (z := self.reflectivity) is None:
            return self.low, self.high
        return 0.0, (10 ** (z.high / 10) / z.a) ** (1 / z.b)


class PluginSource(Validated):
    """The distribution that provided a model's cell, topology or head when it was saved.

    Its fields become part of a command that is shown to be typed, and are nothing else than names.
    """

    distribution: Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")]
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9.!+_-]*$", max_length=80)]


class Config(Validated):
    """A model: the arguments of :func:`zoo.create`, its data, and where its parts came from.

    size: of the frames, where the model is made for no other.
    head, head_options: how the next frame is made (:mod:`zoo.head`).
    plugin, topology_plugin, head_plugin: who provided the cell, and the topology and the head
        where they are not the zoo's.
    """

    format: Literal[1] = 1
    cell: str
    topology: str = "stack"
    in_channels: Count = 1
    hidden: Count | tuple[Count, ...] = 32
    layers: Annotated[int, Field(ge=2, le=64, strict=True)] = 6
    patch: Annotated[int, Field(ge=1, le=256, strict=True)] = 1
    embed: bool = True
    size: tuple[Count, Count] | None = None
    halvings: Annotated[int, Field(ge=0, le=16, strict=True)] | None = None
    down: str = "max"
    up: str = "bilinear"
    head: str = "frame"
    head_options: Options = {}
    options: Options = {}
    data: Data = Data()
    plugin: PluginSource | None = None
    topology_plugin: PluginSource | None = None
    head_plugin: PluginSource | None = None

    @property
    def architecture(self) -> str:
        """The name of the architecture: `<cell>`, `ms-<cell>` or `<topology>-<cell>`."""
        if self.topology == "stack":
            return self.cell
        return f"{'ms' if self.topology == 'mirror' else self.topology}-{self.cell}"


def read_config(folder: Path) -> Config:
    """Read and validate config.json of a model's folder.

    Raises ZooError where it is absent, not JSON, or not a config of this version.
    """
    path = folder / "config.json"
    values = read_json(path)
    if isinstance(values, dict) and values.get("format", 1) != 1:
        raise ZooError(
            f"{path} has format {values['format']!r}, this zoo reads 1; "
            "upgrade it: pip install -U spatiotemporal-zoo"
        )
    return Config.parse(values, source=str(path))


def _explain(cls: type[BaseModel], error: ValidationError) -> str:
    problems: dict[str, list[str]] = {}
    for item in error.errors():
        # Of a value that may be of several types, pydantic tells one error a type, and adds
        # the type to the place; "tuple[int, ...]" is no name of a key.
        names = [str(part) for part in item["loc"] if re.fullmatch(r"\w+", str(part))]
        where = ".".join(names) or "the whole"
        if item["type"] == "extra_forbidden":
            problem = f"unknown key {where!r}{did_you_mean(where, _keys(cls))}"
        elif item["type"] == "missing":
            problem = f"{where} is missing"
        else:
            got = f" (got {str(item['input'])[:80]!r})" if where not in problems else ""
            problem = f"{'' if where in problems else where + ': '}{item['msg']}{got}"
        problems.setdefault(where, []).append(problem)
    return "; ".join(", or ".join(told) for told in problems.values())


def _keys(cls: type[BaseModel], prefix: str = "") -> list[str]:
    """The dotted names of all fields, those of nested records included."""
    keys = []
    for name, field in cls.model_fields.items():
        keys.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += _keys(field.annotation, f"{prefix}{name}.")
    return keys

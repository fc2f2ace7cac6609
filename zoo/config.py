"""The config of a model: plain keyword arguments, validated.

This module needs neither torch nor plugins.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

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

from zoo.errors import ConfigError, abbreviate, did_you_mean

__all__ = [
    "TIMED_INPUTS",
    "Config",
    "Data",
    "PluginSource",
    "Reflectivity",
    "Standardization",
    "Validated",
]

Self = TypeVar("Self", bound="Validated")

#: Sizes are bounded, so that an untrusted config cannot request absurd amounts of memory.
LARGEST_COUNT = 4096
LONGEST = 500  # characters of a string
LONGEST_LIST = 32
DEEPEST = 8  # lists and tables within each other, in options
LONGEST_DATA_LIST = 1000
LARGEST_DATA_NUMBER = 2**63

#: Arguments of a data set that are not options.
RESERVED = {"name", "root", "split", "frames"}

#: Options of data sets whose values may look like paths: the name of an array in a file.
NO_PLACES = {"variable"}

#: The largest number of problems that an error message lists.
MOST_PROBLEMS = 5

Count = Annotated[int, Field(ge=1, le=LARGEST_COUNT, strict=True)]


class Validated(BaseModel):
    """A frozen record of values that JSON can hold. Unknown keys are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, str_max_length=LONGEST
    )

    @classmethod
    def parse(cls: type[Self], values: object, *, source: str) -> Self:
        """Validate values.

        Raises:
            ConfigError: if they are invalid; the message begins with `source`.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(f"{source}: {_explain(cls, error)}") from None


def _check_sizes(value: JsonValue, longest: int, largest: int, depth: int = 0) -> None:
    """Bound numbers, such as sizes and iterations, and lengths and depth, in options."""
    if depth > DEEPEST:
        raise ValueError(f"more than {DEEPEST} lists and tables within each other")
    most = LONGEST if isinstance(value, str) else longest
    if isinstance(value, str | list | dict) and len(value) > most:
        raise ValueError(f"{type(value).__name__} has length {len(value)}; at most {most}")
    if isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            _check_sizes(item, longest, largest, depth + 1)
    if isinstance(value, dict):
        for key in value:
            _check_sizes(key, longest, largest)
    if isinstance(value, int) and abs(value) > largest:
        raise ValueError(f"an integer is out of range; at most ±{largest} allowed")


def _check_options(options: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Bound the options of a cell or head."""
    _check_sizes(options, LONGEST_LIST, LARGEST_COUNT)
    return options


def _check_data_options(options: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Bound the options of a data set; it checks them itself when it is opened."""
    _check_sizes(options, LONGEST_DATA_LIST, LARGEST_DATA_NUMBER)
    if reserved := options.keys() & RESERVED:
        raise ValueError(f"{min(reserved)} is not an option of a data set")
    return options


# Converted to JSON types, so that saving and loading does not change a config.
JsonOptions = Annotated[dict[str, JsonValue], BeforeValidator(to_jsonable_python)]
Options = Annotated[JsonOptions, AfterValidator(_check_options)]
DataOptions = Annotated[JsonOptions, AfterValidator(_check_data_options)]


def _find_place(value: JsonValue) -> str | None:
    """A text in an option that leads out of the folder of the data sets; None if there is none."""
    if isinstance(value, str):
        absolute = value.startswith(("/", "\\", "~")) or re.match("[A-Za-z]:", value)
        outside = absolute or ".." in re.split(r"[/\\]", value) or "\0" in value
        return value if outside else None
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next(filter(None, map(_find_place, items)), None)


class Reflectivity(Validated):
    """Scaling of the rain rate R in mm/h to [0, 1] through the reflectivity.

    dBZ = 10·log₁₀(a·R^b); `low` to `high` dBZ become 0 to 1, and values outside are clipped.
    The defaults are those of the MS-RNN paper for the German radar: (dBZ + 10) / 70, a = 256,
    b = 1.42. On the way back, rain at or below `low` becomes 0.

    Attributes:
        a: the factor.
        b: the exponent.
        low: the reflectivity that becomes 0.
        high: the reflectivity that becomes 1.
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


class Standardization(Validated):
    """Scaling to mean 0 and standard deviation 1, for each channel or for all. Nothing is clipped.

    Attributes:
        mean: the means, in the unit of the data.
        std: the standard deviations.
    """

    mean: Annotated[tuple[float, ...], Field(min_length=1, max_length=LARGEST_COUNT)] = (0.0,)
    std: Annotated[
        tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1, max_length=LARGEST_COUNT)
    ] = (1.0,)

    @model_validator(mode="after")
    def _check_lengths(self) -> Standardization:
        if len(self.mean) != len(self.std):
            raise ValueError(f"there are {len(self.mean)} means and {len(self.std)} deviations")
        return self


class Data(Validated):
    """The data of a model: the meaning of its numbers, and what it was trained on.

    Attributes:
        name: the name of the data set.
        title: what these data are, for people, if the name does not say it, such as "New York taxi
            pick-ups" for data of the data set `arrays`.
        variable: the name of the variable.
        unit: the unit of the values. Pictures have "1" with low 0 and high 1; for them, arrays
            of uint8 (0 to 255) are accepted and returned as well.
        low: the value that the model sees as 0.
        high: the value that the model sees as 1.
        reflectivity: for rain rates in mm/h, the scaling to use instead of low and high.
        standardization: the scaling to use instead of low and high, if the model reads values with
            mean 0 and standard deviation 1.
        missing: whether values can be missing (NaN); the model sees them as 0.
        grid_step: the grid spacing in meters.
        time_step: the time from one frame to the next in seconds.
        size: the height and width of the training frames; others can be forecast.
        input_frames: the number of input frames in training; others can be forecast.
        horizon: the number of forecast frames in training; others can be forecast.
        options: the options of the data set.
    """

    name: str | None = None
    title: Annotated[str, Field(min_length=1, max_length=80)] | None = None
    variable: str = "intensity"
    unit: str = "1"
    low: float = 0.0
    high: float = 1.0
    reflectivity: Reflectivity | None = None
    standardization: Standardization | None = None
    missing: bool = False
    grid_step: Annotated[float, Field(gt=0)] | None = None
    time_step: Annotated[float, Field(gt=0)] | None = None
    size: tuple[Count, Count] | None = None
    input_frames: Count | None = None
    horizon: Count | None = None
    options: DataOptions = {}

    @model_validator(mode="after")
    def _check_range(self) -> Data:
        if not self.low < self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")
        if self.reflectivity and (self.unit, self.low, self.high) != ("mm/h", 0.0, 1.0):
            raise ValueError('reflectivity requires unit = "mm/h", and replaces low and high')
        if self.standardization and (self.low, self.high, self.reflectivity) != (0.0, 1.0, None):
            raise ValueError("standardization replaces low, high and reflectivity")
        return self

    def trusted_options(self, changes: Mapping[str, JsonValue] | None = None) -> dict[str, Any]:
        """Return the options of the data set, some of them changed, for reading it again.

        A config may come from anyone: which files are read is for the user to say.

        Args:
            changes: The options that the user has set.

        Raises:
            ConfigError: If another option names a place outside the folder of the data sets.
        """
        changes = changes or {}
        for name in self.options.keys() - changes.keys() - NO_PLACES:
            if place := _find_place(self.options[name]):
                raise ConfigError(
                    f"the data of the model have {name} = {place!r}, and a model cannot choose "
                    "which files of this machine are read; choose them yourself: --set "
                    f"{name}=PLACE, options={{...}}"
                )
        return {**self.options, **changes}

    @property
    def is_picture(self) -> bool:
        """Whether the values are intensities from 0 to 1."""
        plain = (self.unit, self.low, self.high) == ("1", 0.0, 1.0)
        return plain and self.standardization is None

    @property
    def limits(self) -> tuple[float, float]:
        """The smallest and the largest value that the model can represent, in the data's unit.

        Standardized data have no limits; these are four standard deviations from the mean, for
        pictures.
        """
        if (s := self.standardization) is not None:
            pairs = list(zip(s.mean, s.std, strict=True))
            return min(m - 4 * d for m, d in pairs), max(m + 4 * d for m, d in pairs)
        if (z := self.reflectivity) is None:
            return self.low, self.high
        return 0.0, (10 ** (z.high / 10) / z.a) ** (1 / z.b)


#: Inputs that are computed from the times of the frames.
TIMED_INPUTS = ("hour_of_day", "day_of_week", "day_of_year")

ComputedInput = Literal["hour_of_day", "day_of_week", "day_of_year", "lead_time", "extrapolation"]


class PluginSource(Validated):
    """The distribution that provided a model's cell, topology or head when it was saved.

    Error messages show it as part of a command to type, so only plain names are valid.

    Attributes:
        distribution: the name of the distribution.
        version: its version.
    """

    distribution: Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")]
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9.!+_-]*$", max_length=80)]


class Config(Validated):
    """A model: the arguments of :func:`zoo.create`, its data, and the plugins of its parts.

    Attributes:
        format: the version of this format.
        cell: the name of the cell.
        topology: the name of the topology.
        in_channels: the number of channels of a frame.
        out_channels: the number of channels that are forecast, the first ones; by default all.
            The others are only inputs, and keep their last value in the forecast.
        future_channels: the number of channels, the last ones, that are only inputs and whose
            future is known.
        inputs: further inputs, computed for the frame to be predicted: "hour_of_day",
            "day_of_week" and "day_of_year" from its time, as sine and cosine, "lead_time", and
            "extrapolation": the frames read, moved along their motion (:mod:`zoo.extrapolation`).
            With it, heads that start from the current frame start from the extrapolation.
        static: the number of maps that are the same for all frames, such as the orography. They
            are kept with the weights, and need `size`.
        noise: the number of channels of normally distributed noise, drawn at every step. The
            members of an ensemble differ in it.
        hidden: the number of channels of every layer, or of each layer.
        layers: the number of layers.
        patch: the edge of the patches into which frames are cut.
        embed: whether a convolution embeds the frames.
        size: the height and width of the frames, if the model works for no other.
        halvings: the number of times that the topology halves the grid.
        down: how feature maps are resampled to a coarser grid.
        up: how feature maps are resampled to a finer grid.
        head: the name of the head, which makes the next frame (:mod:`zoo.head`).
        head_options: the options of the head.
        options: the options of the cell.
        data: the data of the model.
        plugin: the distribution of the cell.
        topology_plugin: the distribution of the topology, unless it is built in.
        head_plugin: the distribution of the head, unless it is built in.
    """

    format: Literal[1] = 1
    cell: str
    topology: str = "stack"
    in_channels: Count = 1
    out_channels: Count | None = None
    future_channels: Annotated[int, Field(ge=0, le=LARGEST_COUNT, strict=True)] = 0
    inputs: tuple[ComputedInput, ...] = ()
    static: Annotated[int, Field(ge=0, le=64, strict=True)] = 0
    noise: Annotated[int, Field(ge=0, le=64, strict=True)] = 0
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

    @model_validator(mode="after")
    def _check_inputs(self) -> Config:
        if self.forecast_channels + self.future_channels > self.in_channels:
            raise ValueError(
                f"out_channels ({self.forecast_channels}) and future_channels "
                f"({self.future_channels}) are more than in_channels ({self.in_channels})"
            )
        if len({*self.inputs}) < len(self.inputs):
            raise ValueError(f"inputs has a name twice: {', '.join(self.inputs)}")
        if self.static and self.size is None:
            raise ValueError("static maps belong to one size of frames; set size")
        return self

    @model_validator(mode="after")
    def _check_channels(self) -> Config:
        s = self.data.standardization
        if s and len(s.mean) not in (1, self.in_channels):
            raise ValueError(
                f"standardization is of {len(s.mean)} channels; in_channels is {self.in_channels}"
            )
        return self

    @property
    def forecast_channels(self) -> int:
        """The number of channels that are forecast."""
        return self.out_channels or self.in_channels

    @property
    def needs_times(self) -> bool:
        """Whether the inputs depend on the times of the frames."""
        return any(name in TIMED_INPUTS for name in self.inputs)

    @property
    def known_channels(self) -> int:
        """The number of channels that every step reads besides a frame, with noise."""
        return self.future_channels + self._computed_channels(self.inputs) + self.noise

    @property
    def read_channels(self) -> int:
        """The number of channels that the network reads at every step, without static maps."""
        return self.in_channels + self.known_channels

    @property
    def extrapolates(self) -> bool:
        """Whether the model reads the frames moved along their motion."""
        return "extrapolation" in self.inputs

    @property
    def start_channel(self) -> int:
        """The first of the channels read from which the head starts: the frame, or its motion."""
        if not self.extrapolates:
            return 0
        before = self.inputs[: self.inputs.index("extrapolation")]
        return self.in_channels + self.future_channels + self._computed_channels(before)

    def _computed_channels(self, names: tuple[str, ...]) -> int:
        """The number of channels of computed inputs; a time has two, sine and cosine."""
        channels = {**dict.fromkeys(TIMED_INPUTS, 2), "extrapolation": self.forecast_channels}
        return sum(channels.get(name, 1) for name in names)

    @property
    def architecture(self) -> str:
        """The name of the architecture: `<cell>`, `ms-<cell>` or `<topology>-<cell>`."""
        if self.topology == "stack":
            return self.cell
        return f"{'ms' if self.topology == 'mirror' else self.topology}-{self.cell}"


def _explain(cls: type[BaseModel], error: ValidationError) -> str:
    problems: dict[str, list[str]] = {}
    for item in error.errors():
        if len(problems) > MOST_PROBLEMS:
            problems["…"] = ["…"]
            break
        # For a union, pydantic reports one error per type and appends the type to the
        # location; "tuple[int, ...]" is not the name of a key.
        names = [str(part)[:80] for part in item["loc"] if re.fullmatch(r"\w+", str(part))]
        key = ".".join(names) or "the config"
        if item["type"] == "extra_forbidden":
            problem = f"unknown key {key!r}{did_you_mean(key, _keys(cls))}"
        elif item["type"] == "missing":
            problem = f"{key} is missing"
        else:
            got = f" (got {abbreviate(item['input'])})" if key not in problems else ""
            problem = f"{'' if key in problems else key + ': '}{item['msg']}{got}"
        problems.setdefault(key, []).append(problem)
    return "; ".join(", or ".join(alternatives) for alternatives in problems.values())


def _keys(cls: type[BaseModel], prefix: str = "") -> list[str]:
    """The dotted names of all fields, including those of nested records."""
    keys = []
    for name, field in cls.model_fields.items():
        keys.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += _keys(field.annotation, f"{prefix}{name}.")
    return keys

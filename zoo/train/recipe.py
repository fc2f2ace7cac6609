"""Recipes: everything that decides what a training run ends with, in one TOML file.

This module knows no torch, so that a recipe can be read and printed at once.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, JsonValue, model_validator

from zoo.config import Count, Validated
from zoo.errors import ZooError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "AugmentRecipe",
    "Curve",
    "DataRecipe",
    "EvaluationRecipe",
    "LossRecipe",
    "MemoryRecipe",
    "Recipe",
    "SamplingRecipe",
    "TrainRecipe",
    "WatchRecipe",
    "differences",
    "read_recipe",
    "write_recipe",
]

MOST = 10**9  # steps, sequences and the like: what one counts

Natural = Annotated[int, Field(ge=0, le=MOST)]
Positive = Annotated[int, Field(ge=1, le=MOST)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # NumPy takes no other
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]
Options = dict[str, JsonValue]

#: The losses in which more is better; of all others less is.
RISING = ("ssim", "psnr")

#: What is no option of a data set in a recipe, and what tells it.
TOLD = {
    "name": "data.name tells it",
    "frames": "data.input_frames and data.horizon tell it",
    "root": "the environment variable ZOO_DATA and --data-dir tell it",
    "split": "it is train, and for measuring evaluation.split tells it",
}


def _check_options(options: Options) -> Options:
    for name in options:
        if name in TOLD:
            raise ValueError(f"{name} is no option here: {TOLD[name]}")
    if not isinstance(options.get("folder", ""), str):
        raise ValueError("folder must be a text, the name of a folder")
    return options


DataOptions = Annotated[Options, AfterValidator(_check_options)]


class DataRecipe(Validated):
    """What to train on: a data set, and how its sequences are cut into past and future.

    seed: of the order of the sequences, and of Moving MNIST's sequences themselves.
    options: of the data set. Moving MNIST makes fresh sequences for every step, unless
        `sequences` among them says how many there are, or the budget is told in epochs.
    workers: processes that make batches ready ahead, for each process of the training; each
        takes some hundred MB.
    """

    name: Annotated[str, Field(min_length=1)]
    input_frames: Count = 10
    horizon: Count = 10
    seed: Seed = 0
    options: DataOptions = Field(default_factory=dict)
    workers: Annotated[int, Field(ge=0, le=128)] = 0


class LossRecipe(Validated):
    """What is made small: by default the papers' L1 + L2 (arXiv 2304.07724, section 4).

    l1, l2: weights of the absolute and of the squared error, each summed over a frame. With a
        head that starts from the last frame (`change`, `gate`, `advect`) l1 is 0 by default.
    auxiliary: factor of the cells' own losses, on top of the weight a cell gives its own.
    thresholds, weights: the balanced errors B-MAE and B-MSE (Shi et al. 2017, arXiv
        1706.03458): what is true at a pixel decides its weight, weights[i] from
        thresholds[i − 1] up to thresholds[i], in units of the data. Theirs for rain in mm/h:
        thresholds = [2, 5, 10, 30], weights = [1, 2, 5, 10, 30].

    Where the truth is missing (NaN), nothing is counted.
    """

    l1: Weight | None = None
    l2: Weight = 1.0
    auxiliary: Weight = 1.0
    thresholds: tuple[float, ...] = ()
    weights: tuple[Weight, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> LossRecipe:
        if self.l1 == 0 and self.l2 == 0:
            raise ValueError("l1 and l2 are both 0; give one of them a weight")
        if (self.thresholds or self.weights) and len(self.weights) != len(self.thresholds) + 1:
            raise ValueError(
                f"{len(self.thresholds)} thresholds part {len(self.thresholds) + 1} ranges; "
                f"got {len(self.weights)} weights"
            )
        if any(a >= b for a, b in zip(self.thresholds, self.thresholds[1:], strict=False)):
            raise ValueError("thresholds must rise")
        return self


class Curve(Validated):
    """A probability that goes from `start` to `end` between two steps, and stays before and after.

    begin, until: the steps; until is by default the last of the run.
    shape: linear; or exponential, nearing `end` as exp(−5 (step − begin) / (until − begin)).
    """

    start: Share
    end: Share
    shape: Literal["linear", "exponential"] = "linear"
    begin: Natural = 0
    until: Natural | None = None

    @model_validator(mode="after")
    def _check(self) -> Curve:
        if self.until is not None and self.until < self.begin:
            raise ValueError(f"until ({self.until}) must not be before begin ({self.begin})")
        return self

    def at(self, step: int, steps: int) -> float:
        """The probability at a step of a run of so many."""
        until = steps if self.until is None else self.until
        if step >= until:
            return self.end
        if step <= self.begin:
            return self.start
        passed = (step - self.begin) / (until - self.begin)
        rest = 1 - passed if self.shape == "linear" else math.exp(-5 * passed)
        return self.end + (self.start - self.end) * rest


class SamplingRecipe(Validated):
    """How probable it is that the true frame is fed in training, and not the network's own.

    kind: "scheduled" (Bengio et al. 2015; arXiv 2304.07724): true inputs, and in the forecast
        half true frames with a probability that falls linearly from 1 to 0;
        "reverse" (PredRNN-V2, arXiv 2103.09504): both halves start at 0.5 and stay there for
        a third of the run; in the second third inputs near 1 exponentially and the forecast
        half falls to 0 linearly; "none": true inputs, and no true frame after them.
    inputs, forecast: curves in place of those of `kind`. The first frame is always true.
    """

    kind: Literal["scheduled", "reverse", "none"] = "scheduled"
    inputs: Curve | None = None
    forecast: Curve | None = None

    def curves(self, steps: int, fall: int | None = None) -> tuple[Curve, Curve]:
        """Those of the inputs and of the forecast half, in a run of so many steps.

        fall: the steps over which scheduled sampling falls; by default all.
        """
        third = steps // 3
        if self.kind == "reverse":
            inputs = Curve(start=0.5, end=1, shape="exponential", begin=third, until=2 * third)
            forecast = Curve(start=0.5, end=0, begin=third, until=2 * third)
        else:
            inputs = Curve(start=1, end=1)
            forecast = Curve(start=1 if self.kind == "scheduled" else 0, end=0, until=fall)
        return self.inputs or inputs, self.forecast or forecast


class TrainRecipe(Validated):
    """How to train. The defaults are the papers' (arXiv 2304.07724, section 4).

    steps or epochs, batch_size: the budget. The batch is that of all processes together.
    optimizer, optimizer_options: timm's names and arguments (weight_decay, betas and so on).
    lr, lr_parts: the learning rate, and others for parts of the network, by patterns of the
        names of their weights: {"head.*" = 1e-3}; the first that fits counts.
    freeze: patterns of the weights that stay as they are.
    schedule, schedule_options: timm's names and arguments, counted in steps; it runs from `lr`
        over all steps, after `warmup_steps` of linear growth.
    clip_norm: the largest norm of the gradient; larger ones are scaled down to it.
    sampling_steps: the steps over which scheduled sampling falls. By default all.
    ema_decay: with it, the model that is measured and kept is the exponential moving average
        of the weights.
    nonfinite: what to do where a loss or gradient is NaN or infinite: stop, or skip the step
        and count it.
    precision, channels_last, compile, deterministic: how it is run, "bf16" being automatic
        mixed precision. On a CPU a run is deterministic without being asked.
    checkpoint_every, keep: steps between two checkpoints, and how many of the last are kept.
    """

    steps: Positive | None = None
    epochs: Positive | None = None
    batch_size: Count = 4
    optimizer: str = "adam"
    optimizer_options: Options = Field(default_factory=dict)
    lr: Rate = 3e-4
    lr_parts: dict[str, Rate] = Field(default_factory=dict)
    freeze: tuple[str, ...] = ()
    schedule: Literal["constant", "cosine", "tanh", "step", "multistep", "poly"] = "constant"
    schedule_options: Options = Field(default_factory=dict)
    warmup_steps: Natural = 0
    clip_norm: Rate | None = None
    sampling_steps: Natural | None = None
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    nonfinite: Literal["stop", "skip"] = "stop"
    seed: Seed = 0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = False
    compile: bool = False
    deterministic: bool = False
    checkpoint_every: Positive = 500
    keep: Positive = 2

    @model_validator(mode="after")
    def _check_budget(self) -> TrainRecipe:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give the budget as steps or as epochs, one of them")
        if self.steps is not None and self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps ({self.warmup_steps}) must be below steps")
        return self


class MemoryRecipe(Validated):
    """What to do with less memory; nothing of it changes what is computed.

    checkpoint_every: of so many steps in time only the first state is kept, and the rest is
        computed again in the backward pass.
    accumulate: parts in which the batch of a process is run one after another.
    fit: find before the run, by trying, into how many parts a batch must be cut to fit.
    """

    checkpoint_every: Positive | None = None
    accumulate: Positive = 1
    fit: bool = False


class AugmentRecipe(Validated):
    """Random changes of training sequences, the same for all frames of one; none by default.

    mirror, flip: left and right, or top and bottom, are exchanged in half of the sequences.
    rotate: by a random multiple of 90°; the frames must be square.
    brightness, contrast: the largest shift of the scaled values, and the largest relative change
        of their distance from the mean; the result is clipped to [0, 1].
    """

    mirror: bool = False
    flip: bool = False
    rotate: bool = False
    brightness: Share = 0.0
    contrast: Share = 0.0

    @property
    def active(self) -> bool:
        """Whether anything is changed."""
        return self != AugmentRecipe()


class EvaluationRecipe(Validated):
    """How to measure while training; the checkpoint of the best measure is kept.

    every: steps between two measurements; none by default.
    split, options: of the data set, as its own options, with those of [data] as defaults.
    sequences: only the first so many.
    metric: which decides what is best: mse, mae, ssim, psnr, of the forecast frames.
    select: the model that a run leaves: the "last" or the "best".
    """

    every: Positive | None = None
    split: str = "test"
    options: DataOptions = Field(default_factory=dict)
    sequences: Positive = 100
    batch_size: Count = 16
    metric: Literal["mse", "mae", "ssim", "psnr"] = "mse"
    select: Literal["last", "best"] = "last"

    @model_validator(mode="after")
    def _check(self) -> EvaluationRecipe:
        if self.select == "best" and self.every is None:
            raise ValueError('select = "best" needs measurements: give `every`')
        return self

    def better(self, value: float, best: float | None) -> bool:
        """Whether a value of the metric is better than the best so far."""
        return best is None or (value > best if self.metric in RISING else value < best)


class WatchRecipe(Validated):
    """What a run tells while it goes on.

    log_every: steps between two lines of log.jsonl.
    pictures_every: steps between two pictures of a forecast, in pictures/; none by default.
    trackers: accelerate's names, "tensorboard" for one; each is a package to be installed.
    """

    log_every: Positive = 10
    pictures_every: Positive | None = None
    trackers: tuple[str, ...] = ()


class Recipe(Validated):
    """A training run.

    init: a pretrained model, as :func:`zoo.load` names it, whose weights are the first.
    model: the arguments of :func:`zoo.create`, `name` among them; with `init` it may be left
        out, or must make a network that those weights fit.
    """

    init: str | None = None
    model: Options = Field(default_factory=dict)
    data: DataRecipe
    augment: AugmentRecipe = AugmentRecipe()
    loss: LossRecipe = LossRecipe()
    sampling: SamplingRecipe = SamplingRecipe()
    train: TrainRecipe
    memory: MemoryRecipe = MemoryRecipe()
    evaluation: EvaluationRecipe = EvaluationRecipe()
    watch: WatchRecipe = WatchRecipe()

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        named = isinstance(self.model.get("name"), str)
        if not named and (self.model or self.init is None):
            raise ValueError('[model] needs a name, as in: name = "mslstm"')
        if self.train.sampling_steps is not None and (
            self.sampling.kind != "scheduled" or self.sampling.forecast is not None
        ):
            raise ValueError(
                "train.sampling_steps is of scheduled sampling; give sampling.forecast its `until`"
            )
        return self

    def flat(self) -> dict[str, Any]:
        """All values by their dotted keys, such as "train.lr", as JSON holds them."""
        return _flat(self.model_dump(mode="json"))


def read_recipe(path: Path, settings: Iterable[tuple[str, Any]] = ()) -> Recipe:
    """Read and validate a recipe; ZooError says in one line what is wrong with it.

    settings: keys and values that take the place of the file's: ("train.lr", 1e-4).
    """
    values: dict[str, Any]
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ZooError(f"there is no recipe at {path}; see cards/*/recipe.toml for some") from None
    except (OSError, ValueError) as error:
        raise ZooError(f"{path} cannot be read as TOML: {error}") from None
    source = str(path)
    for key, value in settings:
        source = f"{path} with --set"
        *tables, last = key.split(".")
        if not all((*tables, last)):
            raise ZooError(f"--set {key}: no key of a recipe, such as train.lr; see --show")
        table = values
        for name in tables:
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                raise ZooError(f"--set {key}: {name!r} is a value and no table; see --show")
        table[last] = value
    return Recipe.parse(values, source=source)


def write_recipe(recipe: Recipe) -> str:
    """A recipe as TOML with all defaults; what is not set stands in a comment."""
    import tomlkit

    document = tomlkit.document()
    for name in type(recipe).model_fields:
        value = getattr(recipe, name)
        if isinstance(value, BaseModel | Mapping):
            table = tomlkit.table()
            for key, entry in _entries(value).items():
                if entry is None:
                    table.add(tomlkit.comment(f"{key}: not set"))
                else:
                    table.add(key, _inline(entry))
            document.add(name, table)
        elif value is None:
            document.add(tomlkit.comment(f"{name}: not set"))
        else:
            document.add(name, value)
    return tomlkit.dumps(document)


def differences(one: Recipe, other: Recipe) -> dict[str, tuple[Any, Any]]:
    """The dotted keys in which two recipes differ, with the values of both."""
    first, second = one.flat(), other.flat()
    pairs = {key: (first.get(key), second.get(key)) for key in first | second}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        nested = isinstance(value, dict) and value
        flat |= _flat(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return flat


def _entries(table: BaseModel | Mapping[str, Any]) -> dict[str, Any]:
    return table.model_dump(mode="json") if isinstance(table, BaseModel) else dict(table)


def _inline(value: Any) -> Any:
    """Tables inside a table in one line, without what is not set."""
    import tomlkit

    if not isinstance(value, dict):
        return value
    table = tomlkit.inline_table()
    table.update({k: _inline(entry) for k, entry in value.items() if entry is not None})
    return table

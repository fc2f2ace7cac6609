"""Recipes: TOML files that fully determine a training run.

This module does not import torch, so that recipes can be read and printed quickly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, JsonValue, model_validator

from zoo.config import Count, Validated
from zoo.errors import ConfigError, shorten
from zoo.model_folder import LARGEST_RECIPE, parse_toml, read_limited

__all__ = [
    "AugmentRecipe",
    "CropRecipe",
    "Curve",
    "DataRecipe",
    "EvaluationRecipe",
    "HorizonCurve",
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

DEEPEST = 8  # levels of lists and tables in options
LARGEST_NUMBER = 1e18  # in options
MOST = 10**9  # largest number of steps, sequences and the like

Natural = Annotated[int, Field(ge=0, le=MOST)]
Positive = Annotated[int, Field(ge=1, le=MOST)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # the seeds that NumPy accepts
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]


def _check_value(value: JsonValue, depth: int = 0) -> JsonValue:
    """Bound the numbers and the nesting of options."""
    if depth > DEEPEST:
        raise ValueError(f"nested more than {DEEPEST} levels deep")
    if isinstance(value, float | int) and not abs(value) < LARGEST_NUMBER:
        raise ValueError(f"numbers must be finite and below {LARGEST_NUMBER:g}")
    if isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            _check_value(item, depth + 1)
    return value


Options = Annotated[dict[str, JsonValue], AfterValidator(_check_value)]
Terms = dict[str, Options]  # losses by name, each with its weight and its options

#: Metrics of every validation, and whether higher is better.
VALIDATED = {"mse": False, "mae": False, "ssim": True, "psnr": True}

#: Options of a data set that a recipe sets elsewhere.
RESERVED_OPTIONS = {
    "name": "set data.name",
    "frames": "set data.input_frames and data.horizon",
    "root": "set the environment variable ZOO_DATA or use --data-dir",
    "split": "training uses train; for validation set evaluation.split",
}


def _check_options(options: Options) -> Options:
    for name in options:
        if name in RESERVED_OPTIONS:
            raise ValueError(f"{name} is reserved; {RESERVED_OPTIONS[name]}")
    if not isinstance(options.get("folder", ""), str):
        raise ValueError("folder must be a string")
    return options


DataOptions = Annotated[Options, AfterValidator(_check_options)]


class DataRecipe(Validated):
    """The data set, and how its sequences are split into input and forecast.

    Attributes:
        name: name of the data set.
        title: what these data are, for the card and tables, if the name does not say it.
        input_frames: frames that the model reads.
        horizon: frames that it forecasts.
        seed: seed of the order of sequences, and of the sequences that Moving MNIST generates.
        static: file with the static maps of the model (`model.static`) in the data root, an array
            .npy or .npz (maps, H, W) in any units.
        options: options of the data set. Moving MNIST generates new sequences for every step,
            unless `sequences` limits their number or the budget is given in epochs.
        workers: processes that prepare batches in advance, for each training process; each takes
            some hundred MB.
    """

    name: Annotated[str, Field(min_length=1)]
    title: str | None = None
    input_frames: Count = 10
    horizon: Count = 10
    seed: Seed = 0
    static: str | None = None
    options: DataOptions = Field(default_factory=dict)
    workers: Annotated[int, Field(ge=0, le=128)] = 0


def _check_weights(terms: Terms) -> Terms:
    for name, options in terms.items():
        weight = options.get("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not weight > 0:
            raise ValueError(f"the weight of {name} is {weight!r}; expected a number above 0")
    return terms


class LossRecipe(Validated):
    """The loss. The default is the papers' L1 + L2 (arXiv 2304.07724, section 4).

    Pixels whose true value is missing (NaN) do not count.

    Attributes:
        l1: weight of the absolute error, summed over a frame. By default 1, or 0 for heads that
            start from the last frame (`change`, `gate`, `advect`) and if there are `terms`.
        l2: weight of the squared error, summed over a frame. By default 1, or 0 if there are
            `terms`.
        terms: further losses by name (`zoo plugins` lists them), each with its `weight` and its
            options, such as {facl = {weight = 0.1, alpha = 0.2}}. They are added up.
        auxiliary: factor of the cells' own losses, on top of the weights that cells set.
        thresholds: boundaries between ranges of true values, in the units of the data, for the
            balanced errors B-MAE and B-MSE (Shi et al. 2017, arXiv 1706.03458).
        weights: weight of the pixels in each range, one more than thresholds: weights[i] applies
            from thresholds[i − 1] up to thresholds[i]. The paper has thresholds = [2, 5, 10, 30]
            (mm/h) and weights = [1, 2, 5, 10, 30].
    """

    l1: Weight | None = None
    l2: Weight | None = None
    terms: Annotated[Terms, AfterValidator(_check_weights)] = Field(default_factory=dict)
    auxiliary: Weight = 1.0
    thresholds: tuple[float, ...] = ()
    weights: tuple[Weight, ...] = ()


class Curve(Validated):
    """A probability that changes between two steps and is constant before and after.

    Attributes:
        start: the probability up to the step `begin`.
        end: the probability from the step `until` on.
        shape: "linear", or "exponential": approaches `end` as
            exp(−5 (step − begin) / (until − begin)).
        begin: the step at which the change begins.
        until: the step at which it ends; by default the last step.
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
        """Return the probability at a step of a run of `steps` steps."""
        until = steps if self.until is None else self.until
        if step >= until:
            return self.end
        if step <= self.begin:
            return self.start
        progress = (step - self.begin) / (until - self.begin)
        remaining = 1 - progress if self.shape == "linear" else math.exp(-5 * progress)
        return self.end + (self.start - self.end) * remaining


class HorizonCurve(Validated):
    """A horizon that grows in the course of the training.

    Attributes:
        start: forecast frames up to the step `begin`.
        begin: the step at which the horizon begins to grow, linearly.
        until: the step from which on it is `data.horizon`; by default the last step.
    """

    start: Count = 1
    begin: Natural = 0
    until: Natural | None = None

    @model_validator(mode="after")
    def _check(self) -> HorizonCurve:
        if self.until is not None and self.until < self.begin:
            raise ValueError(f"until ({self.until}) must not be before begin ({self.begin})")
        return self

    def at(self, step: int, steps: int, horizon: int) -> int:
        """Return the number of forecast frames at a step of a run of `steps` steps."""
        until = steps - 1 if self.until is None else self.until
        if step >= until or self.start >= horizon:
            return horizon
        if step <= self.begin:
            return self.start
        progress = (step - self.begin) / (until - self.begin)
        return self.start + int(progress * (horizon - self.start))


class SamplingRecipe(Validated):
    """How often the network is fed true frames in training instead of its own predictions.

    Attributes:
        kind: "scheduled" (Bengio et al. 2015; arXiv 2304.07724): true inputs; in the forecast,
            true frames with a probability that falls linearly from 1 to 0. "reverse" (PredRNN-V2,
            arXiv 2103.09504): inputs and forecast start at 0.5 for the first third of the run; in
            the second third, inputs approach 1 exponentially and the forecast falls to 0
            linearly. "none": true inputs, no true frames in the forecast.
        inputs: curve for the inputs, overrides that of `kind`. The first frame is always true.
        forecast: curve for the forecast, overrides that of `kind`.
        horizon: the growing number of forecast frames of the training sequences; by default they
            are always whole.
    """

    kind: Literal["scheduled", "reverse", "none"] = "scheduled"
    inputs: Curve | None = None
    forecast: Curve | None = None
    horizon: HorizonCurve | None = None

    def curves(self, steps: int, fall: int | None = None) -> tuple[Curve, Curve]:
        """Return the curves of the inputs and of the forecast.

        Args:
            steps: steps of the run.
            fall: steps over which scheduled sampling falls to 0; by default all.
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
    """How to train. The defaults are those of the papers (arXiv 2304.07724, section 4).

    Attributes:
        steps: number of steps. Set either `steps` or `epochs`.
        epochs: number of passes over the data.
        batch_size: sequences per step, of all processes together.
        optimizer: name of an optimizer of timm.
        optimizer_options: its options, such as weight_decay and betas.
        lr: learning rate.
        lr_parts: other learning rates for parts of the network, by patterns of weight names, such
            as {"head.*" = 1e-3}; the first match counts.
        freeze: patterns of the names of weights that are not trained.
        schedule: name of a learning-rate schedule of timm.
        schedule_options: its options, counted in steps.
        warmup_steps: steps of linear warm-up before the schedule.
        clip_norm: largest norm of the gradient; larger gradients are scaled down.
        sampling_steps: steps over which scheduled sampling falls to 0; by default all.
        ema_decay: decay of an exponential moving average of the weights. If set, the averaged
            weights are validated and saved.
        nonfinite: what to do if a loss or gradient is NaN or infinite: "stop", or "skip" the step
            and count it.
        seed: seed of weights, sampling and augmentation.
        precision: "fp32", or automatic mixed precision with "bf16" or "fp16".
        channels_last: whether to use the channels-last memory format.
        compile: whether to compile the network with torch.compile.
        deterministic: whether to use deterministic algorithms only. On a CPU, training is
            deterministic anyway.
        checkpoint_every: steps between checkpoints.
        keep: number of checkpoints to keep, in addition to the best.
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
            raise ValueError("set either steps or epochs")
        if self.steps is not None and self.warmup_steps >= self.steps:
            raise ValueError(
                f"warmup_steps ({self.warmup_steps}) must be less than steps ({self.steps})"
            )
        return self


class MemoryRecipe(Validated):
    """How to save memory. These keys do not change the result.

    Attributes:
        checkpoint_every: keep the activations of every N-th time step only and recompute the
            others in the backward pass.
        accumulate: number of parts into which the batch of a process is split.
        fit: before training, find by trial the number of parts that fits into memory.
    """

    checkpoint_every: Positive | None = None
    accumulate: Positive = 1
    fit: bool = False


class AugmentRecipe(Validated):
    """Random changes of training sequences, the same for all frames of a sequence. Default: none.

    Attributes:
        mirror: swap left and right in half of the sequences.
        flip: swap top and bottom in half of the sequences.
        rotate: rotate by a random multiple of 90°; frames must be square.
        brightness: largest shift of the scaled values, which are then clipped to [0, 1].
        contrast: largest relative change of their distance from the mean, clipped likewise.
        crop: largest share of height and width that is cut off; the rest, at a random position, is
            enlarged to the size of the frames.
    """

    mirror: bool = False
    flip: bool = False
    rotate: bool = False
    brightness: Share = 0.0
    contrast: Share = 0.0
    crop: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @property
    def active(self) -> bool:
        """Whether any change is enabled."""
        return self != AugmentRecipe()


class CropRecipe(Validated):
    """Training on random crops of the frames, at full resolution. Default: whole frames.

    Validation uses whole frames.

    Attributes:
        size: height and width of the crops.
        candidates: number of places that are drawn for each crop, of which one is chosen.
        prefer: the importance of a place, which its probability is proportional to: "any", "wet"
            (the mean of its scaled values), or "moving" (their mean change from frame to frame).
    """

    size: tuple[Count, Count] | None = None
    candidates: Annotated[int, Field(ge=1, le=64)] = 1
    prefer: Literal["any", "wet", "moving"] = "any"

    @model_validator(mode="after")
    def _check(self) -> CropRecipe:
        if self.size is None and self != CropRecipe.model_construct():
            raise ValueError("candidates and prefer need the size of the crops: set size")
        if (self.prefer == "any") != (self.candidates == 1):
            raise ValueError(
                f'prefer = "{self.prefer}" and candidates = {self.candidates} do not fit: several '
                'candidates are for "wet" and "moving" crops'
            )
        return self


class EvaluationRecipe(Validated):
    """Validation during training. The best checkpoint is kept.

    Attributes:
        every: steps between validations; by default there are none.
        split: split of the data set.
        options: options of the data set, in addition to those of [data].
        sequences: validate on the first N sequences.
        batch_size: sequences per batch.
        metric: metric that defines the best checkpoint, of the forecast frames: "mse", "mae",
            "ssim", "psnr", one that plugins offer, such as "sharpness", or "crps" for ensembles.
        select: checkpoint that becomes the model: "last" or "best".
    """

    every: Positive | None = None
    split: str = "test"
    options: DataOptions = Field(default_factory=dict)
    sequences: Positive = 100
    batch_size: Count = 16
    metric: str = "mse"
    select: Literal["last", "best"] = "last"

    @model_validator(mode="after")
    def _check(self) -> EvaluationRecipe:
        if self.select == "best" and self.every is None:
            raise ValueError('select = "best" needs validation: set `every`')
        return self


class WatchRecipe(Validated):
    """What a run reports.

    Attributes:
        log_every: steps between lines of log.jsonl.
        pictures_every: steps between pictures of a forecast in pictures/; by default there are
            none.
        trackers: trackers of accelerate, such as "tensorboard", which must be installed.
    """

    log_every: Positive = 10
    pictures_every: Positive | None = None
    trackers: tuple[str, ...] = ()


class Recipe(Validated):
    """A training run.

    Attributes:
        init: name of a pretrained model, as in :func:`zoo.load`, to start from.
        model: arguments of :func:`zoo.create`, including `name`. With `init` it may be omitted;
            otherwise the weights of `init` must fit it.
        data: the data set.
        crop: random crops of training sequences.
        augment: random changes of training sequences.
        loss: the loss.
        sampling: when the network is fed true frames.
        train: budget, optimizer and precision.
        memory: how to save memory.
        evaluation: validation during training.
        watch: log, pictures and trackers.
    """

    init: str | None = None
    model: Options = Field(default_factory=dict)
    data: DataRecipe
    crop: CropRecipe = CropRecipe()
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
                "train.sampling_steps applies to scheduled sampling only; set "
                "sampling.forecast.until instead"
            )
        return self

    def flat(self) -> dict[str, Any]:
        """Return all values as JSON types by dotted keys, such as "train.lr"."""
        return _flat(self.model_dump(mode="json"))


def read_recipe(path: Path, settings: Iterable[tuple[str, Any]] = ()) -> Recipe:
    """Read and validate a recipe.

    Args:
        path: the TOML file.
        settings: keys and values that override the file's, such as ("train.lr", 1e-4).

    Raises:
        ConfigError: if the file cannot be read or is not a valid recipe.
    """
    try:
        values = parse_toml(read_limited(path, LARGEST_RECIPE))
    except FileNotFoundError:
        raise ConfigError(
            f"recipe {path} not found; for examples see cards/*/recipe.toml"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path} as TOML: {error}") from None
    source = str(path)
    for key, value in settings:
        source = f"{path} with --set"
        *tables, last = key.split(".")
        setting = f"--set {shorten([key])}"
        if not all((*tables, last)):
            raise ConfigError(f"{setting}: not a valid key, such as train.lr; see --show")
        table = values
        for name in tables:
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                raise ConfigError(f"{setting}: {name!r} is a value, not a table; see --show")
        table[last] = value
    return Recipe.parse(values, source=source)


def write_recipe(recipe: Recipe) -> str:
    """Return a recipe as TOML with all defaults; keys that are not set become comments."""
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
    """Return the dotted keys in which two recipes differ, with both values."""
    first, second = one.flat(), other.flat()
    pairs = {key: (first.get(key), second.get(key)) for key in first | second}
    return {key: (a, b) for key, (a, b) in pairs.items() if a != b}


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        nested = isinstance(value, dict) and value
        flat |= _flat(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return flat


def _entries(table: BaseModel | Mapping[str, Any]) -> dict[str, Any]:
    return table.model_dump(mode="json") if isinstance(table, BaseModel) else dict(table)


def _inline(value: Any) -> Any:
    """Convert a nested table to an inline table, without keys that are not set."""
    import tomlkit

    if not isinstance(value, dict):
        return value
    table = tomlkit.inline_table()
    table.update({k: _inline(entry) for k, entry in value.items() if entry is not None})
    return table

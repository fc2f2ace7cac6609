"""Scores of models on a data set, next to baselines."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from zoo.baseline_cache import BaselineCache
from zoo.baselines import ENSEMBLES, check_baseline, earlier_frames, forecast_baseline, seasonal
from zoo.config import Data
from zoo.data import open_dataset
from zoo.data.dataset import data_of, times_of
from zoo.errors import ConfigError, DataError, ZooError
from zoo.forecast import Forecaster
from zoo.known_inputs import sequence_inputs
from zoo.memory import trim
from zoo.metrics import FrameMetrics
from zoo.optimize import check_mode
from zoo.optimize import optimize as choose_settings
from zoo.progress import progress_bar
from zoo.protocol import PLACES, EvalData, protocol
from zoo.scores import create_metric
from zoo.scores.ensemble import DEFINITIONS as ENSEMBLE_DEFINITIONS
from zoo.scores.ensemble import EnsembleMetrics
from zoo.units import check_data, clip, to_physical, to_unit_interval

__all__ = [
    "PRECISIONS",
    "default_thresholds",
    "evaluate",
    "forecast_all",
    "open_data",
    "process_rank",
]

Accumulator = TypeVar("Accumulator", FrameMetrics, EnsembleMetrics)

LARGE = 2**20  # values in a batch from which on freed memory is returned to the system

#: Data types that models may compute in, by name.
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}

#: Default thresholds of the skill scores by unit; for rain those of the MS-RNN papers.
THRESHOLDS = {"mm/h": (0.5, 2.0, 5.0), "dBZ": (20.0, 30.0, 40.0)}


def evaluate(
    models: Forecaster | Mapping[str, Forecaster],
    *,
    dataset: str | None = None,
    split: str = "test",
    options: Mapping[str, Any] | None = None,
    sequences: int | None = None,
    input_frames: int | None = None,
    horizon: int | None = None,
    batch_size: int = 32,
    root: Path | None = None,
    thresholds: Sequence[float] | None = None,
    windows: Sequence[int] = (),
    baselines: Sequence[str] = ("persistence",),
    lpips: bool = False,
    further_metrics: Sequence[str] = (),
    members: int = 10,
    precision: str = "fp32",
    optimize: str | None = None,
    cache: bool = False,
) -> dict[str, Any]:
    """Measure models on a part of a data set, each on its own device.

    Under ``torchrun`` or ``accelerate launch`` the processes share the sequences, and each
    returns the complete report.

    Args:
        models: One model, or several by name.
        dataset: Name of the data set; by default the training data of the (first) model.
        split: "train", "valid" or "test".
        options: Options of the data set; by default those used in training, if it is the same.
        sequences: Evaluate only the first N sequences.
        input_frames: Frames to read; by default as in training.
        horizon: Frames to forecast; by default as in training.
        batch_size: Sequences per batch; it does not change the scores.
        root: Folder of the data sets.
        thresholds: Thresholds of the skill scores, in the unit of the data; by default 0.5, 2 and
            5 mm/h for rain, 20, 30 and 40 dBZ for reflectivity.
        windows: Windows of the fractions skill score in pixels, for each threshold.
        baselines: "persistence", "optical flow", "STEPS", an ensemble for radar, and "seasonal
            PERIOD", such as "seasonal 7d": what was there a period before, for data with times.
        lpips: Whether to measure LPIPS.
        further_metrics: Names of metrics that plugins offer.
        members: Number of members of ensembles: of models that read noise, and of STEPS. Their mean
            is measured as other forecasts are; scores of ensembles are added for all forecasts.
        precision: "fp32", or "bf16" for models in automatic mixed precision. Metrics are always
            computed in float64.
        optimize: "auto" to choose fast settings for the models, which keep them; see
            :func:`zoo.optimize.optimize`.
        cache: Whether to keep the scores of baselines in the user's cache and to take them from
            there, if the data have a published checksum.

    Returns:
        What ``zoo eval --json`` prints. "forecast" holds scores over the forecast frames,
        "all-steps" over all T − 1 one-step predictions including the warm-up (as in the tables
        of the MS-LSTM paper), "per_frame" over each of these, "counts" the contingency tables
        (hits, false alarms, misses, correct negatives) by threshold; each by model ("model" if
        there is only one) and baseline, with the metrics of :class:`zoo.metrics.FrameMetrics`.
        With an ensemble, "ensemble" holds ranks, reliability and spectra
        (:meth:`zoo.scores.ensemble.EnsembleMetrics.distributions`). "data", "protocol" and
        "precision" say on which data and how they were measured. Scores with the same protocol id
        may be compared.

    Raises:
        ConfigError: If an option or a baseline is unknown.
        DataError: If the data are missing or do not fit the models.
    """
    further = {name: create_metric(name) for name in further_metrics}
    named = {"model": models} if isinstance(models, Forecaster) else dict(models)
    if precision not in PRECISIONS:
        raise ConfigError(f"precision={precision!r} is not one of {', '.join(PRECISIONS)}")
    automatic = check_mode(optimize)
    for name in baselines:
        check_baseline(name)
    first = next(iter(named.values()))
    evaluated = open_data(
        first,
        dataset=dataset,
        split=split,
        options=options,
        sequences=sequences,
        input_frames=input_frames,
        horizon=horizon,
        root=root,
    )
    for name, model in named.items():
        _check_fits(name, model, evaluated.data)
    channels = {name: model.config.forecast_channels for name, model in named.items()}
    if len({*channels.values()}) > 1:
        raise DataError(f"the models forecast different channels, {channels}; evaluate them alone")
    verify = getattr(evaluated.dataset, "verify", None)  # plugins may offer plain data sets
    checksum = verify(evaluated.sequences) if verify else None
    if thresholds is None:
        thresholds = default_thresholds(evaluated.data)
    has_ensembles = {*ENSEMBLES} & {*baselines} or any(m.config.noise for m in named.values())
    kept: BaselineCache | None = None
    if cache and checksum and not (has_ensembles or lpips or further or process_rank()[1] > 1):
        settings = [[*thresholds], [*windows], *{*channels.values()}]
        kept = BaselineCache(evaluated, checksum, settings)
    known = kept.read(baselines) if kept else {}
    metrics = {
        name: FrameMetrics(
            evaluated.data, thresholds=thresholds, windows=windows, lpips=lpips, metrics=further
        )
        for name in (*named, *baselines)
        if name not in known
    }
    ensembles: dict[str, EnsembleMetrics] = {}
    if has_ensembles:
        ensembles = {name: EnsembleMetrics(evaluated.data, thresholds) for name in metrics}
    if automatic:
        _optimize(named, evaluated, batch_size, members, precision)
    metrics, ensembles = _measure(
        metrics, ensembles, named, evaluated, batch_size, members, precision
    )
    scores = {
        name: _scores(metric, ensembles.get(name), evaluated.horizon)
        for name, metric in metrics.items()
    }
    if kept:
        kept.write({name: scores[name] for name in baselines if name in scores})
    ordered = {name: {**scores, **known}[name] for name in (*named, *baselines)}
    definitions = {name: metric.definition for name, metric in further.items()}
    definitions |= ENSEMBLE_DEFINITIONS if has_ensembles else {}
    return _report(ordered, evaluated, checksum, definitions) | {"precision": precision}


def open_data(
    model: Forecaster,
    *,
    dataset: str | None = None,
    split: str = "test",
    options: Mapping[str, Any] | None = None,
    sequences: int | None = None,
    input_frames: int | None = None,
    horizon: int | None = None,
    root: Path | None = None,
) -> EvalData:
    """Open the data to evaluate a model on; arguments are as for :func:`evaluate`."""
    trained = model.config.data
    name = dataset or trained.name
    if name is None:
        raise ConfigError("the model does not name a data set; choose one, such as --data mmnist")
    given, horizon = input_frames or trained.input_frames or 10, horizon or trained.horizon or 10
    if options is None:
        options = trained.trusted_options() if name == trained.name else {}
    # These say how training draws sequences; evaluation reads them in order.
    chosen: dict[str, Any] = {
        key: value for key, value in options.items() if key not in ("sequences", "seed")
    }
    opened = open_dataset(name, split, root=root, frames=given + horizon, **chosen)
    count = min(sequences or len(opened), len(opened))
    data = data_of(opened)
    same_files = all(options.get(place) == trained.options.get(place) for place in PLACES)
    if name == trained.name and same_files:
        data = data.model_copy(update={"title": trained.title})
    return EvalData(name, split, opened, data, count, given, horizon)


@torch.no_grad()
def forecast_all(
    models: Mapping[str, Forecaster],
    baselines: Sequence[str],
    frames: Tensor,
    input_frames: int,
    data: Data,
    times: np.ndarray | None = None,
    *,
    earlier: Mapping[str, Tensor] | None = None,
    members: int = 1,
    numbers: Sequence[int] = (0,),
    precision: str = "fp32",
) -> dict[str, Tensor]:
    """Forecast a batch with models and baselines.

    A model reads and returns values clipped to [0, 1], as in :meth:`Forecaster.predict`, unless
    its data are standardized; if it was trained on another scale of the same unit, they are
    converted. Baselines read the observed
    values, unclipped.

    Args:
        models: Models by name.
        baselines: Names of baselines.
        frames: Scaled sequences (B, T, C, H, W). Of the frames to be forecast, models read only
            the channels whose future is known.
        input_frames: Number of frames to read; the others are forecast.
        data: What the values mean.
        times: Times of the frames, (B, T), if known.
        earlier: For seasonal baselines, the frames from :func:`zoo.baselines.earlier_frames`.
        members: Number of members of ensembles.
        numbers: Numbers of the sequences, which their noise depends on; as many as sequences.
        precision: The precision of the models, one of ``PRECISIONS``.

    Returns:
        By name, (members, B, T − 1, C, H, W) on the scale of the data, with the channels that the
        models forecast. Forecasts that are not ensembles have one member.

    Raises:
        DataError: If a model needs times that are not given.
    """
    past, horizon = frames[:, :input_frames], frames.shape[1] - input_frames
    forecasts = {}
    for name, model in models.items():
        model.eval()
        own = model.config.data
        converts = own.name is not None and _scale(own) != _scale(data)
        read = frames.to(next(model.parameters()).device)
        if converts:
            read = to_unit_interval(to_physical(read, data), own)
        read = clip(read, own).nan_to_num(nan=0.0)
        known = sequence_inputs(model.config, read, input_frames, times)
        count = members if model.config.noise else 1
        with _autocast(read.device, precision), torch.inference_mode():
            sampled = [
                model.sample(read[:, :input_frames], horizon, known, 0, member, numbers)
                for member in range(count)
            ]
        forecast = clip(torch.stack(sampled).to(read), own)
        if converts:
            forecast = to_unit_interval(to_physical(forecast, own), data)
        forecasts[name] = forecast
    channels = next((forecast.shape[3] for forecast in forecasts.values()), past.shape[2])
    for name in baselines:
        if earlier and name in earlier:
            forecasts[name] = seasonal(earlier[name][:, :, :channels])[None]
        else:
            forecasts[name] = forecast_baseline(
                name, past[:, :, :channels], horizon, data, members, numbers
            )
    return forecasts


def _autocast(device: torch.device, precision: str) -> torch.autocast:
    return torch.autocast(device.type, PRECISIONS[precision], enabled=precision != "fp32")


def _optimize(
    models: Mapping[str, Forecaster],
    evaluated: EvalData,
    batch_size: int,
    members: int,
    precision: str,
) -> None:
    """Choose fast settings for the models and the work of this process."""
    size = tuple(evaluated.dataset[0].shape[-2:])
    share = -(-evaluated.sequences // process_rank()[1])
    batches = -(-share // batch_size)
    for model in models.values():
        forecasts = batches * (members if model.config.noise else 1)
        steps = forecasts * (evaluated.input_frames - 1 + evaluated.horizon)
        with _autocast(next(model.parameters()).device, precision):
            choose_settings(model, size, batch=min(batch_size, share), steps=steps)


def _compiled_once(models: Mapping[str, Forecaster]) -> AbstractContextManager[object]:
    """Run steps that are compiled for whole batches as they are in the last, smaller batch.

    Compiling them again would take longer.
    """
    if any("compile" in model.optimized for model in models.values()):
        return torch.compiler.set_stance("eager_on_recompile")
    return nullcontext()  # as setting the stance imports the compiler, which takes seconds


def default_thresholds(data: Data) -> tuple[float, ...]:
    """Return the default thresholds of the skill scores within the range of the data."""
    low, high = data.limits
    return tuple(t for t in THRESHOLDS.get(data.unit, ()) if low < t <= high)


def process_rank() -> tuple[int, int]:
    """Return the rank of this process and the number of processes, as their launcher set them."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def _measure(
    metrics: dict[str, FrameMetrics],
    ensembles: dict[str, EnsembleMetrics],
    models: Mapping[str, Forecaster],
    evaluated: EvalData,
    batch_size: int,
    members: int,
    precision: str,
) -> tuple[dict[str, FrameMetrics], dict[str, EnsembleMetrics]]:
    """Forecast and measure all sequences, shared among the processes, for each of `metrics`."""
    baselines = [name for name in metrics if name not in models]
    rank, processes = process_rank()
    share = range(rank, evaluated.sequences, processes)
    batches = DataLoader(Subset(evaluated.dataset, share), batch_size)
    timed = any(model.config.needs_times for model in models.values())
    with _compiled_once(models), progress_bar("evaluating", len(share)) as bar:
        for number, frames in enumerate(batches, 1):  # (B, T, C, H, W)
            indices = share[(number - 1) * batch_size : number * batch_size]
            times = times_of(evaluated.dataset, indices) if timed else None
            earlier = earlier_frames(evaluated.dataset, indices, baselines, evaluated.horizon)
            forecasts = forecast_all(
                models,
                baselines,
                frames,
                evaluated.input_frames,
                evaluated.data,
                times,
                earlier=earlier,
                members=members,
                numbers=indices,
                precision=precision,
            )
            for name, forecast in forecasts.items():
                truth = frames[:, 1:, : forecast.shape[3]].to(forecast.device)
                mean = forecast[0] if len(forecast) == 1 else forecast.mean(dim=0)
                metrics[name].update(mean, truth, clip=False)
                if name in ensembles:
                    ensembles[name].update(forecast, truth)
            bar(min(number * batch_size, len(share)), "")
            if frames.numel() > LARGE:
                trim()
    return (_gather(metrics), _gather(ensembles)) if processes > 1 else (metrics, ensembles)


def _gather(metrics: dict[str, Accumulator]) -> dict[str, Accumulator]:
    """Merge the metrics of all processes, in each of them."""
    from accelerate import PartialState
    from accelerate.utils import gather_object

    PartialState(cpu=not torch.cuda.is_available())
    merged: dict[str, Accumulator] = {}
    for part in gather_object([metrics]):
        for name, metric in part.items():
            if name in merged:
                merged[name].merge(metric)
            else:
                merged[name] = metric
    return merged


def _scores(metric: FrameMetrics, ensemble: EnsembleMetrics | None, horizon: int) -> dict[str, Any]:
    """Return the part of the report on one forecast."""
    all_steps, forecast = metric.compute(), metric.compute(horizon)
    per_frame = all_steps.pop("per_frame")
    del forecast["per_frame"]
    scores: dict[str, Any] = {"forecast": forecast, "all-steps": all_steps, "per_frame": per_frame}
    if metric.thresholds:
        scores["counts"] = metric.counts()
    if ensemble is not None:
        forecast |= ensemble.scores(horizon)
        all_steps |= ensemble.scores()
        per_frame |= ensemble.per_frame()
        scores["ensemble"] = ensemble.distributions(horizon)
    return scores


def _report(
    scores: Mapping[str, dict[str, Any]],
    evaluated: EvalData,
    checksum: str | None,
    definitions: Mapping[str, str],
) -> dict[str, Any]:
    """Return what :func:`evaluate` returns, from the scores of each forecast."""
    names = {name for parts in scores.values() for name in parts["all-steps"]}
    title = evaluated.data.title
    return {
        "data": {
            "name": evaluated.name,
            **({"title": title} if title else {}),
            "split": evaluated.split,
            "sequences": evaluated.sequences,
            "sha256": checksum,
            "input_frames": evaluated.input_frames,
            "horizon": evaluated.horizon,
        },
        "protocol": protocol(evaluated, names, definitions),
        **{
            part: {name: parts[part] for name, parts in scores.items()}
            for part in next(iter(scores.values()))
        },
    }


def _scale(data: Data) -> tuple[Any, ...]:
    return data.limits, data.reflectivity, data.standardization


def _check_fits(name: str, model: Forecaster, data: Data) -> None:
    """Raise DataError if the data have another unit, time step or grid than the model's."""
    if model.config.data.name is None:
        return
    try:
        check_data(
            model.config.data,
            unit=data.unit,
            time_step=data.time_step,
            grid_step=data.grid_step,
        )
    except ZooError as error:
        raise DataError(f"{name} does not fit the data: {error}") from None

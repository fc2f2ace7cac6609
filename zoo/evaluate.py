"""How good models are on a data set, beside forecasts that need no model."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from einops import reduce
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from zoo.baselines import BASELINES, check_baseline
from zoo.config import Data
from zoo.data import SequenceDataset, find_dataset, open_dataset
from zoo.data.dataset import data_of
from zoo.errors import ZooError
from zoo.forecast import Forecaster
from zoo.memory import trim
from zoo.metrics import BALANCE, DEFINITIONS, FrameMetrics
from zoo.progress import progress_bar
from zoo.units import check_data, clips, to_physical, to_unit_interval

__all__ = ["default_thresholds", "evaluate", "forecast_all", "latest", "open_for"]

if TYPE_CHECKING:
    import xarray

LARGE = 2**20  # values of a batch from which on memory is minded

#: Thresholds of the categorical scores by unit: for rain those of the MS-RNN papers.
THRESHOLDS = {"mm/h": (0.5, 2.0, 5.0), "dBZ": (20.0, 30.0, 40.0)}

#: Metrics that are measured on demand: with or without them, the others may be compared.
ASKED_FOR = ("fss", "lpips")

#: Options that say where the files are, which says nothing of what is in them.
PLACES = ("folder", "path")

#: What of the scaled values is clipped to [0, 1], by whether the data are.
CLIPPED = {True: "all", False: "what models read and forecast, not the truth nor the baselines"}


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
) -> dict[str, Any]:
    """Measure models on a part of a data set, each on the device it is on.

    Args:
        models: one, or several by name.
        dataset: a data set's name; by default the one the (first) model was trained on.
        split: "train", "valid" or "test".
        options: of the data set; by default those of the training, on the data set of the
            training.
        sequences: only the first so many, for a quick look.
        input_frames, horizon: by default those of the training.
        batch_size: sequences at a time; it does not change the figures.
        root: the folder of the data sets.
        thresholds: of the categorical scores, in the unit of the data; by default for rain 0.5,
            2 and 5 mm/h, for reflectivity 20, 30 and 40 dBZ.
        windows: pixels, for the fractions skill score at each threshold.
        baselines: "persistence", "optical flow".
        lpips: whether to measure LPIPS too.

    Returns what --json prints: under "forecast" the figures over the forecast frames, under
    "all-steps" those over all T − 1 one-step predictions, the warm-up included (the habit of
    the MS-LSTM paper's tables), under "per_frame" every one of these, under "counts" the
    contingency tables (hits, false alarms, misses, correct negatives) by threshold; each for
    every model ("model" for a single one) and baseline. Metrics are those of
    :class:`zoo.metrics.FrameMetrics`. "protocol" says how and on which data it was measured, and
    its "id" is the same for figures that may be set side by side. Under ``torchrun`` or
    ``accelerate launch`` the processes share the sequences, and each returns the whole report.

    Raises ZooError where the data are absent or do not fit the models.
    """
    named = {"model": models} if isinstance(models, Forecaster) else dict(models)
    for name in baselines:
        check_baseline(name)
    first = next(iter(named.values()))
    name, test, given, horizon = open_for(
        first, dataset, split, options, input_frames, horizon, root
    )
    record = data_of(test)
    for who, model in named.items():
        _check_fits(who, model, record)
    count = min(sequences or len(test), len(test))
    checksum = test.verify(count) if hasattr(test, "verify") else None
    thresholds = default_thresholds(record) if thresholds is None else thresholds

    def empty() -> FrameMetrics:
        return FrameMetrics(record, thresholds=thresholds, windows=windows, lpips=lpips)

    metrics = {who: empty() for who in (*named, *baselines)}
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    mine = range(rank, count, world)
    with progress_bar("evaluating", len(mine)) as bar:
        for number, frames in enumerate(DataLoader(Subset(test, mine), batch_size), 1):
            past, truth = frames[:, :given], frames[:, 1:]
            for who, forecast in forecast_all(named, baselines, past, horizon, record).items():
                metrics[who].update(forecast, truth.to(forecast.device), clip=False)
            bar(min(number * batch_size, len(mine)), "")
            if frames.numel() > LARGE:
                trim()
    if world > 1:
        metrics = _gathered(metrics)
    computed = {who: metric.compute() for who, metric in metrics.items()}
    whole = {who: _without(figures) for who, figures in computed.items()}
    ahead = {who: _without(metric.compute(horizon)) for who, metric in metrics.items()}
    report = {
        "data": {
            "name": name,
            "split": split,
            "sequences": count,
            "sha256": checksum,
            "input_frames": given,
            "horizon": horizon,
        },
        "protocol": _protocol(name, split, test, record, count, given, horizon, whole),
        "forecast": ahead,
        "all-steps": whole,
        "per_frame": {who: figures["per_frame"] for who, figures in computed.items()},
    }
    if thresholds:
        report["counts"] = {who: metric.counts() for who, metric in metrics.items()}
    return report


def open_for(
    model: Forecaster,
    dataset: str | None = None,
    split: str = "test",
    options: Mapping[str, Any] | None = None,
    input_frames: int | None = None,
    horizon: int | None = None,
    root: Path | None = None,
) -> tuple[str, Any, int, int]:
    """The data set on which a model is measured: its name, itself, T_in and the horizon."""
    data = model.config.data
    name = dataset or data.name
    if name is None:
        raise ZooError("the model names no data set; say which to evaluate on: --data mmnist")
    given, horizon = input_frames or data.input_frames or 10, horizon or data.horizon or 10
    if options is None:
        options = data.options if name == data.name else {}
    # How many a training draws, and in which order, is its own affair.
    chosen: dict[str, Any] = {
        key: value for key, value in options.items() if key not in ("sequences", "seed")
    }
    opened = open_dataset(name, split, root=root, frames=given + horizon, **chosen)
    return name, opened, given, horizon


def latest(
    model: Forecaster, dataset: str, folder: Path, input_frames: int | None = None
) -> xarray.DataArray:
    """The newest frames that a folder of files holds, as :meth:`Forecaster.predict` takes them.

    Args:
        model: whose data set options are used, if it was trained on this data set; of its option
            every the newest frame is always one.
        dataset: the name of the data set whose files they are.
        folder: with the files; no gap in time may be between those that are read.
        input_frames: how many; by default as in the training.

    Raises ZooError where the data set has no recordings, or too few frames follow one another up
    to the newest.
    """
    data = model.config.data
    kind = find_dataset(dataset)
    if not (isinstance(kind, type) and issubclass(kind, SequenceDataset)):
        raise ZooError(f"{dataset} is no data set of recordings, whose last frames could be read")
    told = data.options if dataset == data.name else {}
    # All of it is read, whatever was for training and test, and nothing is scaled here.
    options: dict[str, Any] = {
        key: value
        for key, value in told.items()
        if key not in (*kind.split_options, "every", "folder")
    }
    options |= {"test_share": 1.0, "low": 0.0, "high": 1.0}
    opened: Any = open_dataset(
        dataset, "test", root=folder.parent, folder=folder.name, frames=1, **options
    )
    every = 1 if "every" in opened.options else told.get("every", 1)  # it may be prepared so
    newest: xarray.DataArray = opened.newest(input_frames or data.input_frames or 10, every)
    return newest


@torch.no_grad()
def forecast_all(
    models: Mapping[str, Forecaster],
    baselines: Sequence[str],
    past: Tensor,
    horizon: int,
    record: Data,
) -> dict[str, Tensor]:
    """The predictions (B, T − 1 + horizon, C, H, W) of models and baselines, on the data's scale.

    A model reads and gives [0, 1], clipped, as in :meth:`Forecaster.predict`; one trained on
    another scale of the same unit, that of its own. Baselines have what was observed, unclipped.
    """
    made = {}
    for who, model in models.items():
        model.eval()
        own = model.config.data
        frames = past.to(next(model.parameters()).device)
        if _is_other_scale(own, record):
            frames = to_unit_interval(to_physical(frames, record), own)
        forecast = model(frames.clamp(0, 1).nan_to_num(nan=0.0), horizon).clamp(0, 1)
        if _is_other_scale(own, record):
            forecast = to_unit_interval(to_physical(forecast, own), record)
        made[who] = forecast
    for who in baselines:
        made[who] = BASELINES[who](past, horizon, record)
    return made


def default_thresholds(record: Data) -> tuple[float, ...]:
    """Thresholds for the categorical scores of data that have some."""
    low, high = record.limits
    return tuple(t for t in THRESHOLDS.get(record.unit, ()) if low < t <= high)


def _is_other_scale(own: Data, record: Data) -> bool:
    if own.name is None:  # a network that was never told what it is for
        return False
    return (own.limits, own.reflectivity) != (record.limits, record.reflectivity)


def _check_fits(who: str, model: Forecaster, record: Data) -> None:
    """Refuse data of another unit, time step or grid than the model's."""
    if model.config.data.name is None:
        return
    try:
        check_data(
            model.config.data,
            unit=record.unit,
            time_step=record.time_step,
            grid_step=record.grid_step,
        )
    except ZooError as error:
        raise ZooError(f"{who} does not fit the data: {error}") from None


def _protocol(
    name: str,
    split: str,
    test: Any,
    record: Data,
    count: int,
    given: int,
    horizon: int,
    figures: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """How the figures came about.

    Its id is that of all of this but the metrics that were asked for beside the others.
    """
    measured = sorted({key for each in figures.values() for key in each})
    options = {k: v for k, v in record.options.items() if k not in PLACES}
    when = getattr(test, "when", lambda _: None)
    first, last = when(0), when(count - 1)
    protocol = {
        "dataset": name,
        "split": split,
        "options": options,
        "sequences": count,
        "fingerprint": _fingerprint(test, count),
        "times": None if first is None or last is None else [str(first[0]), str(last[-1])],
        "input_frames": given,
        "horizon": horizon,
        "size": record.size,
        "variable": record.variable,
        "unit": record.unit,
        "scale": (record.reflectivity.model_dump() if record.reflectivity else [*record.limits]),
        "data_range": [0, 1],
        "clipped": CLIPPED[clips(record)],
        "reduction": "mean over sequences of each frame, then over frames",
        "frames": {
            "forecast": f"the last {horizon} of {given + horizon - 1} predictions",
            "all-steps": f"all {given + horizon - 1} one-step predictions",
        },
        "missing": "not counted; frames with missing pixels are scaled to whole ones",
        "balance": [list(pair) for pair in BALANCE] if "b_mse" in measured else None,
    }
    always = {key for key in measured if key.partition("@")[0] not in ASKED_FOR}
    metrics = {key: DEFINITIONS[key.partition("@")[0]] for key in measured}
    usual = {key: told for key, told in metrics.items() if key in always}
    identity = _digest({**protocol, "metrics": usual})
    return {"id": identity, **json.loads(json.dumps({**protocol, "metrics": metrics}))}


def _fingerprint(test: Any, count: int) -> str:
    """What tells data apart, wherever they lie: recordings, their times, some of the values.

    Of the recordings it takes the names without their folders, lengths, first and last times, in
    frames as they are used, so that prepared data have the fingerprint of their source; of the
    first and the last sequence the moments of every frame to six digits.
    """
    every = getattr(test, "every", 1)
    recordings = []
    for series in getattr(test, "series", ()):
        times = None if series.times is None else series.times[::every].astype("datetime64[s]")
        ends = [] if times is None else [str(time) for time in (*times[:1], *times[-1:])]
        name = series.name.replace("\\", "/").rpartition("/")[2]
        recordings.append([name, len(range(0, series.length, every)), *ends])
    moments = []
    for index in (0, count - 1):
        frames = test[index].double()  # (T, C, H, W)
        known = ~frames.isnan()
        ramp = torch.linspace(0, 1, frames[0].numel()).double().view_as(frames[0])
        for weight in (torch.ones_like(ramp), ramp, frames.nan_to_num()):
            sums = reduce(frames.nan_to_num() * weight, "t c h w -> t", "sum")
            moments.append([f"{value:.6g}" for value in sums.tolist()])
        moments.append([str(n) for n in reduce(known.long(), "t c h w -> t", "sum").tolist()])
    return _digest([recordings, moments])


def _digest(values: Any) -> str:
    """Twelve digits of a hash of what JSON can hold."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def _gathered(metrics: dict[str, FrameMetrics]) -> dict[str, FrameMetrics]:
    """The metrics of all processes, in every one of them."""
    from accelerate import PartialState
    from accelerate.utils import gather_object

    PartialState(cpu=not torch.cuda.is_available())
    merged: dict[str, FrameMetrics] = {}
    for part in gather_object([metrics]):
        for who, metric in part.items():
            if who in merged:
                merged[who].merge(metric)
            else:
                merged[who] = metric
    return merged


def _without(figures: dict[str, Any]) -> dict[str, Any]:
    """The figures over all frames, without those of each."""
    return {key: value for key, value in figures.items() if key != "per_frame"}

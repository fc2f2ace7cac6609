"""The protocol of an evaluation: on which data and how scores were measured, with an id.

Scores may be compared if their ids are the same. The id is a hash of all texts and numbers of the
protocol, so changing a word in this module makes earlier scores incomparable.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from einops import reduce

from zoo.config import Data
from zoo.metrics import BALANCE, DEFINITIONS
from zoo.units import clips

__all__ = ["EvalData", "protocol"]

#: Metrics measured on request. They are not part of the id: the others are the same without them.
#: Nor are the metrics of plugins.
OPTIONAL_METRICS = ("fss", "lpips")

#: Options of a data set that say where its files are, not what they contain.
PLACES = ("folder", "path")

#: Which scaled values are clipped to [0, 1], by whether the data are (:func:`zoo.units.clips`).
CLIPPED = {True: "all", False: "what models read and forecast, not the truth nor the baselines"}


@dataclass(frozen=True)
class EvalData:
    """The sequences that models are evaluated on.

    Attributes:
        name: Name of the data set.
        split: "train", "valid" or "test".
        dataset: The data set itself, of sequences (T, C, H, W).
        data: What its values mean.
        sequences: How many of its sequences are used, from the first on.
        input_frames: Frames that models read.
        horizon: Frames that they forecast.
    """

    name: str
    split: str
    dataset: Any
    data: Data
    sequences: int
    input_frames: int
    horizon: int


def protocol(
    evaluated: EvalData, metrics: Iterable[str], further: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return how `metrics` were measured on which data, ready for JSON, under "id" its hash.

    Args:
        evaluated: The data.
        metrics: Names of metrics.
        further: Definitions of those that plugins offer.
    """
    data, given, horizon = evaluated.data, evaluated.input_frames, evaluated.horizon
    known = {**(further or {}), **DEFINITIONS}
    definitions = {key: known[key.partition("@")[0]] for key in sorted(metrics)}
    text = {
        "dataset": evaluated.name,
        "split": evaluated.split,
        "options": {key: value for key, value in data.options.items() if key not in PLACES},
        "sequences": evaluated.sequences,
        "fingerprint": _fingerprint(evaluated),
        "times": _times(evaluated),
        "input_frames": given,
        "horizon": horizon,
        "size": data.size,
        "variable": data.variable,
        "unit": data.unit,
        "scale": data.reflectivity.model_dump() if data.reflectivity else [*data.limits],
        "data_range": [0, 1],
        "clipped": CLIPPED[clips(data)],
        "reduction": "mean over sequences of each frame, then over frames",
        "frames": {
            "forecast": f"the last {horizon} of {given + horizon - 1} predictions",
            "all-steps": f"all {given + horizon - 1} one-step predictions",
        },
        "missing": "not counted; frames with missing pixels are scaled to whole ones",
        "balance": [list(pair) for pair in BALANCE] if "b_mse" in definitions else None,
    }
    identifying = {
        key: definition
        for key, definition in definitions.items()
        if key.partition("@")[0] not in {*OPTIONAL_METRICS, *(further or {})}
    }
    identity = _digest({**text, "metrics": identifying})
    return {"id": identity, **json.loads(json.dumps({**text, "metrics": definitions}))}


def _times(evaluated: EvalData) -> list[str] | None:
    """The times of the first and the last frame, if known."""
    if not hasattr(evaluated.dataset, "when"):  # only data sets of recordings have times
        return None
    first, last = (evaluated.dataset.when(index) for index in (0, evaluated.sequences - 1))
    return None if first is None or last is None else [str(first[0]), str(last[-1])]


def _fingerprint(evaluated: EvalData) -> str:
    """A hash that identifies the data, wherever they are stored.

    It covers the names of the recordings without their folders, their lengths, first and last
    times, in frames as they are used, so that prepared data have the fingerprint of their source;
    and moments of every frame of the first and the last sequence, to six digits.
    """
    recordings = []
    for series in getattr(evaluated.dataset, "series", ()):
        ends = []
        if series.times is not None:
            times = series.times.astype("datetime64[s]")
            ends = [str(time) for time in (*times[:1], *times[-1:])]
        name = series.name.replace("\\", "/").rpartition("/")[2]
        recordings.append([name, series.length, *ends])
    moments = []
    for index in (0, evaluated.sequences - 1):
        frames = evaluated.dataset[index].double()  # (T, C, H, W)
        known = ~frames.isnan()
        ramp = torch.linspace(0, 1, frames[0].numel()).double().view_as(frames[0])  # (C, H, W)
        for weight in (torch.ones_like(ramp), ramp, frames.nan_to_num()):
            sums = reduce(frames.nan_to_num() * weight, "t c h w -> t", "sum")
            moments.append([f"{value:.6g}" for value in sums.tolist()])
        moments.append([str(n) for n in reduce(known.long(), "t c h w -> t", "sum").tolist()])
    return _digest([recordings, moments])


def _digest(values: Any) -> str:
    """The first twelve digits of a hash of the values as JSON."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]

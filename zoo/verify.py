"""Recorded scores, measured again with their recorded protocol."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from zoo.errors import ConfigError, HubError
from zoo.evaluate import evaluate
from zoo.forecast import Forecaster
from zoo.protocol import PLACES

__all__ = ["Difference", "Verification", "verify"]

FRAMES = ("forecast", "all-steps")

#: Relative difference up to which two scores are equal; other processors round otherwise.
TOLERANCE = 1e-3


class Difference(NamedTuple):
    """A score that is not what was recorded.

    Attributes:
        frames: "forecast" or "all-steps".
        name: "model" or a baseline.
        metric: Name of the metric.
        recorded: Its recorded value; None if it was undefined.
        measured: Its value now; None if it is undefined or no longer measured.
    """

    frames: str
    name: str
    metric: str
    recorded: float | None
    measured: float | None


class Verification(NamedTuple):
    """The result of measuring a model again.

    Attributes:
        protocol: Recorded and measured values of the parts of the protocol that differ.
        scores: The scores that differ.
        compared: Number of scores that were compared.
        report: What :func:`zoo.evaluate.evaluate` returned.
    """

    protocol: dict[str, tuple[Any, Any]]
    scores: list[Difference]
    compared: int
    report: dict[str, Any]


def verify(
    model: Forecaster,
    metrics: Mapping[str, Any],
    *,
    root: Path | None = None,
    batch_size: int = 32,
    tolerance: float = TOLERANCE,
) -> Verification:
    """Measure a model again, and compare with its recorded scores.

    Args:
        model: The model.
        metrics: Its metrics.json, as ``zoo eval --save`` writes it. Without a protocol, the data
            and frames that it states are used, with the options of training.
        root: Folder of the data sets.
        batch_size: Sequences per batch; it does not change the scores.
        tolerance: Relative difference up to which scores are equal.

    Raises:
        HubError: If no scores are recorded.
        ConfigError: If fewer sequences exist than were measured.
        DataError: If the data are missing.
    """
    if missing := {"data", *FRAMES} - metrics.keys():
        raise HubError(f"metrics.json has no {min(missing)!r}; measure the model: zoo eval --save")
    names = {key for frames in FRAMES for by in metrics[frames].values() for key in by}
    data, recorded = metrics["data"], metrics.get("protocol", {})
    report = evaluate(
        model,
        dataset=data["name"],
        split=data["split"],
        options=_options(model, recorded),
        sequences=data["sequences"],
        input_frames=data["input_frames"],
        horizon=data["horizon"],
        batch_size=batch_size,
        root=root,
        thresholds=sorted({float(key.split("@")[1].split("/")[0]) for key in names if "@" in key}),
        windows=sorted({int(key.split("/")[1]) for key in names if "/" in key}),
        baselines=[name for name in metrics["forecast"] if name != "model"],
        lpips="lpips" in names,
    )
    if report["data"]["sequences"] < data["sequences"]:
        raise ConfigError(
            f"{data['name']} has {report['data']['sequences']:,} sequences here, "
            f"{data['sequences']:,} were measured; check the files: zoo data check {data['name']}"
        )
    scores = [
        Difference(frames, name, metric, value, report[frames][name].get(metric))
        for frames in FRAMES
        for name, by_metric in metrics[frames].items()
        for metric, value in by_metric.items()
    ]
    differing = [d for d in scores if not _is_equal(d.recorded, d.measured, tolerance)]
    return Verification(_changes(metrics, report), differing, len(scores), report)


def _options(model: Forecaster, recorded: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the recorded options of the data set, with the places of training."""
    trained = model.config.data
    if "options" not in recorded:
        return None  # those of training
    places = trained.options if trained.name == recorded["dataset"] else {}
    return {**recorded["options"], **{key: places[key] for key in PLACES if key in places}}


def _changes(metrics: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the parts of the protocol that differ, as recorded and as measured."""
    recorded, measured = metrics.get("protocol", {}), report["protocol"]
    if recorded.get("id") == measured["id"]:
        return {}
    return {
        key: (value, measured.get(key))
        for key, value in recorded.items()
        if value != measured.get(key)
    }


def _is_equal(recorded: float | None, measured: float | None, tolerance: float) -> bool:
    if recorded is None or measured is None:
        return recorded is measured
    return math.isclose(recorded, measured, rel_tol=tolerance, abs_tol=1e-9)

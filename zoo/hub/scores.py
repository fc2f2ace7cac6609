"""Scores of model folders, read from metrics.json, and their names in tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zoo.errors import HubError
from zoo.model_folder import read_metrics
from zoo.published import TABLES
from zoo.tables import MAIN_METRICS, data_title, format_score, metric_label

__all__ = [
    "PROTOCOLS",
    "full_title",
    "main_metrics",
    "measured",
    "numbers",
    "protocol_of",
    "protocols",
    "score_label",
    "shown",
]

PROTOCOLS = {"forecast": "forecast", "all-steps": "all steps"}


def measured(folder: Path) -> dict[str, Any]:
    """Read metrics.json of a model that was trained and evaluated.

    Raises:
        HubError: if it is not valid, or lacks the facts of the training or the scores.
    """
    metrics = read_metrics(folder)
    for key in ("training", "data", *PROTOCOLS):
        if metrics.get(key) is None:
            raise HubError(
                f"{folder / 'metrics.json'} has no {key!r}; zoo train and "
                f"zoo eval local-dir:{folder} --save write it"
            )
    return metrics


def protocol_of(metrics: dict[str, Any]) -> tuple[Any, ...]:
    """Return what is equal for models evaluated on the same data with the same protocol."""
    keys = ("name", "split", "sequences", "sha256", "input_frames", "horizon")
    data = (metrics.get("data", {}).get(key) for key in keys)
    return (*data, metrics.get("protocol", {}).get("id"))


def full_title(metrics: dict[str, Any]) -> str:
    """Return the full name of the data."""
    name: str = metrics["data"]["name"]
    has_table = name in TABLES and not metrics["data"].get("title")
    return TABLES[name].title if has_table else data_title(metrics)


def protocols(metrics: dict[str, Any]) -> tuple[str, ...]:
    """Return the frames that tables are about; all steps are for data with published tables."""
    return (*PROTOCOLS,) if metrics["data"]["name"] in TABLES else ("forecast",)


def main_metrics(metrics: dict[str, Any]) -> tuple[str, ...]:
    """Return the metrics of a short table; errors are in the unit of the data, if it has one."""
    scores = metrics["forecast"]["model"]
    if "rmse_unit" not in scores:
        return MAIN_METRICS
    skill = [name for name in scores if name.startswith("csi@")]
    crps = ["crps"] if "crps" in scores else []
    return ("rmse_unit", "mae_unit", *crps, *(skill or ("ssim", "psnr")))


def score_label(metric: str, metrics: dict[str, Any]) -> str:
    """Return the label of a metric, with the unit of the data if the metric has it."""
    has_unit = metric in ("rmse_unit", "mae_unit")
    return metric_label(metric, metrics.get("protocol", {}).get("unit") if has_unit else None)


def numbers(scores: dict[str, Any]) -> dict[str, float]:
    """Return the scores that are numbers."""
    return {name: value for name, value in scores.items() if isinstance(value, (int, float))}


def shown(metric: str, value: float | None) -> str:
    """Return a score as tables show it, or "" if there is none."""
    return "" if value is None else format_score(metric, value)

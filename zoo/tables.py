"""Tables of scores: the labels and digits of metrics, and Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = [
    "LABELS",
    "MAIN_METRICS",
    "SEASONAL",
    "data_title",
    "format_score",
    "markdown_table",
    "metric_label",
    "metrics_in",
    "scores_by_lead_time",
]

#: Metrics that every table shows.
MAIN_METRICS = ("mse", "mae", "ssim", "psnr")

#: How the names of seasonal baselines begin; the period follows, as in "seasonal 7d".
SEASONAL = "seasonal "

LABELS = {
    "mse": "MSE",
    "mae": "MAE",
    "ssim": "SSIM",
    "psnr": "PSNR",
    "gdl": "GDL",
    "lpips": "LPIPS",
    "b_mse": "B-MSE",
    "b_mae": "B-MAE",
    "crps": "CRPS",
    "spread_skill": "spread/error",
}

#: Decimals in tables; three for all other metrics, four for an MSE or MAE below 1.
DIGITS = {"mse": 2, "mae": 2, "psnr": 2, "gdl": 1}


#: Metrics that tables leave out; all others are shown.
HIDDEN = ("ssim_7x7", "gdl", "mse_mean", "mae_mean", "mse_unit", "mae_unit", "b_mse", "b_mae")

#: Metrics with a threshold, of which each table shows some.
THRESHOLDED = ("pod", "far", "csi", "hss", "bias", "fss", "brier")


def metrics_in(scores: Iterable[str], skill_scores: Sequence[str]) -> list[str]:
    """Return the metrics among `scores` that a table shows, in the order of its columns.

    Args:
        scores: Names of metrics, such as "mse" or "csi@2".
        skill_scores: Those to show for every threshold: "csi", "hss", "fss".
    """
    scores = list(scores)
    names = [name for name in (*MAIN_METRICS, "rmse_unit", "lpips") if name in scores]
    names += [
        name
        for name in scores
        if name not in (*names, *HIDDEN) and name.partition("@")[0] not in THRESHOLDED
    ]
    return names + [name for name in scores if name.partition("@")[0] in skill_scores]


def scores_by_lead_time(report: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the scores of every forecast frame in a report of :func:`zoo.evaluate.evaluate`.

    Returns:
        For "t+1", "t+2" and so on: by name of the model or baseline, the scores by metric.
    """
    first = report["data"]["input_frames"] - 1  # the predictions start with that of frame 1
    return {
        f"t+{lead + 1}": {
            name: {metric: values[first + lead] for metric, values in by_metric.items()}
            for name, by_metric in report["per_frame"].items()
        }
        for lead in range(report["data"]["horizon"])
    }


def data_title(report: Mapping[str, Any]) -> str:
    """Return the title of the data of a report of :func:`zoo.evaluate.evaluate`, or their name."""
    data = report["data"]
    return str(data.get("title") or data["name"])


def metric_label(metric: str, unit: str | None = None) -> str:
    """Return the label of a metric, with the unit of its values or of its threshold if given."""
    name, _, threshold = metric.partition("@")
    if threshold and unit is not None:
        threshold, _, window = threshold.partition("/")
        return f"{name.upper()} ≥ {threshold} {unit}" + (f", {window} px" if window else "")
    if name.endswith("_unit"):
        label = name.removesuffix("_unit").upper()
        return f"{label} in units" if unit is None else f"{label} / {unit}"
    if name == "psnr" and unit is not None:
        return "PSNR / dB"
    return LABELS.get(metric, metric.upper())


def format_score(metric: str, value: float | None) -> str:
    """Return a score as tables show it; "–" for one that is not defined."""
    if value is None:
        return "–"
    if metric in ("mse", "mae") and value < 1:
        return f"{value:.4f}"
    return f"{value:.{DIGITS.get(metric, 3)}f}"


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; line breaks and bars in its cells do not end them."""

    def cell(text: str) -> str:
        return " ".join(text.splitlines()).replace("|", "\\|")

    first, *rest = (f"| {' | '.join(map(cell, row))} |" for row in (head, *rows))
    return "\n".join([first, f"|{'---|' * len(head)}", *rest])

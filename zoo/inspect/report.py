"""An evaluation as files: tables, curves by lead time, a strip of frames."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo.atomic import atomic_path
from zoo.config import Data
from zoo.data.dataset import data_of
from zoo.evaluate import forecast_all
from zoo.forecast import Forecaster
from zoo.inspect.palettes import palette_for
from zoo.inspect.pictures import comparison_strip
from zoo.units import to_physical

__all__ = ["columns", "markdown_table", "write_report"]

#: Told apart without colour, too: baselines are grey and broken, models have marks.
COLOURS = ("#4477AA", "#EE6677", "#228833", "#AA3377", "#CCBB44", "#66CCEE")  # Tol's bright
MARKS = ("o", "s", "^", "D", "v", "P")
BASELINES = {"persistence": ":", "optical flow": "--"}
LABELS = {
    "mse": "MSE (sum of a frame)",
    "mae": "MAE (sum of a frame)",
    "ssim": "SSIM",
    "psnr": "PSNR / dB",
    "gdl": "GDL",
    "lpips": "LPIPS",
    "b_mse": "B-MSE",
    "b_mae": "B-MAE",
}
DIGITS = {"mse": 2, "mae": 2, "ssim": 3, "psnr": 2, "gdl": 1, "lpips": 3, "rmse_unit": 3}


def columns(figures: Mapping[str, Any]) -> list[str]:
    """The metrics that a table shows: the usual ones and what the data have beyond them."""
    chosen = ["mse", "mae", "ssim", "psnr"]
    chosen += [key for key in ("rmse_unit", "lpips") if key in figures]
    chosen += [key for key in figures if key.startswith(("csi@", "hss@", "fss@"))]
    return [key for key in chosen if key in figures]


def number(key: str, value: float | None) -> str:
    """A figure as a table shows it; "–" where it is not defined."""
    if value is None:
        return "–"
    small = key in ("mse", "mae") and value < 10
    return f"{value:.{4 if small else DIGITS.get(key, 3)}f}"


def title(key: str, unit: str = "") -> str:
    """A metric as people call it, with the unit of its threshold or itself."""
    name, _, threshold = key.partition("@")
    if threshold:
        at, _, window = threshold.partition("/")
        return f"{name.upper()} ≥ {at} {unit}".rstrip() + (f", {window} px" if window else "")
    if name.endswith("_unit"):
        return f"{name.removesuffix('_unit').upper()} / {unit}"
    return LABELS.get(name, name).split(" (")[0] if name in LABELS else name


def markdown_table(report: Mapping[str, Any], frames: str = "forecast") -> str:
    """The figures over the forecast frames, or "all-steps", as Markdown."""
    rows = report[frames]
    keys = columns(next(iter(rows.values())))
    unit = report["protocol"]["unit"]
    lines = [
        f"| forecast by | {' | '.join(title(key, unit) for key in keys)} |",
        "|---" * (len(keys) + 1) + "|",
    ]
    for who, figures in rows.items():
        lines.append(f"| {who} | {' | '.join(number(key, figures[key]) for key in keys)} |")
    return "\n".join(lines)


def write_report(
    folder: Path,
    report: Mapping[str, Any],
    models: Mapping[str, Forecaster],
    baselines: Sequence[str],
    dataset: Any,
    *,
    example: int | None = None,
) -> None:
    """Write report.json, report.csv, table.md, curves.png, cumulated.png and strip.png.

    Args:
        folder: where to; it must exist.
        report: what :func:`zoo.evaluate.evaluate` returned.
        models, baselines: those of the report, for the strip.
        dataset: that of the report.
        example: the sequence of the strip; by default the one in the middle.
    """
    with atomic_path(folder / "report.json") as path:
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    _write_csv(folder / "report.csv", report)
    data = report["data"]
    given, horizon = data["input_frames"], data["horizon"]
    text = (
        f"{data['sequences']:,} {data['split']} sequences of {data['name']}, {given} frames in, "
        f"{horizon} out; protocol {report['protocol']['id']}.\n\n{markdown_table(report)}\n"
    )
    with atomic_path(folder / "table.md") as path:
        path.write_text(text, encoding="utf-8")
    record = data_of(dataset)
    _draw_curves(folder / "curves.png", report, record)
    if "counts" in report:
        _draw_cumulated(folder / "cumulated.png", report, record)
    index = data["sequences"] // 2 if example is None else example
    frames = dataset[index][None]  # (1, T, C, H, W)
    made = forecast_all(models, baselines, frames[:, :given], horizon, record)
    shown = {
        who: to_physical(forecast[0, -horizon:].cpu(), record).numpy()
        for who, forecast in made.items()
    }
    physical = to_physical(frames[0], record).numpy()
    palette = palette_for(record, physical)
    channels, note = physical.shape[1], ""
    if channels not in (1, 3) or palette.shade != "grey" or palette.levels:
        note = f"channel 1 of {channels}" if channels > 1 else ""
        physical = physical[:, :1]  # (T, 1, H, W): the first channel
        shown = {who: values[:, :1] for who, values in shown.items()}
    low, high = record.limits
    picture = comparison_strip(
        physical[:given],
        physical[given:],
        shown,
        low=low,
        high=high,
        palette=palette,
        time_step=record.time_step,
        note=note,
    )
    with atomic_path(folder / "strip.png") as path:
        picture.save(path, "PNG")


def _write_csv(path: Path, report: Mapping[str, Any]) -> None:
    """One figure a line: which frames, lead time, whose, metric, value."""
    given = report["data"]["input_frames"]
    identity = report["protocol"]["id"]
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["protocol", "frames", "lead", "forecast_by", "metric", "value"])
        for frames in ("forecast", "all-steps"):
            for who, figures in report[frames].items():
                for key, value in figures.items():
                    writer.writerow(
                        [identity, frames, "", who, key, "" if value is None else value]
                    )
        for who, figures in report["per_frame"].items():
            for key, values in figures.items():
                for step, value in enumerate(values):
                    lead = step - given + 2  # 1 is the first forecast frame
                    kind = "forecast" if lead >= 1 else "warm-up"
                    writer.writerow(
                        [identity, kind, lead, who, key, "" if value is None else value]
                    )


def _leads(report: Mapping[str, Any], record: Data) -> tuple[np.ndarray, str]:
    """Lead times of the forecast frames, and what the axis is called."""
    steps = np.arange(1, report["data"]["horizon"] + 1)
    if record.time_step is None or record.time_step < 1:
        return steps, "lead time / frames"
    return steps * record.time_step / 60, "lead time / min"


def _draw_curves(path: Path, report: Mapping[str, Any], record: Data) -> None:
    """A panel for every metric of the table, by lead time."""
    horizon = report["data"]["horizon"]
    keys = columns(next(iter(report["per_frame"].values())))
    curves = {
        key: {who: figures[key][-horizon:] for who, figures in report["per_frame"].items()}
        for key in keys
    }
    _draw(path, report, record, {title(key, record.unit): curves[key] for key in keys})


def _draw_cumulated(path: Path, report: Mapping[str, Any], record: Data) -> None:
    """CSI and HSS of the counts of all frames up to each lead time."""
    from zoo.metrics import skill

    horizon = report["data"]["horizon"]
    panels: dict[str, dict[str, list[float | None]]] = {}
    for name in ("csi", "hss"):
        for threshold in next(iter(report["counts"].values())):
            panels[f"{name.upper()} ≥ {threshold} {record.unit}, cumulated"] = {
                who: [
                    skill(row)[name]
                    for row in np.cumsum(np.array(counts[threshold])[-horizon:], axis=0)
                ]
                for who, counts in report["counts"].items()
            }
    _draw(path, report, record, panels)


def _draw(
    path: Path,
    report: Mapping[str, Any],
    record: Data,
    panels: Mapping[str, Mapping[str, Sequence[float | None]]],
) -> None:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    leads, axis = _leads(report, record)
    across = min(4, len(panels))
    down = -(-len(panels) // across)
    figure = Figure(figsize=(3.1 * across, 2.5 * down + 0.5), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False)
    for place in grid.flat[len(panels) :]:
        place.axis("off")
    for place, (name, curves) in zip(grid.flat, panels.items(), strict=False):
        models = [who for who in curves if who not in BASELINES]
        for who, values in curves.items():
            known = [np.nan if value is None else value for value in values]
            if who in BASELINES:
                style: dict[str, Any] = {"color": "#777777", "linestyle": BASELINES[who]}
            else:
                i = models.index(who)
                style = {"color": COLOURS[i % len(COLOURS)], "marker": MARKS[i % len(MARKS)]}
            place.plot(leads, known, label=who, linewidth=1.6, markersize=4, **style)
        place.set_title(name, fontsize=10)
        place.set_xlabel(axis, fontsize=9)
        place.tick_params(labelsize=8)
        if len(leads) <= 6:
            place.set_xticks(leads)
        else:
            place.xaxis.set_major_locator(MaxNLocator(6))
        place.spines[["top", "right"]].set_visible(False)
        place.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(5, len(labels)), fontsize=9
    )
    data = report["data"]
    figure.suptitle(
        f"{data['name']}, {data['sequences']:,} {data['split']} sequences, "
        f"protocol {report['protocol']['id']}",
        fontsize=9,
        color="#555555",
    )
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130)

"""The report of an evaluation as files: tables, curves by lead time, a strip of frames."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.atomic import atomic_path, write_json
from zoo.baselines import earlier_frames
from zoo.config import Data
from zoo.data.dataset import times_of
from zoo.evaluate import forecast_all
from zoo.forecast import Forecaster
from zoo.inspect.ensembles import draw_ensembles
from zoo.inspect.figures import save_figure
from zoo.inspect.palettes import Palette, palette_for
from zoo.inspect.pictures import comparison_gif, comparison_strip
from zoo.metrics import skill_scores
from zoo.protocol import EvalData
from zoo.tables import SEASONAL, data_title, format_score, markdown_table, metric_label, metrics_in
from zoo.units import to_physical

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

__all__ = ["Example", "curves_figure", "forecast_example", "score_table", "write_report"]

#: Curves differ without color, too: models have markers, baselines are gray and dashed.
COLORS = ("#4477AA", "#EE6677", "#228833", "#AA3377", "#CCBB44", "#66CCEE")  # Tol's bright
MARKERS = ("o", "s", "^", "D", "v", "P")
LineStyle = str | tuple[int, tuple[int, int]]
BASELINE_STYLES: dict[str, LineStyle] = {
    "persistence": ":",
    "extrapolation": "-",
    "optical flow": "--",
    "STEPS": "-.",
    SEASONAL: (0, (1, 3)),
}

#: Skill scores shown in the table and the curves.
SKILL_SCORES = ("csi", "hss", "fss", "brier")


def score_table(report: Mapping[str, Any], frames: str = "forecast") -> str:
    """Return the scores over the forecast frames, or over "all-steps", as Markdown."""
    scores, unit = report[frames], report["protocol"]["unit"]
    metrics = metrics_in(next(iter(scores.values())), SKILL_SCORES)
    return markdown_table(
        ["forecast by", *(metric_label(metric, unit) for metric in metrics)],
        [
            [name, *(format_score(metric, values[metric]) for metric in metrics)]
            for name, values in scores.items()
        ],
    )


def write_report(
    folder: Path,
    report: Mapping[str, Any],
    models: Mapping[str, Forecaster],
    baselines: Sequence[str],
    evaluated: EvalData,
    *,
    example: int | None = None,
) -> None:
    """Write report.json, report.csv, table.md, curves.png, cumulated.png, strip.png and strip.gif.

    Reports of ensembles have ensemble.png, too.

    Args:
        folder: Output folder; it must exist.
        report: What :func:`zoo.evaluate.evaluate` returned.
        models: The models of the report, for the strip.
        baselines: Its baselines.
        evaluated: Its data.
        example: Index of the sequence in the strip and in its animation; by default the one in the
            middle.
    """
    write_json(folder / "report.json", report)
    _write_csv(folder / "report.csv", report)
    text = (
        f"{evaluated.sequences:,} {evaluated.split} sequences of {data_title(report)}, "
        f"{evaluated.input_frames} frames in, {evaluated.horizon} out; protocol "
        f"{report['protocol']['id']}.\n\n{score_table(report)}\n"
    )
    with atomic_path(folder / "table.md") as path:
        path.write_text(text, encoding="utf-8")
    save_figure(curves_figure(report, evaluated.data), folder / "curves.png")
    if "ensemble" in report:
        leads, label = _leads(evaluated.horizon, evaluated.data)
        picture = folder / "ensemble.png"
        draw_ensembles(picture, report["ensemble"], leads, label, evaluated.data)
    if "counts" in report:
        save_figure(_cumulated_figure(report, evaluated.data), folder / "cumulated.png")
    drawn = forecast_example(models, baselines, evaluated, example)
    with atomic_path(folder / "strip.png") as temporary:
        drawn.strip().save(temporary, "PNG")
    drawn.animate(folder / "strip.gif")


def _write_csv(path: Path, report: Mapping[str, Any]) -> None:
    """Write one score per line."""
    rows: list[tuple[str, int | str, str, str, float | None]] = []
    for frames in ("forecast", "all-steps"):
        for name, scores in report[frames].items():
            rows += [(frames, "", name, metric, value) for metric, value in scores.items()]
    for name, by_metric in report["per_frame"].items():
        for metric, values in by_metric.items():
            for step, value in enumerate(values):
                lead = step - report["data"]["input_frames"] + 2  # 1 is the first forecast frame
                rows.append(("forecast" if lead >= 1 else "warm-up", lead, name, metric, value))
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["protocol", "frames", "lead", "forecast_by", "metric", "value"])
        writer.writerows([report["protocol"]["id"], *row] for row in rows)  # None is written as ""


@dataclass(frozen=True)
class Example:
    """One sequence and its forecasts, in the unit of the data.

    Attributes:
        past: The input frames (T, C, H, W), of the channels that are forecast.
        truth: The frames that followed.
        forecasts: Forecasts by name.
        data: The meaning of the values.
        palette: The colors to draw them with.
        note: What else to say about them.
    """

    past: np.ndarray
    truth: np.ndarray
    forecasts: dict[str, np.ndarray]
    data: Data
    palette: Palette
    note: str

    def strip(self) -> Image.Image:
        """Draw the truth, the forecasts and their differences in rows."""
        return comparison_strip(
            self.past, self.truth, self.forecasts, note=self.note, **self._drawing
        )

    def animate(self, path: Path) -> None:
        """Write the truth and the forecasts as a moving picture, .gif or .mp4."""
        comparison_gif(path, self.past, self.truth, self.forecasts, **self._drawing)

    @property
    def _drawing(self) -> dict[str, Any]:
        """How both pictures draw values and times."""
        low, high = self.data.limits
        step = self.data.time_step
        return {"low": low, "high": high, "palette": self.palette, "time_step": step}


def forecast_example(
    models: Mapping[str, Forecaster],
    baselines: Sequence[str],
    evaluated: EvalData,
    example: int | None = None,
) -> Example:
    """Forecast one sequence with all models and baselines.

    Args:
        models: The models by name.
        baselines: Names of the baselines.
        evaluated: The data.
        example: Index of the sequence; by default the one in the middle.
    """
    index = evaluated.sequences // 2 if example is None else example
    data, given, horizon = evaluated.data, evaluated.input_frames, evaluated.horizon
    frames = evaluated.dataset[index][None]  # (1, T, C, H, W)
    times = times_of(evaluated.dataset, [index])
    earlier = earlier_frames(evaluated.dataset, [index], baselines, horizon)
    made = forecast_all(models, baselines, frames, given, data, times, earlier=earlier)
    forecasts = {
        name: to_physical(forecast[0, 0, -horizon:].cpu(), data).numpy()  # the first member
        for name, forecast in made.items()
    }
    forecast_channels = next(iter(made.values())).shape[3]
    physical = to_physical(frames[0, :, :forecast_channels], data).numpy()  # (T, C, H, W)
    palette = palette_for(data, physical)
    channels, note = physical.shape[1], ""
    if channels not in (1, 3) or palette.shade != "gray" or palette.levels:
        note = f"channel 1 of {channels}" if channels > 1 else ""
        physical = physical[:, :1]  # (T, 1, H, W)
        forecasts = {name: values[:, :1] for name, values in forecasts.items()}
    return Example(physical[:given], physical[given:], forecasts, data, palette, note)


def curves_figure(report: Mapping[str, Any], data: Data) -> Figure:
    """Draw a panel by lead time for every metric of the table."""
    horizon, per_frame = report["data"]["horizon"], report["per_frame"]
    metrics = metrics_in(next(iter(per_frame.values())), SKILL_SCORES)
    panels = {
        metric_label(metric, data.unit): {
            name: values[metric][-horizon:] for name, values in per_frame.items()
        }
        for metric in metrics
    }
    return _draw_panels(report, data, panels)


def _cumulated_figure(report: Mapping[str, Any], data: Data) -> Figure:
    """Draw CSI and HSS of the counts of all frames up to each lead time."""
    horizon = report["data"]["horizon"]
    panels: dict[str, dict[str, list[float | None]]] = {}
    for metric in ("csi", "hss"):
        for threshold in next(iter(report["counts"].values())):
            panels[f"{metric_label(f'{metric}@{threshold}', data.unit)}, cumulated"] = {
                name: [
                    skill_scores(row)[metric]
                    for row in np.cumsum(np.array(counts[threshold])[-horizon:], axis=0)
                ]
                for name, counts in report["counts"].items()
            }
    return _draw_panels(report, data, panels)


def _draw_panels(
    report: Mapping[str, Any],
    data: Data,
    panels: Mapping[str, Mapping[str, Sequence[float | None]]],
) -> Figure:
    """Draw curves by lead time.

    Args:
        report: The report.
        data: Its data.
        panels: By title of a panel and name of a forecast, values for all lead times.
    """
    from matplotlib.figure import Figure

    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.1 * columns, 2.5 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.axis("off")
    leads, label = _leads(report["data"]["horizon"], data)
    for axes, (title, curves) in zip(grid.flat, panels.items(), strict=False):
        _draw_panel(axes, title, curves, leads, label)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(5, len(labels)), fontsize=9
    )
    about = report["data"]
    figure.suptitle(
        f"{data_title(report)}, {about['sequences']:,} {about['split']} sequences, "
        f"protocol {report['protocol']['id']}",
        fontsize=9,
        color="#555555",
    )
    return figure


def _leads(horizon: int, data: Data) -> tuple[np.ndarray, str]:
    """Return the lead times of the forecast frames, and a label for their axis."""
    steps = np.arange(1, horizon + 1)
    if data.time_step is None or data.time_step < 1:
        return steps, "lead time / frames"
    return steps * data.time_step / 60, "lead time / min"


def _line_style(name: str) -> LineStyle | None:
    """Return the line style of a baseline; None for a model."""
    return BASELINE_STYLES.get(SEASONAL if name.startswith(SEASONAL) else name)


def _draw_panel(
    axes: Any,
    title: str,
    curves: Mapping[str, Sequence[float | None]],
    leads: np.ndarray,
    label: str,
) -> None:
    from matplotlib.ticker import MaxNLocator

    lines = {name: _line_style(name) for name in curves}
    models = [name for name, line in lines.items() if line is None]
    for name, values in curves.items():
        if line := lines[name]:
            style: dict[str, Any] = {"color": "#777777", "linestyle": line}
        else:
            i = models.index(name)
            style = {"color": COLORS[i % len(COLORS)], "marker": MARKERS[i % len(MARKERS)]}
        known = [np.nan if value is None else value for value in values]
        axes.plot(leads, known, label=name, linewidth=1.6, markersize=4, **style)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(label, fontsize=9)
    axes.tick_params(labelsize=8)
    if len(leads) <= 6:
        axes.set_xticks(leads)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)

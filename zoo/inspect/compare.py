"""Models next to each other: scores, forecasts and costs on one self-contained page."""

from __future__ import annotations

import base64
import html
import io
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from zoo.atomic import atomic_path
from zoo.forecast import Forecaster
from zoo.inspect.report import COLORS, MARKERS, curves_figure, forecast_example
from zoo.protocol import EvalData
from zoo.tables import format_score, metric_label, metrics_in

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Costs", "costs_figure", "measure_seconds", "write_comparison"]

#: Labels of the axes of the radar chart and rows of the table, with the unit and its size.
COSTS = {
    "parameters": ("parameters", "M", 1e6),
    "macs": ("multiply-accumulates", "G", 1e9),
    "memory": ("memory of a training step (model)", "MB", 1e6),
    "seconds": ("time of a forecast", "s", 1.0),
}

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem;
  color: #28292e; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; } td, th { padding: .25rem .8rem; text-align: right; }
th:first-child, td:first-child { text-align: left; } thead { border-bottom: 2px solid #888; }
tr + tr { border-top: 1px solid #ddd; } .wide { overflow-x: auto; }
img, svg { max-width: 100%; height: auto; }
pre { background: #f4f4f2; padding: .8rem; overflow-x: auto; }
"""


@dataclass(frozen=True)
class Costs:
    """What one forecast of a model takes.

    Attributes:
        parameters: Number of weights.
        macs: Multiply-accumulates of one forecast of one sequence.
        memory: Bytes that a training step keeps for one sequence, by the memory model.
        seconds: Measured time of one forecast of one sequence.
    """

    parameters: int
    macs: int
    memory: int
    seconds: float


def measure_seconds(
    models: Mapping[str, Forecaster], past: Tensor, horizon: int, repeats: int = 5
) -> dict[str, float]:
    """Measure the time of a forecast, interleaved, as the median of several runs.

    Args:
        models: The models by name.
        past: (B, T, C, H, W), scaled to [0, 1].
        horizon: Number of frames to forecast.
        repeats: Runs per model, after one that does not count.
    """
    times: dict[str, list[float]] = {name: [] for name in models}
    with torch.inference_mode():
        for _ in range(repeats + 1):
            for name, model in models.items():
                frames = past.to(next(model.parameters()).device)
                start = time.perf_counter()
                float(model.eval()(frames, horizon)[0, -1].sum())  # waits for the device
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def costs_figure(costs: Mapping[str, Costs], errors: Mapping[str, float], label: str) -> Figure:
    """Draw costs and error of all models as a radar chart; smaller is better on every axis.

    Args:
        costs: The costs by model.
        errors: An error by model, such as the MSE.
        label: Name of that error.
    """
    from matplotlib.figure import Figure

    values = {name: [*asdict(cost).values(), errors[name]] for name, cost in costs.items()}
    largest = np.max(list(values.values()), axis=0)
    axes_labels = [*(name for name, _, _ in COSTS.values()), label]
    angles = np.linspace(0, 2 * np.pi, len(axes_labels), endpoint=False)
    figure = Figure(figsize=(6, 4.6), layout="constrained")
    axes = figure.add_subplot(projection="polar")
    for i, (name, row) in enumerate(values.items()):
        shares = np.divide(row, largest, out=np.zeros(len(row)), where=largest > 0)
        style: dict[str, Any] = {"color": COLORS[i % len(COLORS)], "linewidth": 1.6}
        closed = np.append(angles, angles[0]), np.append(shares, shares[0])
        axes.plot(*closed, marker=MARKERS[i % len(MARKERS)], label=name, **style)
        axes.fill(*closed, color=style["color"], alpha=0.08)
    axes.set_xticks(angles, axes_labels, fontsize=8)
    axes.set_yticks([0.25, 0.5, 0.75, 1.0], ["", "½", "", "largest"], fontsize=7, color="#555555")
    axes.set_ylim(0, 1.05)
    axes.tick_params(axis="x", pad=16)
    axes.spines["polar"].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def write_comparison(
    path: Path,
    report: Mapping[str, Any],
    models: Mapping[str, Forecaster],
    baselines: Sequence[str],
    evaluated: EvalData,
    costs: Mapping[str, Costs],
    *,
    command: str,
    example: int | None = None,
) -> None:
    """Write a page with scores, curves, forecasts of one sequence, and costs.

    The page is one HTML file that loads nothing else.

    Args:
        path: Output file.
        report: What :func:`zoo.evaluate.evaluate` returned for these models.
        models: The models by name.
        baselines: The baselines of the report.
        evaluated: Its data.
        costs: The costs by model.
        command: The command that makes the page.
        example: Index of the sequence to show; by default the one in the middle.
    """
    about, scores = report["data"], report["forecast"]
    errors = {name: scores[name]["mse"] for name in models}
    title = f"{', '.join(models)} on {about['name']}"
    strip = io.BytesIO()
    forecast_example(models, baselines, evaluated, example).strip().save(strip, "PNG")
    image = base64.b64encode(strip.getvalue()).decode("ascii")
    metrics = metrics_in(next(iter(scores.values())), ("csi", "fss"))
    unit = report["protocol"]["unit"]
    sections = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{about['sequences']:,} {about['split']} sequences, {about['input_frames']} frames in, "
        f"{about['horizon']} out; protocol {report['protocol']['id']}.</p>",
        "<h2>Scores of the forecast frames</h2>",
        _table(
            ["forecast by", *(metric_label(metric, unit) for metric in metrics)],
            [
                [name, *(format_score(metric, row[metric]) for metric in metrics)]
                for name, row in scores.items()
            ],
        ),
        "<h2>Scores by lead time</h2>",
        _svg(curves_figure(report, evaluated.data)),
        "<h2>One sequence</h2>",
        f'<div class="wide"><img alt="input, truth and forecasts of one sequence" '
        f'src="data:image/png;base64,{image}"></div>',
        "<h2>Costs and error</h2>",
        "<p>Each axis is a share of the largest value; smaller is better.</p>",
        _svg(costs_figure(costs, errors, metric_label("mse", unit))),
        _table(
            ["", *(f"{name} / {unit}" for name, unit, _ in COSTS.values())],
            [
                [name, *(f"{getattr(cost, key) / size:.3g}" for key, (_, _, size) in COSTS.items())]
                for name, cost in costs.items()
            ],
        ),
        "<h2>Command</h2>",
        f"<pre>{html.escape(command)}</pre>",
    ]
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(sections)
        + "\n</body>\n</html>\n"
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table."""

    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "\n".join(row(cells, "td") for cells in rows)
    head = f"<thead>{row(columns, 'th')}</thead>"
    return f'<div class="wide"><table>\n{head}\n<tbody>\n{body}\n</tbody></table></div>'


def _svg(figure: Figure) -> str:
    """The figure as an SVG element."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    return text[text.index("<svg") :]

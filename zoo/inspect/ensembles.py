"""Pictures of ensembles: ranks, spread and error, reliability, power spectra."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zoo.atomic import atomic_path
from zoo.config import Data

__all__ = ["draw_ensembles"]

COLORS = ("#4477AA", "#EE6677", "#228833", "#AA3377", "#CCBB44", "#66CCEE")  # Tol's bright
GRAY = "#777777"


def draw_ensembles(
    path: Path,
    ensembles: Mapping[str, Mapping[str, Any]],
    leads: np.ndarray,
    label: str,
    data: Data,
) -> None:
    """Draw the ensembles of a report.

    Args:
        path: Output file.
        ensembles: What :func:`zoo.evaluate.evaluate` returned as "ensemble".
        leads: Lead times of the forecast frames.
        label: Label of their axis.
        data: The meaning of the values.
    """
    from matplotlib.figure import Figure

    real = {name: value for name, value in ensembles.items() if value["members"] > 1}
    colors = dict(zip(real, COLORS * len(real), strict=False))
    thresholds = list(next(iter(real.values()))["reliability"])
    complete = any("truth" in ensemble["spectra"] for ensemble in ensembles.values())
    count = 2 + complete + len(thresholds)
    columns = min(3, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(3.4 * columns, 2.9 * rows), layout="constrained")
    axes = [*figure.subplots(rows, columns, squeeze=False).flat]
    for empty in axes[count:]:
        empty.axis("off")
    _draw_ranks(axes[0], real, colors)
    _draw_spread(axes[1], real, colors, leads, label, data)
    if complete:  # frames with missing values have no spectrum
        _draw_spectra(axes[2], ensembles, colors)
    for panel, threshold in zip(axes[2 + complete :], thresholds, strict=False):
        _draw_reliability(panel, real, colors, threshold, data)
    for panel in axes[:count]:
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130)


def _draw_ranks(axes: Any, ensembles: Mapping[str, Any], colors: Mapping[str, str]) -> None:
    """Draw how often the truth had each rank, as a multiple of a uniform histogram."""
    for name, ensemble in ensembles.items():
        ranks = np.array(ensemble["ranks"])
        shares = ranks / max(ranks.sum(), 1) * len(ranks)
        places = np.linspace(0, 1, len(ranks))
        axes.step(places, shares, where="mid", color=colors[name], label=name)
    axes.axhline(1, color=GRAY, linewidth=0.8, linestyle=":")
    axes.set_ylim(bottom=0)
    axes.set_title("rank of the truth", fontsize=10)
    axes.set_xlabel("rank / members", fontsize=9)
    axes.legend(fontsize=8, frameon=False)


def _draw_spread(
    axes: Any,
    ensembles: Mapping[str, Any],
    colors: Mapping[str, str],
    leads: np.ndarray,
    label: str,
    data: Data,
) -> None:
    """Draw the spread of the members and the error of their mean by lead time."""
    for name, ensemble in ensembles.items():
        error, spread = (_numbers(ensemble[key]) for key in ("error", "spread"))
        axes.plot(leads, error, color=colors[name], marker="o", markersize=3, label="error of mean")
        axes.plot(leads, spread, color=colors[name], linestyle="--", label="spread")
    axes.set_ylim(bottom=0)
    unit = "" if data.is_picture else f" / {data.unit}"
    axes.set_title(f"spread and error{unit}", fontsize=10)
    axes.set_xlabel(label, fontsize=9)
    axes.legend(*_unique(axes), fontsize=8, frameon=False)


def _draw_spectra(axes: Any, ensembles: Mapping[str, Any], colors: Mapping[str, str]) -> None:
    """Draw the power spectra at the last lead time."""
    spectra = {name: ensemble["spectra"] for name, ensemble in ensembles.items()}
    for number, (name, curves) in enumerate(spectra.items()):
        if number == 0 and "truth" in curves:
            axes.loglog(_power(curves["truth"]), color="black", label="truth")
        color = colors.get(name, GRAY)
        if "members" in curves:
            axes.loglog(_power(curves["members"]), color=color, label=name)
        if name in colors and "mean" in curves:
            axes.loglog(_power(curves["mean"]), color=color, linestyle=":", label=f"{name}, mean")
    axes.set_title("power, last frame", fontsize=10)
    axes.set_xlabel("wavenumber", fontsize=9)
    axes.legend(fontsize=8, frameon=False)


def _draw_reliability(
    axes: Any,
    ensembles: Mapping[str, Any],
    colors: Mapping[str, str],
    threshold: str,
    data: Data,
) -> None:
    """Draw how often events happened for each forecast probability."""
    for name, ensemble in ensembles.items():
        pixels, events = np.array(ensemble["reliability"][threshold], float).T
        seen = pixels > 0
        probability = np.linspace(0, 1, len(pixels))[seen]
        axes.plot(
            probability, events[seen] / pixels[seen], color=colors[name], marker="o", markersize=3
        )
    axes.plot([0, 1], [0, 1], color=GRAY, linewidth=0.8, linestyle=":")
    unit = "" if data.is_picture else f" {data.unit}"
    axes.set_title(f"reliability ≥ {threshold}{unit}", fontsize=10)
    axes.set_xlabel("forecast probability", fontsize=9)


def _power(curve: list[float]) -> np.ndarray:
    """Return the power from wavenumber 1 on, with NaN at 0, which a logarithmic axis leaves out."""
    return np.array([np.nan, *curve[1:]])


def _numbers(values: list[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values])


def _unique(axes: Any) -> tuple[list[Any], list[str]]:
    """Return the handles and labels of a legend without repetition."""
    handles, labels = axes.get_legend_handles_labels()
    first = dict(zip(reversed(labels), reversed(handles), strict=True))
    return [*first.values()][::-1], [*first][::-1]

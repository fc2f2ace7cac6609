"""Figures of what happens inside a network, drawn with Matplotlib."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from einops import rearrange

from zoo.atomic import atomic_path
from zoo.data.files import write_frames
from zoo.errors import ConfigError
from zoo.inspect.gradients import Field
from zoo.inspect.pictures import evenly_spaced, frame_time

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

__all__ = [
    "ANIMATED",
    "FIGURES",
    "attribution_figure",
    "fields_figure",
    "gates_figure",
    "layers_figure",
    "save_figure",
    "write_layers_animation",
]

#: Formats of figures and of animations.
FIGURES, ANIMATED = (".png", ".pdf", ".svg"), (".gif", ".mp4")

COLUMNS = 8  # steps or frames shown of a long sequence
SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"
GREY = "#555555"


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure atomically, as .png, .pdf or .svg."""
    with atomic_path(path) as temporary:
        # Without a date, the same figure gives the same file.
        metadata = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}.get(path.suffix.lower())
        figure.savefig(temporary, format=path.suffix[1:].lower(), dpi=150, metadata=metadata)


def layers_figure(
    outputs: xarray.Dataset,
    frames: np.ndarray,
    *,
    channel: int | None = None,
    sample: int = 0,
    title: str = "",
) -> Figure:
    """Draw the output of every layer, one row a layer and one column a step.

    Args:
        outputs: What :func:`zoo.inspect.features` returned.
        frames: (T, H, W), the frame that the network reads at each step, for the top row.
        channel: The channel to show; by default the mean of all channels.
        sample: Which of several sequences to show.
        title: Title of the figure.

    Raises:
        ConfigError: If a layer does not have that channel.
    """
    grids = _grids(outputs, channel, sample)
    steps = evenly_spaced(len(frames), COLUMNS)
    times = outputs["time"].values
    figure, axes = _panels(len(grids) + 1, len(steps), title)
    low, high = np.nanmin(frames), np.nanmax(frames)
    for column, t in enumerate(steps):
        axes[0, column].imshow(frames[t], "gray", vmin=low, vmax=high)
        kind = "reads input" if times[t] <= 0 else "reads forecast"
        axes[0, column].set_title(f"{frame_time(times[t])}\n{kind}", fontsize=7, color=GREY)
    _label(axes[0, 0], "frame")
    for row, (name, values) in enumerate(grids.items(), start=1):
        low, high = np.quantile(values, (0.01, 0.99))
        for column, t in enumerate(steps):
            image = axes[row, column].imshow(values[t], SEQUENTIAL, vmin=low, vmax=high)
        _label(axes[row, 0], f"{name}\n{values.shape[1]}×{values.shape[2]}")
        bar = figure.colorbar(image, ax=list(axes[row]), pad=0.01, fraction=0.02)
        bar.ax.tick_params(labelsize=6)
    return figure


def write_layers_animation(
    path: Path,
    outputs: xarray.Dataset,
    frames: np.ndarray,
    *,
    channel: int | None = None,
    sample: int = 0,
    title: str = "",
) -> None:
    """Animate the outputs of all layers, side by side, as .gif or .mp4.

    The arguments are those of :func:`layers_figure`, after the output file.
    """
    grids = _grids(outputs, channel, sample)
    figure, axes = _panels(1, len(grids) + 1, title, side=1.4)
    images = [axes[0, 0].imshow(frames[0], "gray", vmin=np.nanmin(frames), vmax=np.nanmax(frames))]
    for column, (name, values) in enumerate(grids.items(), start=1):
        low, high = np.quantile(values, (0.01, 0.99))
        images.append(axes[0, column].imshow(values[0], SEQUENTIAL, vmin=low, vmax=high))
        axes[0, column].set_title(name, fontsize=8)
    pictures = []
    for t, time in enumerate(outputs["time"].values):
        for image, values in zip(images, (frames, *grids.values()), strict=True):
            image.set_data(values[t])
        kind = "reads input" if time <= 0 else "reads forecast"
        axes[0, 0].set_title(f"{frame_time(time)}, {kind}", fontsize=8)
        pictures.append(_rasterized(figure))
    write_frames(path, np.stack(pictures), fps=4, low=0, high=255)


def fields_figure(
    fields: Sequence[Field], influence: np.ndarray | None = None, title: str = ""
) -> Figure:
    """Draw receptive fields as heat maps, and which past frames matter.

    A circle holds 95 % of the mass of the effective field; a dashed box is the theoretical field.

    Args:
        fields: What :func:`zoo.inspect.fields` returned.
        influence: (horizon, T), what :func:`zoo.inspect.lag_influence` returned.
        title: Title of the figure.
    """
    from matplotlib.patches import Circle, Rectangle

    panels = len(fields) + (influence is not None)
    columns = min(4, panels)
    figure, axes = _panels(-(-panels // columns), columns, title, side=2.4)
    for axis in axes.flat[panels:]:
        axis.set_visible(False)
    for axis, field in zip(axes.flat, fields, strict=False):
        peak = field.heat.max() or 1.0
        image = axis.imshow(np.sqrt(field.heat / peak), "magma", vmin=0, vmax=1)
        y, x = field.center
        height, width = field.theoretical
        corner = (x - width / 2, y - height / 2)
        style: dict[str, Any] = {"fill": False, "edgecolor": "white", "linewidth": 0.9}
        axis.add_patch(Rectangle(corner, width, height, linestyle="--", **style))
        if np.isfinite(field.radius):
            axis.add_patch(Circle((x, y), field.radius, **style))
        radius = f"{field.radius:.1f}" if np.isfinite(field.radius) else "none"
        axis.set_title(f"{field.name}\n95 % radius {radius}, box {height}×{width}", fontsize=8)
    bar = figure.colorbar(image, ax=list(axes.flat), fraction=0.02, pad=0.01)
    bar.set_label("√(gradient / largest gradient)", fontsize=7)
    bar.ax.tick_params(labelsize=6)
    if influence is not None:
        _draw_influence(axes.flat[len(fields)], influence)
    return figure


def gates_figure(recorded: xarray.Dataset, title: str = "") -> Figure:
    """Draw saturation of the gates, their values, and the size of states, per layer.

    Args:
        recorded: What :func:`zoo.inspect.gates` returned.
        title: Title of the figure.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    layers, times = recorded.sizes["layer"], recorded["time"].values
    figure = Figure(figsize=(9, 1.5 * layers + 0.6), layout="constrained")
    figure.suptitle(title, fontsize=10)
    axes = figure.subplots(layers, 3, squeeze=False, sharex="col")
    for layer, (over_time, values, sizes) in enumerate(axes):
        row = recorded.isel(layer=layer)
        over_time.plot(times, row["closed"], color="#4477AA", label="closed (below 0.1)")
        over_time.plot(times, row["open"], color="#EE6677", label="open (above 0.9)")
        over_time.plot(times, row["mean"], color=GREY, linestyle=":", label="mean gate")
        over_time.set_ylim(0, 1)
        _label(over_time, f"layer {layer}")
        values.bar(recorded["value"], row["histogram"], width=1 / recorded.sizes["value"])
        values.set_yticks([])
        for part in range(recorded.sizes["part"]):
            state = row["state"].isel(part=part)
            if np.isfinite(state).any():
                sizes.plot(times, state, label=f"state {part}")
        if np.isfinite(row["memory"]).any():
            sizes.plot(times, row["memory"], "k--", label="memory to the next layer")
        sizes.set_ylim(bottom=0)
        for axis in (over_time, sizes):
            axis.axvline(0, color="#BBBBBB", linewidth=0.8)
        for axis in (over_time, values, sizes):
            axis.tick_params(labelsize=7)
            axis.spines[["top", "right"]].set_visible(False)
    for axis, name in zip(
        axes[0], ("share of gate values", "gate values", "root mean square"), strict=True
    ):
        axis.set_title(name, fontsize=9)
    for axis, name in zip(
        axes[-1], ("steps after the last input", "value", "steps after the last input"), strict=True
    ):
        axis.set_xlabel(name, fontsize=8)
    for column in (0, 2):
        axes[-1, column].xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes[0, 0].legend(fontsize=6, frameon=False)
    axes[0, 2].legend(fontsize=6, frameon=False)
    return figure


def attribution_figure(
    attributed: np.ndarray, frames: np.ndarray, at: tuple[int, int, int], title: str = ""
) -> Figure:
    """Draw the input frames and, below, what each of their pixels adds to a forecast pixel.

    Args:
        attributed: (T, C, H, W), what :func:`zoo.inspect.attribution` returned.
        frames: (T, H, W), the input frames.
        at: (y, x, t) of the forecast pixel, which is marked.
        title: Title of the figure.
    """
    shown = evenly_spaced(len(frames), COLUMNS)
    figure, axes = _panels(2, len(shown), title)
    values = attributed.sum(axis=1)  # (T, H, W)
    limit = np.quantile(np.abs(values), 0.999) or 1.0
    low, high = np.nanmin(frames), np.nanmax(frames)
    for column, t in enumerate(shown):
        axes[0, column].imshow(frames[t], "gray", vmin=low, vmax=high)
        axes[0, column].set_title(frame_time(t - len(frames) + 1), fontsize=7, color=GREY)
        image = axes[1, column].imshow(values[t], DIVERGING, vmin=-limit, vmax=limit)
        axes[1, column].set_xlabel(f"sum {values[t].sum():+.3f}", fontsize=7)
        for axis in axes[:, column]:
            axis.plot(at[1], at[0], marker="+", color="#EE6677", markersize=7)
    _label(axes[0, 0], "input")
    _label(axes[1, 0], f"adds to pixel\ny={at[0]}, x={at[1]}, t+{at[2]}")
    bar = figure.colorbar(image, ax=list(axes[1]), fraction=0.02, pad=0.01)
    bar.ax.tick_params(labelsize=6)
    return figure


def _draw_influence(axis: Any, influence: np.ndarray) -> None:
    """Draw the influence of past frames on forecast frames as a heat map."""
    horizon, given = influence.shape
    axis.imshow(
        np.sqrt(influence),
        "magma",
        aspect="auto",
        vmin=0,
        extent=(-given + 0.5, 0.5, horizon + 0.5, 0.5),
    )
    axis.set_axis_on()
    axis.set_title("influence of input frames", fontsize=8)
    axis.set_xlabel("input frame, 0 is the last", fontsize=7)
    axis.set_ylabel("lead time / frames", fontsize=7)
    axis.tick_params(labelsize=6)
    axis.set_xticks(sorted({-given + 1, -(given // 2), 0}))
    axis.set_yticks(sorted({1, horizon}))


def _grids(outputs: xarray.Dataset, channel: int | None, sample: int) -> dict[str, np.ndarray]:
    """One channel of every layer's output, or the mean of all, as (T, H, W) by name."""
    grids = {}
    for j, array in enumerate(outputs.data_vars.values()):
        chosen = array.isel(sample=sample)
        if channel is not None and not 0 <= channel < array.sizes["channel"]:
            raise ConfigError(
                f"layer {j} has no channel {channel}; expected 0 to {array.sizes['channel'] - 1}"
            )
        grid = chosen.mean("channel") if channel is None else chosen.isel(channel=channel)
        grids[f"layer {j}"] = grid.values
    return grids


def _panels(rows: int, columns: int, title: str, side: float = 1.15) -> tuple[Figure, Any]:
    """A figure with panels for images, without ticks."""
    from matplotlib.figure import Figure

    size = (side * columns + 0.9, side * rows + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, fontsize=10)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    return figure, axes


def _label(axis: Any, text: str) -> None:
    axis.set_ylabel(text, fontsize=8, rotation=0, ha="right", va="center", labelpad=8)


def _rasterized(figure: Figure) -> np.ndarray:
    """The figure as pixels, uint8 (3, H, W)."""
    from PIL import Image

    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    with Image.open(file, formats=["PNG"]) as picture:
        return rearrange(np.asarray(picture.convert("RGB")), "h w c -> c h w")

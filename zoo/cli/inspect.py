"""zoo inspect: look inside a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zoo.cli.common import as_json, device_option, echo, model_name, print_json

if TYPE_CHECKING:
    import numpy as np

    from zoo.forecast import Forecaster


@click.group("inspect")
def inspect_() -> None:
    """Look inside a model: its layers, receptive fields and gates, and what a pixel depends on.

    INPUT is an array, a video or a folder of pictures; by default, a clip that comes with the zoo
    and resembles the training data. Figures are written as .png, .pdf or .svg.
    """


def view(command: Callable[..., None]) -> click.Command:
    """Make a function a command with the arguments and options that all of them have."""
    for add in (
        device_option,
        click.option(
            "--input-frames", type=click.IntRange(min=1), help="Read only the first N frames."
        ),
        click.option(
            "-o", "--output", required=True, type=click.Path(path_type=Path), help="Output file."
        ),
        click.argument("input", type=click.Path(path_type=Path), required=False, metavar="[INPUT]"),
        click.argument("model"),
    ):
        command = add(command)
    return inspect_.command()(command)


horizon_option = click.option(
    "--horizon", type=click.IntRange(min=1), help="Number of frames to forecast."
)


@view
@horizon_option
@click.option("--channel", type=click.IntRange(min=0), help="Show one channel, not their mean.")
def layers(
    model: str,
    input: Path | None,
    output: Path,
    input_frames: int | None,
    horizon: int | None,
    channel: int | None,
    device: str,
) -> None:
    """Draw what every layer puts out, one row a layer and one column a step.

    With .gif or .mp4 as the suffix of the output, the layers move side by side.
    """
    import numpy as np

    from zoo.data.files import check_writable
    from zoo.inspect.figures import (
        ANIMATED,
        FIGURES,
        layers_figure,
        save_figure,
        write_layers_animation,
    )
    from zoo.inspect.recording import features, scaled_past

    check_writable(output, (*FIGURES, *ANIMATED))
    name, forecaster, past = _open(model, input, input_frames, device)
    horizon = horizon or forecaster.config.data.horizon or 1
    outputs = features(forecaster, past, horizon)
    sequences = [past]  # what the network reads: the input, then its own forecast
    if horizon > 1:
        sequences.append(forecaster.predict(past, horizon - 1))
    scaled = [scaled_past(forecaster, frames)[0].mean(dim=1).cpu() for frames in sequences]
    read = np.concatenate(scaled)  # (T, H, W)
    title = f"{name}: output of each layer"
    if output.suffix.lower() in ANIMATED:
        write_layers_animation(output, outputs, read, channel=channel, title=title)
    else:
        figure = layers_figure(outputs, read, channel=channel, title=title)
        save_figure(figure, output)
    _done(output)


@view
@horizon_option
@as_json
def field(
    model: str,
    input: Path | None,
    output: Path,
    input_frames: int | None,
    horizon: int | None,
    device: str,
    as_json: bool,
) -> None:
    """Draw the receptive field of every layer, and which past frames matter.

    The effective field is the gradient of the central output; its circle holds 95 % of the mass.
    The dashed box is the theoretical field, the pixels that can have an influence in one step.
    """
    from zoo.data.files import check_writable
    from zoo.inspect.figures import FIGURES, fields_figure, save_figure
    from zoo.inspect.gradients import fields, lag_influence

    check_writable(output, FIGURES)
    name, forecaster, past = _open(model, input, input_frames, device)
    found = fields(forecaster, past)
    influence = lag_influence(forecaster, past, horizon)
    save_figure(fields_figure(found, influence, f"{name}: receptive fields"), output)
    if as_json:
        print_json(
            {
                each.name: {"radius": each.radius, "theoretical": each.theoretical}
                if each.heat.any()
                else {"radius": None, "theoretical": each.theoretical}
                for each in found
            }
        )
    _done(output)


@view
@horizon_option
def gates(
    model: str,
    input: Path | None,
    output: Path,
    input_frames: int | None,
    horizon: int | None,
    device: str,
) -> None:
    """Draw how open the gates of every layer are over time, and the size of its states.

    A gate is whatever leaves a sigmoid. Many gates near 0 or 1 are saturated.
    """
    from zoo.data.files import check_writable
    from zoo.inspect import gates
    from zoo.inspect.figures import FIGURES, gates_figure, save_figure

    check_writable(output, FIGURES)
    name, forecaster, past = _open(model, input, input_frames, device)
    recorded = gates(forecaster, past, horizon)
    save_figure(gates_figure(recorded, f"{name}: gates and states"), output)
    _done(output)


def _parse_pixel(
    context: click.Context, parameter: click.Parameter, text: str
) -> tuple[int, int, int]:
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() for part in parts):
        raise click.BadParameter(
            f"{text!r} is not valid; expected y,x,t such as 32,40,5", context, parameter
        )
    y, x, t = map(int, parts)
    return y, x, t


@view
@click.option(
    "--at",
    required=True,
    metavar="Y,X,T",
    callback=_parse_pixel,
    help="Row and column of the forecast pixel, and its lead time in frames, from 1.",
)
@click.option(
    "--baseline",
    type=click.Choice(["black", "mean"]),
    default="black",
    show_default=True,
    help="Input to compare with: black frames, or the mean of the input frames.",
)
@click.option(
    "--steps",
    type=click.IntRange(min=1, max=10_000),
    default=32,
    show_default=True,
    help="Points on the path from the baseline to the input.",
)
@as_json
def attribution(
    model: str,
    input: Path | None,
    at: tuple[int, int, int],
    baseline: str,
    steps: int,
    output: Path,
    input_frames: int | None,
    device: str,
    as_json: bool,
) -> None:
    """Draw what each pixel of the past adds to one forecast pixel, by integrated gradients."""
    from zoo.data.files import check_writable
    from zoo.inspect import attribution
    from zoo.inspect.figures import FIGURES, attribution_figure, save_figure
    from zoo.inspect.recording import scaled_past

    check_writable(output, FIGURES)
    name, forecaster, past = _open(model, input, input_frames, device)
    attributed, gap = attribution(forecaster, past, at, baseline=baseline, steps=steps)
    frames = scaled_past(forecaster, past)[0].mean(dim=1).cpu().numpy()  # (T, H, W)
    title = f"{name}: attribution of the forecast, baseline {baseline}"
    save_figure(attribution_figure(attributed, frames, at, title), output)
    total = float(attributed.sum())
    if as_json:
        print_json({"sum": total, "gap": gap, "by_frame": attributed.sum(axis=(1, 2, 3)).tolist()})
    else:
        echo(f"the attributions add up to {total:+.4f}; their error is {gap:+.1e}")
    _done(output)


def _open(
    model: str, input: Path | None, input_frames: int | None, device: str
) -> tuple[str, Forecaster, np.ndarray]:
    """The model with its name, and its input frames, (T, C, H, W)."""
    from zoo.cli.predict import read_past
    from zoo.data.clips import demo_clip
    from zoo.hub import load, pull

    folder = pull(model)
    name, forecaster = model_name(model, folder), load(f"local-dir:{folder}", device=device)
    if input is not None:
        return name, forecaster, read_past(forecaster, input, input_frames, None)
    data = forecaster.config.data
    return name, forecaster, demo_clip(data.name)[: input_frames or data.input_frames or 10]


def _done(output: Path) -> None:
    click.echo(f"wrote {output}", err=True)

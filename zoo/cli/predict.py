"""zoo predict: from a file of frames to a file with the frames that follow."""

from __future__ import annotations

from pathlib import Path

import click

from zoo.cli.common import as_json, device_option, parse_size, print_json


@click.command()
@click.argument("model")
@click.argument("input", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Where to.")
@click.option("--horizon", type=click.IntRange(min=1), help="Frames to forecast.")
@click.option("--input-frames", type=click.IntRange(min=1), help="Read only the first so many.")
@click.option("--size", help="Resize pictures and videos to HEIGHTxWIDTH.")
@device_option
@as_json
def predict(
    model: str,
    input: Path,
    output: Path,
    horizon: int | None,
    input_frames: int | None,
    size: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Forecast the frames that follow those of INPUT.

    INPUT is an array (.npy, .npz), a video or a folder of pictures; the ending of OUTPUT
    decides what is written: .npy, .npz, .gif, .mp4 or .png.
    """
    from zoo.data.files import check_writable, read_frames, write_frames
    from zoo.errors import ZooError
    from zoo.hub import load

    check_writable(output)
    forecaster = load(model, device=device)
    config = forecaster.config
    frames = read_frames(input, channels=config.in_channels, size=parse_size(size))
    there = frames.shape[-4]  # T of (T, C, H, W) and of (B, T, C, H, W)
    if input_frames is not None and there < input_frames:
        raise ZooError(f"{input} has {there} frames; --input-frames asks for {input_frames}")
    past = frames[..., :input_frames, :, :, :]
    forecast = forecaster.predict(past, horizon)
    low, high = (0.0, 255.0) if forecast.dtype == "uint8" else (config.data.low, config.data.high)
    write_frames(output, forecast, low=low, high=high)
    if as_json:
        print_json({"output": str(output), "input": past.shape, "forecast": forecast.shape})
    else:
        click.echo(f"{output}: {forecast.shape[-4]} frames that follow {past.shape[-4]}", err=True)

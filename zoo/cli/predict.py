"""zoo predict: from a file of frames to a file with the frames that follow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from zoo.cli.common import as_json, device_option, parse_size, print_json

if TYPE_CHECKING:
    import numpy as np

    from zoo.config import Data


@click.command()
@click.argument("model")
@click.argument("input", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Where to.")
@click.option("--horizon", type=click.IntRange(min=1), help="Frames to forecast.")
@click.option("--input-frames", type=click.IntRange(min=1), help="Read only the first so many.")
@click.option("--size", help="Resize pictures and videos to HEIGHTxWIDTH.")
@click.option("--data", help="INPUT is a folder of files of this data set, such as knmi.")
@click.option("--variable", help="Of a NetCDF file or zarr store with several.")
@click.option("--unit", help="In which the frames are; by default what the file says.")
@click.option("--time-step", help="From one frame to the next, as 5min; by default of the file.")
@device_option
@as_json
def predict(
    model: str,
    input: Path,
    output: Path,
    horizon: int | None,
    input_frames: int | None,
    size: str | None,
    data: str | None,
    variable: str | None,
    unit: str | None,
    time_step: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Forecast the frames that follow those of INPUT, in the unit of the model's data.

    INPUT is an array (.npy, .npz), a video, a folder of pictures, a NetCDF file (.nc) or a zarr
    store (.zarr) with a dimension "time"; the ending of OUTPUT decides what is written: .npy,
    .npz, .gif, .mp4 or .png; or .nc or .zarr, with coordinates and lead times, from such a file.
    Rain, reflectivity and counts are shown in the colours of zoo eval's report.

    With --data it is a folder of a data set's files (zoo data info), radar, say, and what follows
    its last frames is forecast.

    \b
    zoo predict MODEL radar/knmi --data knmi -o future.nc
    """
    from zoo.data.files import check_writable, read_frames
    from zoo.errors import ZooError
    from zoo.hub import load
    from zoo.labelled import LABELLED, read_labelled, write_labelled

    labelled = input.suffix in LABELLED
    if data is None and labelled != (output.suffix in LABELLED):
        raise ZooError(
            f"{input} to {output}: a file with coordinates ({', '.join(LABELLED)}) gives one; "
            f"write {output.with_suffix('.nc' if labelled else '.npy')}"
        )
    check_writable(output.with_suffix(".npy") if output.suffix in LABELLED else output)
    forecaster = load(model, device=device)
    config = forecaster.config
    if labelled or data:
        if data:
            from zoo.evaluate import latest

            array = latest(forecaster, data, input, input_frames)
        else:
            array = read_labelled(input, variable)
            array = array.isel(time=slice(input_frames)) if "time" in array.dims else array
        future = forecaster.predict(array, horizon, unit=unit, time_step=time_step)
        if output.suffix in LABELLED:
            write_labelled(output, future)
        else:
            frames = future.values if future.ndim == 4 else future.values[:, None]  # (T, C, H, W)
            _write(output, frames, config.data)
        told = {"output": str(output), "input": array.shape, "forecast": future.shape}
        click.echo(f"{output}: {future.sizes['time']} frames that follow", err=True)
        if as_json:
            print_json(told)
        return
    frames = read_frames(input, channels=config.in_channels, size=parse_size(size))
    there = frames.shape[-4]  # T of (T, C, H, W) and of (B, T, C, H, W)
    if input_frames is not None and there < input_frames:
        raise ZooError(f"{input} has {there} frames; --input-frames asks for {input_frames}")
    past = frames[..., :input_frames, :, :, :]
    forecast = forecaster.predict(past, horizon, unit=unit, time_step=time_step)
    _write(output, forecast, config.data)
    if as_json:
        print_json({"output": str(output), "input": past.shape, "forecast": forecast.shape})
    else:
        click.echo(f"{output}: {forecast.shape[-4]} frames that follow {past.shape[-4]}", err=True)


def _write(output: Path, forecast: np.ndarray, data: Data) -> None:
    """Write (T, C, H, W) or (B, T, C, H, W); pictures of a field in its colours."""
    import numpy as np
    from einops import rearrange

    from zoo.data.files import ARRAYS, write_frames
    from zoo.inspect.palettes import palette_for

    low, high = (0.0, 255.0) if forecast.dtype == "uint8" else data.limits
    if not data.is_picture and forecast.shape[-3] == 1 and output.suffix.lower() not in ARRAYS:
        batch = forecast if forecast.ndim == 5 else forecast[None]  # (B, T, 1, H, W)
        palette, low, high = palette_for(data, batch), 0.0, 255.0
        coloured = np.stack([palette.colours(frames) for frames in batch])
        forecast = rearrange(coloured, "b t h w c -> b t c h w")
    write_frames(output, forecast, low=low, high=high)

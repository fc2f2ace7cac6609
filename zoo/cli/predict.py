"""zoo predict: forecast the frames that follow those in a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.cli.common import (
    any_plugin_option,
    as_json,
    device_option,
    optimize_option,
    parse_size,
    print_json,
    print_settings,
    set_option,
)

if TYPE_CHECKING:
    import numpy as np

    from zoo.config import Data
    from zoo.exporting.onnx_model import OnnxForecaster
    from zoo.forecast import Forecaster


@click.command()
@click.argument("model")
@click.argument("input", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Output file.")
@click.option("--horizon", type=click.IntRange(min=1), help="Number of frames to forecast.")
@click.option("--input-frames", type=click.IntRange(min=1), help="Read only the first N frames.")
@click.option(
    "--size",
    help="Resize pictures and videos to HEIGHTxWIDTH; 'original' keeps their size.  [default: for "
    "videos the size of the training frames]",
)
@click.option("--data", help="Read INPUT as a folder of files of this data set, such as knmi.")
@set_option("Set an option of the data set, such as pool=5. May be repeated.")
@click.option("--variable", help="Variable to read from a NetCDF file or zarr store.")
@click.option("--unit", help="Unit of the input frames.  [default: as stated in the file]")
@click.option(
    "--time-step", help="Time between input frames, such as 5min.  [default: as in the file]"
)
@click.option("--times", help="Time of the first frame, if INPUT has none: 2015-01-31T12:00.")
@click.option(
    "--future",
    type=click.Path(path_type=Path),
    help="Array (.npy, .npz) of the channels whose future is known, (horizon, C, H, W).",
)
@click.option(
    "--members", type=click.IntRange(min=1), help="Forecast an ensemble, if MODEL reads noise."
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed of the ensemble.",
)
@optimize_option
@any_plugin_option
@device_option
@as_json
def predict(
    model: str,
    input: Path,
    output: Path,
    input_frames: int | None,
    size: str | None,
    data: str | None,
    settings: tuple[tuple[str, Any], ...],
    variable: str | None,
    future: Path | None,
    optimize: str,
    any_plugin: bool,
    device: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Forecast the frames that follow those of INPUT, in the unit of the model's data.

    MODEL may also be an ONNX file that zoo export wrote.

    INPUT is an array (.npy, .npz), a video, a folder of pictures, a NetCDF file (.nc) or a zarr
    store (.zarr) with a dimension "time". The suffix of OUTPUT selects its format: .npy, .npz,
    .gif, .mp4 or .png; or, for input with coordinates, .nc or .zarr. Pictures of rain,
    reflectivity and counts have the colors of the report of zoo eval.

    With --data, INPUT is a folder of files of a data set (see zoo data info), and the frames that
    follow the newest ones are forecast. The same holds for a GRIB file (.grib2).

    \b
    zoo predict MODEL radar/knmi --data knmi --set pool=5 -o future.nc
    """
    data = data or _grib_data(input)
    if settings and data is None:
        from zoo.errors import ConfigError

        raise ConfigError("--set sets options of a data set; name it with --data")
    labeled = _check_formats(input, output, is_folder_of_data=data is not None)
    forecaster = _load(model, device, any_plugin)
    if future is not None:
        from zoo.data.files import read_array

        options["future"] = read_array(future)
    options = _supported(forecaster, options)
    if labeled:
        trained = forecaster.config.data
        past = _read_labeled(trained, input, input_frames, data, dict(settings), variable)
        given = past.sizes["time"]
    else:
        past = read_past(forecaster, input, input_frames, size)
        given = past.shape[-4]
    if optimize == "auto":
        _optimize(forecaster, model, past, given, **options)
    forecast = forecaster.predict(past, **options)
    if labeled:
        _write_labeled(output, forecast, forecaster.config.data)
        message = f"{output}: {forecast.sizes['time']} frames that follow"
    else:
        _write_frames(output, forecast, forecaster.config.data)
        message = f"{output}: {forecast.shape[-4]} frames that follow {past.shape[-4]}"
    if as_json:
        print_json({"output": str(output), "input": past.shape, "forecast": forecast.shape})
    else:
        click.echo(message, err=True)


def _grib_data(input: Path) -> str | None:
    """Return the data set that reads GRIB files, if the input is one."""
    from zoo.data.grib import GRIB

    return "grids" if Path(input.name.removesuffix(".gz")).suffix in GRIB else None


def _load(model: str, device: str, any_plugin: bool) -> Forecaster | OnnxForecaster:
    """Load a model by name, or from an ONNX file without importing torch."""
    if not model.lower().endswith(".onnx"):
        from zoo.hub import load

        return load(model, device=device, any_plugin=any_plugin)
    from zoo.errors import ConfigError
    from zoo.exporting.onnx_model import OnnxForecaster

    if device != "cpu":
        raise ConfigError(f"{model} runs on the CPU; leave out --device {device}")
    return OnnxForecaster(Path(model))


def _optimize(
    forecaster: Forecaster | OnnxForecaster,
    name: str,
    past: Any,
    given: int,
    *,
    horizon: int | None = None,
    members: int | None = None,
    **_: Any,
) -> None:
    """Choose fast settings for a forecast from `given` frames, and print them."""
    from zoo.exporting.onnx_model import OnnxForecaster

    if isinstance(forecaster, OnnxForecaster):
        return
    from zoo.optimize import optimize

    steps = given - 1 + (horizon or forecaster.config.data.horizon or 1)
    batch = past.shape[0] if past.ndim == 5 else 1
    optimize(forecaster, past.shape[-2:], batch=batch, steps=steps * (members or 1))
    print_settings({name: forecaster})


def _supported(forecaster: Forecaster | OnnxForecaster, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that were given; ONNX files do not have all."""
    from zoo.errors import ConfigError
    from zoo.exporting.onnx_model import OnnxForecaster

    given = {name: value for name, value in options.items() if value is not None}
    if not isinstance(forecaster, OnnxForecaster):
        return given
    del given["seed"]
    for name in ("times", "future", "members"):
        if name in given:
            raise ConfigError(f"ONNX files do not support --{name}; predict with the model itself")
    return given


def _check_formats(input: Path, output: Path, *, is_folder_of_data: bool) -> bool:
    """Return whether the input has coordinates; raise ConfigError if the output does not fit."""
    from zoo.data.files import WRITABLE, check_writable
    from zoo.errors import ConfigError
    from zoo.labeled import LABELED

    labeled = input.suffix in LABELED
    if not is_folder_of_data and labeled != (output.suffix in LABELED):
        expected = output.with_suffix(".nc" if labeled else ".npy")
        raise ConfigError(
            f"{input} and {output}: either both are files with coordinates "
            f"({', '.join(LABELED)}) or neither; write {expected}"
        )
    check_writable(output, (*WRITABLE, *LABELED))
    return labeled or is_folder_of_data


def _read_labeled(
    data: Data,
    input: Path,
    input_frames: int | None,
    dataset: str | None,
    settings: dict[str, Any],
    variable: str | None,
) -> Any:
    """The input as a DataArray."""
    if dataset is not None:
        from zoo.data.newest import newest_frames

        return newest_frames(data, dataset, input, input_frames, settings)
    from zoo.labeled import read_first

    return read_first(input, variable, input_frames)


def read_past(
    forecaster: Forecaster | OnnxForecaster, input: Path, input_frames: int | None, size: str | None
) -> np.ndarray:
    """Read the frames of a file as (T, C, H, W) or (B, T, C, H, W).

    Args:
        forecaster: The model that will read them.
        input: An array, a video or a folder of pictures.
        input_frames: Read only the first N frames.
        size: HEIGHTxWIDTH to resize pictures and videos to, or "original"; by default, videos get
            the size of the model's training frames.
    """
    from zoo.data.files import VIDEOS, read_frames
    from zoo.errors import DataError

    if size is None and input.suffix.lower() in VIDEOS:
        shape = forecaster.config.data.size  # things are as large as they were in training
    else:
        shape = None if size == "original" else parse_size(size)
    channels, part = forecaster.config.in_channels, slice(input_frames)
    frames = read_frames(input, channels=channels, size=shape, part=part)
    length = frames.shape[-4]
    if input_frames is not None and length < input_frames:
        raise DataError(f"{input} has {length} frames; --input-frames asks for {input_frames}")
    return frames[..., :input_frames, :, :, :]


def _write_labeled(output: Path, future: Any, data: Data) -> None:
    """Write a DataArray, as pictures or an array if the suffix says so."""
    import numpy as np

    from zoo.labeled import CHANNELS, LABELED, write_labeled

    if output.suffix in LABELED:
        write_labeled(output, future)
    else:
        values = future.values
        if not set(CHANNELS) & {*future.dims}:
            values = np.expand_dims(values, -3)  # (T, H, W) to (T, 1, H, W), also of members
        _write_frames(output, values, data)


def _write_frames(output: Path, forecast: np.ndarray, data: Data) -> None:
    """Write (T, C, H, W) or (B, T, C, H, W), with the colors of the data if as pictures."""
    import numpy as np
    from einops import rearrange

    from zoo.data.files import ARRAYS, write_frames
    from zoo.inspect.palettes import palette_for

    low, high = (0.0, 255.0) if forecast.dtype == "uint8" else data.limits
    if not data.is_picture and forecast.shape[-3] == 1 and output.suffix.lower() not in ARRAYS:
        batch = forecast if forecast.ndim == 5 else forecast[None]  # (B, T, 1, H, W)
        palette, low, high = palette_for(data, batch), 0.0, 255.0
        colored = np.stack([palette.colors(frames) for frames in batch])
        forecast = rearrange(colored, "b t h w c -> b t c h w")
    write_frames(output, forecast, low=low, high=high)

"""Forecasts in the units of the data, whatever runs the network: PyTorch or an exported file."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from zoo.config import Config, Data
from zoo.errors import ConfigError, DataError
from zoo.labeled import is_labeled, unlabel
from zoo.units import Array, Frames, check_data, scale, seconds, unscale

__all__ = ["check_finite", "check_frames", "predict"]

#: Takes frames (B, T, C, H, W) on the model's scale without NaN and a horizon; also `labeled`, the
#: times of the frames, and `step`, the seconds between them, each None if unknown. Returns a
#: forecast (B, horizon, C, H, W), not clipped.
Forecast = Callable[..., Any]


def predict(
    forecast: Forecast,
    data: Data,
    frames: Frames,
    horizon: int | None = None,
    *,
    like: Array,
    unit: str | None = None,
    time_step: object = None,
) -> Frames:
    """Forecast frames in the units of the data, as :meth:`zoo.Forecaster.predict` describes.

    Args:
        forecast: Makes the forecast on the model's scale.
        data: Data of the model.
        frames: The input frames.
        horizon: Number of frames to forecast. Defaults to the horizon of training.
        like: A tensor or numpy array of the kind, dtype and device that `forecast` takes.
        unit: Unit of `frames`.
        time_step: Time between two frames.

    Raises:
        DataError: If the frames do not fit the data.
    """
    horizon = (data.horizon or 1) if horizon is None else horizon
    check_data(data, unit=unit, time_step=time_step)
    if not is_labeled(frames):
        step = None if time_step is None else seconds(time_step)
        timed = partial(forecast, labeled=None, step=step)
        return _predict(timed, data, frames, horizon, like)
    values, labels = unlabel(frames, unit=unit, time_step=time_step)
    check_data(data, unit=labels.unit, time_step=labels.time_step)
    timed = partial(forecast, labeled=labels.times, step=labels.time_step)
    return labels.label(_predict(timed, data, values, horizon, like), data)  # type: ignore[return-value]


def _predict(
    forecast: Callable[[Any, int], Any], data: Data, frames: Any, horizon: int, like: Array
) -> Any:
    """Forecast from a tensor or numpy array."""
    past: Any = scale(frames, data, like)
    missing = past != past  # NaN, in torch and numpy
    future = forecast(_replace(past, missing, 0.0), horizon)
    check_finite(future)
    if data.missing:
        forecast_missing = missing[:, :, : future.shape[2]]  # other channels are only read
        unseen = forecast_missing.all(1)[:, None]  # (B, T, C, H, W) to (B, 1, C, H, W)
        future = _replace(future, unseen, float("nan"))
    return unscale(future, data, like=frames)


def _replace(x: Any, where: Any, value: float) -> Any:
    """Return a tensor or array with `value` where a mask is true."""
    return np.where(where, value, x) if isinstance(x, np.ndarray) else x.masked_fill(where, value)


def check_finite(forecast: Any) -> None:
    """Reject a forecast of NaN, which would become a color or a missing value unnoticed.

    Raises:
        DataError: If a value of the tensor or array is not finite.
    """
    if not (forecast - forecast == 0).all():  # in torch and numpy
        raise DataError(
            "the forecast is not finite: the weights of the model are too large or damaged, or its "
            "precision is too low; use another model, or dtype=torch.float32"
        )


def check_frames(config: Config, shape: tuple[int, ...], horizon: int) -> None:
    """Check that a model can forecast from frames of a shape.

    Args:
        config: The model.
        shape: Shape of the frames, (B, T, C, H, W).
        horizon: Number of frames to forecast.

    Raises:
        DataError: If the frames are empty or have another number of axes or channels.
        ConfigError: If the horizon is not positive.
    """
    if len(shape) != 5:
        raise DataError(f"frames are {shape}; expected (B, T, C, H, W)")
    if shape[2] != config.in_channels:
        raise DataError(
            f"frames have {shape[2]} channels (shape {shape}, axes B, T, C, H, W); "
            f"this model expects {config.in_channels}"
        )
    if 0 in shape:
        raise DataError(f"frames are empty: {shape}; give at least one frame")
    if horizon < 1:
        raise ConfigError(f"horizon is {horizon}; expected 1 or more")

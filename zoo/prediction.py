"""Forecasts in the units of the data, whatever runs the network: PyTorch or an exported file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from zoo.config import Config, Data
from zoo.errors import ConfigError, DataError
from zoo.labeled import is_labeled, unlabel
from zoo.units import Array, Frames, check_data, scale, unscale

__all__ = ["check_frames", "predict"]

#: Takes frames (B, T, C, H, W) in [0, 1] without NaN and a horizon, and returns a forecast
#: (B, horizon, C, H, W), not clipped.
Forecast = Callable[[Any, int], Any]


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
        return _predict(forecast, data, frames, horizon, like)
    values, labels = unlabel(frames, unit=unit, time_step=time_step)
    check_data(data, unit=labels.unit, time_step=labels.time_step)
    return labels.label(_predict(forecast, data, values, horizon, like), data)  # type: ignore[return-value]


def _predict(forecast: Forecast, data: Data, frames: Any, horizon: int, like: Array) -> Any:
    """Forecast from a tensor or numpy array."""
    past: Any = scale(frames, data, like)
    missing = past != past  # NaN, in torch and numpy
    future = forecast(_replace(past, missing, 0.0), horizon)
    if data.missing:
        unseen = missing.all(1)[:, None]  # (B, T, C, H, W) to (B, 1, C, H, W)
        future = _replace(future, unseen, float("nan"))
    return unscale(future, data, like=frames)


def _replace(x: Any, where: Any, value: float) -> Any:
    """Return a tensor or array with `value` where a mask is true."""
    return np.where(where, value, x) if isinstance(x, np.ndarray) else x.masked_fill(where, value)


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

"""Known inputs: what a network reads at every step besides the frames, such as the hour of day.

Those of a step belong to the frame that it predicts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from zoo.config import Config
from zoo.errors import ConfigError, DataError
from zoo.extrapolation import extrapolations

__all__ = [
    "draw_noise",
    "known_inputs",
    "predicted_times",
    "sequence_inputs",
    "with_noise",
]

SECOND = np.timedelta64(1, "s")

DAY = 86400.0
YEAR = 365.2425 * DAY
#: Thursday, 1 January 1970 is three days after a Monday.
MONDAY = -3 * DAY

#: Inputs that need the times of the frames: period and start of the cycle in seconds since 1970.
TIMED = {"hour_of_day": (DAY, 0.0), "day_of_week": (7 * DAY, MONDAY), "day_of_year": (YEAR, 0.0)}


def known_inputs(
    config: Config,
    steps: int,
    input_frames: int,
    *,
    times: np.ndarray | None = None,
    channels: Tensor | None = None,
    past: Tensor | None = None,
) -> Tensor | None:
    """Return the known inputs of a rollout, (B, steps, K, H, W), of which B, H and W may be 1.

    Args:
        config: the model, whose `future_channels` and `inputs` are K channels.
        steps: the number of steps.
        input_frames: the number of frames that are read before the forecast begins.
        times: the times of the frames that the steps predict, (B, steps) of datetime64; None if
            they are not known.
        channels: the channels of these frames whose future is known, (B, steps, F, H, W), scaled.
        past: the frames up to the last that is read, (B, T, C, H, W), scaled; more than
            `input_frames` help to find the motion.

    Returns:
        The inputs, or None if the model has none.

    Raises:
        DataError: if the model needs times, or channels, that are not given.
    """
    parts = []
    if config.future_channels:
        if channels is None:
            raise DataError(
                f"this model reads {config.future_channels} channels whose future is known; give "
                "their values for the forecast frames as `future` (--future FILE)"
            )
        parts.append(channels)
    for name in config.inputs:
        if name in TIMED:
            if times is None:
                raise DataError(
                    f"this model reads the {name.replace('_', ' ')}, but the times of the frames "
                    "are not known; give frames with the coordinate 'time' (xarray), or `times`, "
                    "the time of the first (--times 2015-01-31T12:00)"
                )
            parts.append(_cycle(times, *TIMED[name]))
        elif name == "extrapolation":
            if past is None:
                raise DataError(
                    "this model reads an extrapolation of the frames; give them as `past`"
                )
            forecast = past[:, :, : config.forecast_channels].nan_to_num(nan=0.0)
            parts.append(extrapolations(forecast, steps, steps - input_frames + 1))
        else:
            parts.append(_lead(config, steps, input_frames))
    if not parts:
        return None
    shapes = zip(*(part.shape for part in parts), strict=True)
    batch, _, _, height, width = (max(sizes) for sizes in shapes)
    like = parts[0]
    return torch.cat([part.to(like).expand(batch, -1, -1, height, width) for part in parts], dim=2)


def sequence_inputs(
    config: Config, sequences: Tensor, input_frames: int, times: np.ndarray | None
) -> Tensor | None:
    """Return the known inputs of a rollout over sequences whose frames are all at hand.

    Args:
        config: the model.
        sequences: the frames (B, T, C, H, W), scaled.
        input_frames: the number of frames that are read before the forecast begins.
        times: their times, (B, T) of datetime64; None if they are not known.

    Returns:
        The inputs of the T − 1 steps, on the device of the sequences; None if the model has none.

    Raises:
        DataError: if the model needs times that are not known.
    """
    first = sequences.shape[2] - config.future_channels
    known = known_inputs(
        config,
        sequences.shape[1] - 1,
        input_frames,
        times=None if times is None else times[:, 1:],
        channels=sequences[:, 1:, first:].nan_to_num(nan=0.0),
        past=sequences[:, :input_frames],
    )
    return None if known is None else known.to(sequences)


def draw_noise(
    config: Config, size: Sequence[int], seed: int, member: int = 0, number: int = 0
) -> Iterator[Tensor]:
    """Draw the noise of each step of a rollout, (1, N, H, W), without end.

    It depends on the arguments only: more members, steps or sequences do not change it.

    Args:
        config: the model, whose `noise` is N.
        size: height and width of the frames.
        seed: the seed of an ensemble.
        member: the number of a member.
        number: the number of a sequence.

    Raises:
        ConfigError: if the seed is negative.
    """
    if seed < 0:
        raise ConfigError(f"seed is {seed}; expected 0 or more")
    generator = np.random.default_rng([seed, member, number])
    while True:
        yield torch.from_numpy(generator.standard_normal((1, config.noise, *size), np.float32))


def with_noise(known: Tensor | None, noise: Tensor) -> Tensor:
    """Append noise (B, steps, N, H, W) to known inputs; of both, B may be 1."""
    if known is None:
        return noise
    batch, height, width = max(len(known), len(noise)), *noise.shape[-2:]
    parts = known, noise.to(known)
    return torch.cat([part.expand(batch, -1, -1, height, width) for part in parts], dim=2)


def predicted_times(
    times: object, step: float | None, input_frames: int, horizon: int
) -> np.ndarray:
    """Return the times of the frames that a rollout predicts, (B, steps), of which B may be 1.

    Args:
        times: the times of the input frames, (T,) or (B, T), or that of the first.
        step: the seconds between frames; None to find them from `times`.
        input_frames: the number of input frames, T.
        horizon: the number of forecast frames.

    Raises:
        DataError: if the times are not valid, not evenly spaced, or too few to find the step.
    """
    try:
        given = np.asarray(times, dtype="datetime64[ms]")
    except (TypeError, ValueError) as error:
        raise DataError(
            f"times are not valid ({error}); expected dates such as 2015-01-31T12:00"
        ) from None
    if np.isnat(given).any():
        raise DataError("a time is missing (NaT); give every frame a time")
    if given.ndim and given.shape[-1] != input_frames:
        raise DataError(
            f"got {given.shape[-1]} times for {input_frames} frames; give one for each, or that of "
            "the first alone"
        )
    first = np.atleast_1d(given if given.ndim == 0 else given[..., 0])  # (B,)
    gaps = np.diff(given) / SECOND if given.ndim else np.empty(0)
    if step is None and gaps.size:
        step = float(gaps.flat[0])
    if step is None:
        raise DataError("the time between two frames is not known; give it as `time_step`")
    if (abs(gaps - step) > 1e-3 * step).any():
        raise DataError(
            f"the times are {gaps.min():g} to {gaps.max():g} s apart; expected {step:g} s"
        )
    ticks = np.arange(1, input_frames + horizon) * np.timedelta64(round(step * 1e3), "ms")
    return first[:, None] + ticks


def _lead(config: Config, steps: int, input_frames: int) -> Tensor:
    """Return the lead time of every step in horizons of the training, (1, steps, 1, 1, 1).

    While frames are read, it is that of the next frame.
    """
    leads = (torch.arange(steps) + 2 - input_frames).clamp(min=1)
    return rearrange(leads / (config.data.horizon or 1), "t -> 1 t 1 1 1")


def _cycle(times: np.ndarray, period: float, start: float) -> Tensor:
    """Return sine and cosine of the time in a cycle, (B, T, 2, 1, 1)."""
    seconds = times.astype("datetime64[ms]").astype(np.int64) / 1e3
    angle = 2 * np.pi * ((seconds - start) % period) / period  # (B, T)
    waves = np.stack([np.sin(angle), np.cos(angle)], axis=2).astype(np.float32)
    return rearrange(torch.from_numpy(waves), "b t k -> b t k 1 1")

"""Frames as people have them, in the units of their data, to the model's [0, 1] and back."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from zoo.config import Data
from zoo.errors import ZooError

__all__ = ["Frames", "scale", "unscale"]

Frames = TypeVar("Frames", Tensor, np.ndarray)

#: How far intensities may be outside [0, 1] before they are taken for something else.
TOLERANCE = 0.01


def scale(frames: Frames, data: Data, like: Tensor) -> Tensor:
    """Frames in units of the data to (B, T, C, H, W) in [0, 1], values outside clipped.

    Args:
        frames: (B, T, C, H, W), (T, C, H, W) or (T, H, W); pictures also as uint8.
        data: what their values mean.
        like: a tensor whose device and dtype the result takes.

    Raises ZooError for other shapes and types, for NaN and infinity, and for intensities
    that are not from 0 to 1.
    """
    if not isinstance(frames, (Tensor, np.ndarray)):
        raise ZooError(f"frames are a {type(frames).__name__}; give a torch or numpy array")
    if frames.ndim not in (3, 4, 5):
        raise ZooError(
            f"frames are {tuple(frames.shape)}; expected (B, T, C, H, W), or for one sequence "
            "(T, C, H, W) or (T, H, W)"
        )
    x = _to_tensor(frames).to(device=like.device, dtype=like.dtype)
    if x.ndim == 3:
        x = x.unsqueeze(1)  # (T, H, W) to (T, 1, H, W)
    if x.ndim == 4:
        x = x.unsqueeze(0)  # (T, C, H, W) to (1, T, C, H, W)
    _check_finite(x)
    if _is_uint8(frames, data):
        return x / 255
    if data.is_picture and x.numel() and (x.min() < -TOLERANCE or x.max() > 1 + TOLERANCE):
        raise ZooError(
            f"frames range from {float(x.min()):g} to {float(x.max()):g}; this model takes "
            "intensities from 0 to 1, or uint8 from 0 to 255"
        )
    return ((x - data.low) / (data.high - data.low)).clamp(0, 1)


def unscale(x: Tensor, data: Data, like: Frames) -> Frames:
    """The way back: (B, T, C, H, W), clipped to [0, 1], in the units and the form of `like`."""
    x = x.clamp(0, 1)
    if _is_uint8(like, data):
        x = (x * 255).round().to(torch.uint8)
    else:
        x = x * (data.high - data.low) + data.low
    if like.ndim < 5:
        x = x.squeeze(0)  # (1, T, C, H, W) to (T, C, H, W)
    if like.ndim == 3:
        x = x.squeeze(1)  # (T, 1, H, W) to (T, H, W)
    if isinstance(like, np.ndarray):
        return (x.float() if x.dtype == torch.bfloat16 else x).cpu().numpy()  # numpy has none
    return x.to(like.device)


def _to_tensor(frames: Tensor | np.ndarray) -> Tensor:
    if isinstance(frames, np.ndarray):
        if frames.dtype.kind in "iufb":
            # torch takes no array that is read-only, of another byte order or runs backwards.
            return torch.from_numpy(np.array(frames, frames.dtype.newbyteorder("="), order="C"))
    elif not frames.is_complex():
        return frames
    raise ZooError(f"frames are of type {frames.dtype}; expected real numbers")


def _is_uint8(frames: Tensor | np.ndarray, data: Data) -> bool:
    return data.is_picture and frames.dtype in (torch.uint8, np.uint8)


def _check_finite(x: Tensor) -> None:
    if torch.isfinite(x).all():
        return
    wrong = (~torch.isfinite(x)).sum(dim=(0, 2, 3, 4))  # (B, T, C, H, W) to (T,)
    raise ZooError(
        f"frames hold {int(wrong.sum())} NaN or infinite values, the first in frame "
        f"{int(wrong.nonzero()[0])}; fill them before forecasting (numpy.nan_to_num, say)"
    )

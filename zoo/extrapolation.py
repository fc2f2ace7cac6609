"""Extrapolation: frames moved along the motion of the frames before them.

Motion is found by the method of Lucas and Kanade (1981) at every pixel, with Gaussian windows from
large to small: where a small window shows nothing that moves, the motion of the larger one remains.
Frames are moved by the semi-Lagrangian scheme of Germann and Zawadzki (2002), which follows the
motion field backward and interpolates once. All of it runs in batches on any device.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor

from zoo.warping import warp

__all__ = ["RECENT", "extrapolate", "extrapolations", "find_motion"]

#: The number of frames from which motion is found.
RECENT = 4

#: The standard deviations of the windows (None: the whole frame) and of the smoothing that is
#: applied to the frames before their gradients are taken, in pixels. One iteration each.
STAGES = ((None, 4.0), (None, 2.0), (24.0, 2.0), (12.0, 1.0), (8.0, 1.0), (6.0, 1.0))

#: Weight of the motion found before, as a share of the mean squared gradient of the frame.
PRIOR = 0.3


def find_motion(frames: Tensor) -> Tensor:
    """Find the motion of frames, which is assumed to stay the same from the first to the last.

    It finds motion of up to about four pixels a step.

    Args:
        frames: (B, T, H, W), T of 2 or more, without NaN.

    Returns:
        (B, 2, H, W), pixels a step, first along W, then along H.
    """
    motion = frames.new_zeros(len(frames), 2, *frames.shape[-2:])
    for window, smoothing in STAGES:
        smooth = _blur(frames, smoothing)
        before, after = _move(smooth[:, :-1], -motion), smooth[:, 1:]
        across, along = _gradients((before + after) / 2)
        change = after - before
        products = across * across, across * along, along * along, across * change, along * change
        sums = torch.stack([product.sum(dim=1) for product in products], dim=1)  # (B, 5, H, W)
        mean = reduce(sums, "b k h w -> b k 1 1", "mean")
        prior = PRIOR * (mean[:, 0] + mean[:, 2]) / 2 + 1e-12
        local = mean if window is None else _window(sums, window)
        xx, xy, yy, xt, yt = local.unbind(dim=1)
        xx, yy = xx + prior, yy + prior
        steps = yy * xt - xy * yt, xx * yt - xy * xt
        motion = motion - torch.stack(steps, dim=1) / (xx * yy - xy * xy)[:, None]
    return motion


def extrapolate(frame: Tensor, motion: Tensor, horizon: int) -> Tensor:
    """Move a frame along a motion field; what comes from outside is the border, repeated.

    Args:
        frame: (B, C, H, W).
        motion: (B, 2, H, W), pixels a step.
        horizon: Number of steps.

    Returns:
        (B, horizon, C, H, W).
    """
    path = torch.zeros_like(motion)  # from each pixel back to where its value comes from
    moved = []
    for _ in range(horizon):
        path = path - _move(motion, path)
        moved.append(_move(frame, path))
    return torch.stack(moved, dim=1)


def extrapolations(frames: Tensor, steps: int, horizon: int) -> Tensor:
    """Extrapolate the frames of a rollout at each of its steps, channel by channel.

    While frames are read, each is moved by one step, along the motion of the latest RECENT frames
    up to it; then the last frame is moved by more and more steps. Gradients flow to the frames that
    are moved, but not through the motion.

    Args:
        frames: The frames read, (B, T, C, H, W), without NaN.
        steps: Number of steps, the last ones of the rollout.
        horizon: Number of frames to forecast.

    Returns:
        The extrapolated frames that the steps predict, (B, steps, C, H, W).
    """
    channels = frames.shape[2]
    series = rearrange(frames, "b t c h w -> (b c) t h w").to(torch.float32)
    moved = []
    last = series.shape[1] - 1
    for t in range(last + horizon - steps, last + 1):
        count = horizon if t == last else 1
        recent = series[:, max(0, t + 1 - RECENT) : t + 1]
        if recent.shape[1] < 2:
            moved.append(recent.expand(-1, count, -1, -1)[:, :, None])
        else:
            moved.append(extrapolate(recent[:, -1:], find_motion(recent.detach()), count))
    return rearrange(torch.cat(moved, dim=1), "(b c) t 1 h w -> b t c h w", c=channels).to(frames)


def _move(x: Tensor, path: Tensor) -> Tensor:
    """Sample maps (B, C, H, W) at every pixel's position + path (B, 2, H, W)."""
    return warp(x, path[:, None], align_corners=True, padding="border")[:, 0]


def _gradients(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return central differences along W and H."""
    x = F.pad(x, (1, 1, 1, 1), mode="replicate")
    across = (x[..., 1:-1, 2:] - x[..., 1:-1, :-2]) / 2
    return across, (x[..., 2:, 1:-1] - x[..., :-2, 1:-1]) / 2


def _window(x: Tensor, sigma: float) -> Tensor:
    """Convolve maps (B, C, H, W) with a wide Gaussian, on a grid four times as coarse."""
    pooled = F.avg_pool2d(x, 4, ceil_mode=True, count_include_pad=False)
    return F.interpolate(_blur(pooled, sigma / 4), x.shape[-2:], mode="bilinear")


def _blur(x: Tensor, sigma: float) -> Tensor:
    """Convolve maps (B, C, H, W) with a Gaussian; outside, the border is repeated."""
    reach = math.ceil(3 * sigma)
    weights = torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device)
    weights = torch.softmax(-((weights / sigma) ** 2) / 2, dim=0)
    maps = rearrange(x, "b c h w -> (b c) 1 h w")
    maps = F.pad(maps, (reach, reach, reach, reach), mode="replicate")
    maps = F.conv2d(F.conv2d(maps, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))
    return maps.view_as(x)

"""Warping: a feature map read at displaced positions (TrajGRU, MotionRNN)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

__all__ = ["warp"]


def warp(x: Tensor, flow: Tensor, *, align_corners: bool = False, padding: str = "zeros") -> Tensor:
    """Read a feature map at every pixel's position + flow, bilinearly.

    Coordinates and sampling are at least float32, whatever the dtype of `x` and `flow`: bfloat16
    cannot tell neighbouring pixels apart beyond the 256th.

    Args:
        x: (B, C, H, W).
        flow: (B, L, 2, H, W), L fields of displacements in pixels, along W and then along H.
        align_corners: positions are normalised with the corners of the frame at the centres
            of its corner pixels; with False, as in the published code of both papers, they
            are then read as if the corners were those of the pixels, which stretches the
            frame by one pixel. Published checkpoints need that; True is consistent.
        padding: what is read outside the frame: "zeros", or the nearest pixel of the "border".

    Returns (B, L, C, H, W) in the dtype of `x`.
    """
    height, width = x.shape[-2:]
    u, v = flow.unbind(dim=2)  # (B, L, H, W) each
    precise = torch.promote_types(x.dtype, torch.float32)
    u, v = u.to(precise), v.to(precise)
    columns = torch.arange(width, device=x.device, dtype=precise)
    rows = torch.arange(height, device=x.device, dtype=precise)[:, None]
    across = 2 * (columns + u) / max(width - 1, 1) - 1
    along = 2 * (rows + v) / max(height - 1, 1) - 1
    # All fields read the same map: as one tall grid, so that the map is not copied.
    grid = rearrange([across, along], "yx b l h w -> b (l h) w yx")
    # Contiguous: torch samples half-precision channels_last maps wrongly on CPUs.
    read = F.grid_sample(
        x.to(precise).contiguous(), grid, padding_mode=padding, align_corners=align_corners
    )
    return rearrange(read.to(x.dtype), "b c (l h) w -> b l c h w", h=height)

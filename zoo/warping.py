"""Warping: a feature map read at displaced positions (TrajGRU, MotionRNN)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

__all__ = ["warp"]


def warp(x: Tensor, flow: Tensor, *, align_corners: bool = False) -> Tensor:
    """Read a feature map at every pixel's position + flow, bilinearly, zero outside.

    Args:
        x: (B, C, H, W).
        flow: (B, L, 2, H, W), L fields of displacements in pixels, along W and then along H.
        align_corners: positions are normalised with the corners of the frame at the centres
            of its corner pixels; with False, as in the published code of both papers, they
            are then read as if the corners were those of the pixels, which stretches the
            frame by one pixel. Published checkpoints need that; True is consistent.

    Returns (B, L, C, H, W).
    """
    height, width = x.shape[-2:]
    u, v = flow.unbind(dim=2)  # (B, L, H, W) each
    columns = torch.arange(width, device=x.device, dtype=flow.dtype)
    rows = torch.arange(height, device=x.device, dtype=flow.dtype)[:, None]
    across = 2 * (columns + u) / max(width - 1, 1) - 1
    along = 2 * (rows + v) / max(height - 1, 1) - 1
    # All fields read the same map: as one tall grid, so that the map is not copied.
    grid = rearrange([across, along], "yx b l h w -> b (l h) w yx")
    read = F.grid_sample(x, grid.to(x.dtype), align_corners=align_corners)
    return rearrange(read, "b c (l h) w -> b l c h w", h=height)

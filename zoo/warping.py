"""Warping of feature maps along motion."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

__all__ = ["warp"]


def warp(x: Tensor, flow: Tensor, *, align_corners: bool = False, padding: str = "zeros") -> Tensor:
    """Sample a feature map at every pixel's position + flow, bilinearly (backward warping).

    Coordinates and sampling are in float32 or better, whatever the dtypes of `x` and `flow`:
    bfloat16 cannot represent every pixel position above 256.

    Args:
        x: (B, C, H, W).
        flow: (B, L, 2, H, W), L fields of displacements in pixels, first along W, then along H.
        align_corners: Whether sampling uses the coordinates in which the flow is normalized, so
            that zero flow returns `x`. The published code of TrajGRU and MotionRNN normalizes
            to the centers of the corner pixels, but samples as if to their outer corners, which
            stretches the frame by one pixel; its checkpoints need False.
        padding: Value outside the frame: "zeros", or "border" for the nearest pixel.

    Returns:
        (B, L, C, H, W) in the dtype of `x`.
    """
    height, width = x.shape[-2:]
    u, v = flow.unbind(dim=2)  # (B, L, H, W) each
    precise = torch.promote_types(x.dtype, torch.float32)
    u, v = u.to(precise), v.to(precise)
    columns = torch.arange(width, device=x.device, dtype=precise)
    rows = torch.arange(height, device=x.device, dtype=precise)[:, None]
    across = 2 * (columns + u) / max(width - 1, 1) - 1
    along = 2 * (rows + v) / max(height - 1, 1) - 1
    # All fields sample the same map: one tall grid avoids copying it.
    grid = rearrange([across, along], "yx b l h w -> b (l h) w yx")
    # Contiguous, because torch samples half-precision channels_last maps wrongly on CPUs.
    sampled = F.grid_sample(
        x.to(precise).contiguous(), grid, padding_mode=padding, align_corners=align_corners
    )
    return rearrange(sampled.to(x.dtype), "b c (l h) w -> b l c h w", h=height)

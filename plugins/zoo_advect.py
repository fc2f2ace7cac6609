"""Advect head: the current frame moved along predicted motion, mixed with a synthesized frame.

    u_k = r · tanh(upsample(U_k ∗ h))                   K motion fields, in pixels a step
    m = softmax(M ∗ h)                                  K + 2 masks, which sum to 1 at each pixel
    x′ = m_0 ⊙ x + m_1 ⊙ (½ + W ∗ h) + Σ_k m_{k+1} ⊙ warp(x, −u_k)

The motion fields have the resolution of the frame and are limited to r pixels a step. Several
transformations combined by masks follow Finn et al. 2016 (arXiv 1605.07157). Warping is backward
and bilinear, with the border repeated.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from pydantic import Field
from torch import Tensor, nn

import zoo


class AdvectHead(zoo.Head):
    """The current frame moved along motion fields, mixed with itself and a synthesized frame.

    Args:
        fields: K, the number of motion fields.
        reach: r, the largest motion along each axis, in pixels per step.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        patch: int = 1,
        fields: Annotated[int, Field(ge=1, le=64)] = 1,
        reach: Annotated[float, Field(gt=0, le=1000)] = 8.0,
    ) -> None:
        super().__init__(in_channels, channels, patch)
        self.fields = fields
        self.reach = reach
        self.motion = nn.Conv2d(in_channels, 2 * fields, 1)
        self.masks = nn.Conv2d(in_channels, (fields + 2) * patch**2, 1)
        self.synthesis = nn.Conv2d(in_channels, channels * patch**2, 1)
        with torch.no_grad():
            self.motion.bias.zero_()
            self.synthesis.bias.fill_(0.5)
            # The mask of the current frame dominates at first: an untrained head nearly repeats it.
            rearrange(self.masks.bias, "(pixel mask) -> mask pixel", mask=fields + 2)[0] += 2

    def forward(self, features: Tensor, frame: Tensor) -> Tensor:
        """Compute x′ by the equations above."""
        motion = self.motion(features)
        motion = motion.to(torch.promote_types(motion.dtype, torch.float32))
        motion = F.interpolate(motion, scale_factor=self.patch, mode="bilinear")
        flow = rearrange(self.reach * motion.tanh(), "b (k uv) h w -> b k uv h w", uv=2)
        moved = zoo.warp(frame, -flow, align_corners=True, padding="border")
        synthesis = 0.5 + self.to_pixels(self.synthesis(features))
        sources = torch.cat([frame[:, None], synthesis[:, None].to(frame.dtype), moved], dim=1)
        masks = self.to_pixels(self.masks(features)).to(frame.dtype).softmax(dim=1)
        return reduce(masks[:, :, None] * sources, "b source c h w -> b c h w", "sum")

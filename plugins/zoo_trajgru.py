"""TrajGRU (Shi et al. 2017, arXiv 1706.03458): a GRU that reads its hidden state along motion.

    flow = V ∗ φ(U ∗ [x, h])                                    L links, pairs (u, v) of pixels
    z_h, r_h, n_h = split(P ∗ [warp(h, −flow_1), …, warp(h, −flow_L)])         P is 1×1
    z_x, r_x, n_x = split(W ∗ x)
    z = σ(z_x + z_h);  r = σ(r_x + r_h)
    n = φ(n_x + r ⊙ n_h)
    h′ = (1 − z) ⊙ n + z ⊙ h

φ is the leaky ReLU with slope 0.2.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import torch
import torch.nn.functional as F
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn

import zoo


class TrajGRU(zoo.RecurrentCell):
    """TrajGRU. The state is h, (B, channels, H, W); the output is h′.

    Args:
        kernel_size: Kernel size of U, V and W.
        links: L, the number of positions that a pixel reads.
        slope: Slope of φ below zero.
        align_corners: See :func:`zoo.warp`. False matches the published code.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel_size: zoo.KernelSize = 3,
        links: Annotated[int, Field(ge=1, le=64)] = 10,
        slope: Annotated[float, Field(ge=0, le=1)] = 0.2,
        align_corners: bool = False,
    ) -> None:
        super().__init__(in_channels, channels)
        self.slope = slope
        self.align_corners = align_corners

        conv = partial(zoo.convolution, kernel_size=kernel_size)

        self.gates = conv(in_channels, 3 * channels)
        self.flow_hidden = conv(in_channels + channels, channels)
        self.flow = conv(channels, 2 * links)
        self.project = nn.Conv2d(links * channels, 3 * channels, 1)

    def init_state(self, x: Tensor) -> Tensor:
        """Return zeros for h."""
        return self.zeros(x)

    def forward(self, x: Tensor, state: Tensor) -> zoo.Step:
        """Take one step of the equations above."""
        h = state
        flow = self.flow(self._activate(self.flow_hidden(x, h)))
        flow = rearrange(flow, "b (l uv) h w -> b l uv h w", uv=2)
        z_x, r_x, n_x = self.gates(x).chunk(3, dim=1)
        z_h, r_h, n_h = zoo.recomputed(self._read, h, flow).chunk(3, dim=1)
        z = torch.sigmoid(z_x + z_h)
        r = torch.sigmoid(r_x + r_h)
        n = self._activate(n_x + r * n_h)
        h = (1 - z) * n + z * h
        return zoo.Step(h, h)

    def _read(self, h: Tensor, flow: Tensor) -> Tensor:
        """Return P ∗ [warp(h, −flow_1), …, warp(h, −flow_L)]."""
        warped = zoo.warp(h, -flow, align_corners=self.align_corners)
        # Links are the inner axis in memory; weights in that order save copying L maps.
        warped = rearrange(warped, "b l c h w -> b (c l) h w")
        weight = rearrange(self.project.weight, "o (l c) i j -> o (c l) i j", l=flow.shape[1])
        return F.conv2d(warped, weight, self.project.bias)

    def _activate(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, self.slope)

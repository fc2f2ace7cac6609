"""TrajGRU (Shi et al. 2017, arXiv 1706.03458): a GRU whose hidden state is read where it came from.

    flow = V ∗ φ(U ∗ [x, h])                                    L links, pairs (u, v) of pixels
    z_h, r_h, n_h = split(P ∗ [warp(h, −flow_1), …, warp(h, −flow_L)])         P is 1×1
    z_x, r_x, n_x = split(W ∗ x)
    z = σ(z_x + z_h);  r = σ(r_x + r_h)
    n = φ(n_x + r ⊙ n_h)
    h′ = (1 − z) ⊙ n + z ⊙ h

with φ the leaky rectifier, of slope 0.2 below zero.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

import zoo


class TrajGRU(zoo.RecurrentCell):
    """State: h, (B, channels, H, W). The output is h′.

    links: L, the number of places that a pixel reads.
    align_corners: see :func:`zoo.warp`; False is the published code's.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel_size: int = 3,
        links: int = 10,
        slope: float = 0.2,
        align_corners: bool = False,
    ) -> None:
        super().__init__(in_channels, channels)
        self.slope = slope
        self.align_corners = align_corners

        def conv(inputs: int, outputs: int) -> nn.Conv2d:
            return nn.Conv2d(inputs, outputs, kernel_size, padding="same")

        self.gates = conv(in_channels, 3 * channels)
        self.flow_hidden = conv(in_channels + channels, channels)
        self.flow = conv(channels, 2 * links)
        self.project = nn.Conv2d(links * channels, 3 * channels, 1)

    def init_state(self, x: Tensor) -> Tensor:
        """Zeros."""
        return self.zeros(x)

    def forward(self, x: Tensor, state: Tensor) -> zoo.Step:
        """One step of the equations above."""
        h = state
        flow = self.flow(self._activate(self.flow_hidden(torch.cat([x, h], dim=1))))
        flow = rearrange(flow, "b (l uv) h w -> b l uv h w", uv=2)
        warped = zoo.warp(h, -flow, align_corners=self.align_corners)
        warped = rearrange(warped, "b l c h w -> b (l c) h w")
        z_x, r_x, n_x = self.gates(x).chunk(3, dim=1)
        z_h, r_h, n_h = self.project(warped).chunk(3, dim=1)
        z = torch.sigmoid(z_x + z_h)
        r = torch.sigmoid(r_x + r_h)
        n = self._activate(n_x + r * n_h)
        h = (1 - z) * n + z * h
        return zoo.Step(h, h)

    def _activate(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, self.slope)


@zoo.hookimpl
def zoo_cells() -> dict[str, type[zoo.RecurrentCell]]:
    """Offer the cell to the zoo."""
    return {"trajgru": TrajGRU}

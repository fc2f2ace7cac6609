"""MyCell: describe here what is new about it, and cite its paper.

As a starting point, this is the minimal gated unit (Zhou et al. 2016, arXiv 1603.09420) with
convolutions:

    f = σ(W ∗ [x, h])
    h′ = (1 − f) ⊙ h + f ⊙ tanh(V ∗ [x, f ⊙ h])
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import zoo


class MyCell(zoo.RecurrentCell):
    """A convolutional minimal gated unit.

    The state is h, (B, channels, H, W); the output is h′.

    Args:
        in_channels: the number of input channels.
        channels: the number of output channels.
        kernel_size: the size of both kernels. Every argument with a default is an option of
            `zoo.create`.
    """

    def __init__(self, in_channels: int, channels: int, kernel_size: int = 3) -> None:
        super().__init__(in_channels, channels)
        self.gate = nn.Conv2d(in_channels + channels, channels, kernel_size, padding="same")
        self.new = nn.Conv2d(in_channels + channels, channels, kernel_size, padding="same")

    def init_state(self, x: Tensor) -> Tensor:
        """Start from zeros."""
        return self.zeros(x)

    def forward(self, x: Tensor, state: Tensor) -> zoo.Step:
        """Compute one step of the equations above."""
        h = state
        f = torch.sigmoid(self.gate(torch.cat([x, h], dim=1)))
        h = (1 - f) * h + f * torch.tanh(self.new(torch.cat([x, f * h], dim=1)))
        return zoo.Step(output=h, state=h)

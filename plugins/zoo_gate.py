"""Gate head: a mixture of the current frame and a synthesized one, gated per pixel.

    g = σ(V ∗ h + b)
    s = ½ + W ∗ h
    x′ = (1 − g) ⊙ x + g ⊙ s

Where g is 0, the pixel is copied; where g is 1, it is replaced regardless of its old value, which
the change head would have to cancel exactly. b starts at −2, where the gate is nearly closed but
still passes gradients. s starts at mid-gray: if it started at black, training would close the gate
for good.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

import zoo


class GateHead(zoo.Head):
    """A mixture of the current frame and a synthesized one, with one gate per pixel.

    Args:
        bias_start: Initial value of b.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        patch: int = 1,
        bias_start: Annotated[float, Field(ge=-100, le=100)] = -2.0,
    ) -> None:
        super().__init__(in_channels, channels, patch)
        self.gate = nn.Conv2d(in_channels, patch**2, 1)
        self.synthesis = nn.Conv2d(in_channels, channels * patch**2, 1)
        with torch.no_grad():
            self.gate.bias.fill_(bias_start)
            self.synthesis.bias.fill_(0.5)

    def forward(self, features: Tensor, frame: Tensor) -> Tensor:
        """Compute x′ by the equations above."""
        g = torch.sigmoid(self.to_pixels(self.gate(features)))
        s = self.to_pixels(self.synthesis(features))
        return torch.lerp(frame, s.to(frame.dtype), g.to(frame.dtype))

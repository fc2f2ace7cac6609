"""Change head: the current frame plus a predicted change.

    x′ = x + W ∗ h

W starts near zero, so that an untrained network repeats the frame (persistence) and training only
has to learn the differences. This is the residual connection of ResNets (arXiv 1512.03385), from
the frame to the prediction.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

import zoo


class ChangeHead(zoo.Head):
    """The current frame plus a change, both at full resolution.

    Args:
        scale: Factor on the initial weights of W.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        patch: int = 1,
        scale: Annotated[float, Field(gt=0, le=100)] = 0.1,
    ) -> None:
        super().__init__(in_channels, channels, patch)
        self.conv = nn.Conv2d(in_channels, channels * patch**2, 1)
        with torch.no_grad():
            self.conv.weight.mul_(scale)
            self.conv.bias.zero_()

    def forward(self, features: Tensor, frame: Tensor) -> Tensor:
        """Compute x′ by the equation above."""
        return frame + self.to_pixels(self.conv(features))

"""Gate head: per pixel, a learned mixture of the last frame and a synthesized one.

    g = σ(V ∗ h + b)
    s = ½ + W ∗ h
    x′ = (1 − g) ⊙ x + g ⊙ s

Where g is 0 the last frame stays as it is; where g is 1 the pixel is replaced, whatever was
there before. The change head must cancel the old value exactly; this one need not know it. b
starts at −2, a gate that is nearly closed but still passes gradients, and s starts from mid-grey,
so that the gate is not closed for good because the first syntheses are black.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import zoo


class GateHead(zoo.Head):
    """A mixture of the last frame and a synthesized one; one gate per pixel for all channels.

    Args:
        bias_start: b at the start of training.
    """

    def __init__(
        self, in_channels: int, channels: int, patch: int = 1, bias_start: float = -2.0
    ) -> None:
        super().__init__(in_channels, channels, patch)
        self.gate = nn.Conv2d(in_channels, patch**2, 1)
        self.synthesis = nn.Conv2d(in_channels, channels * patch**2, 1)
        with torch.no_grad():
            self.gate.bias.fill_(bias_start)
            self.synthesis.bias.fill_(0.5)

    def forward(self, features: Tensor, frame: Tensor) -> Tensor:
        """One step of the equations above."""
        g = torch.sigmoid(self.to_pixels(self.gate(features)))
        s = self.to_pixels(self.synthesis(features))
        return torch.lerp(frame, s.to(frame.dtype), g.to(frame.dtype))


@zoo.hookimpl
def zoo_heads() -> dict[str, type[zoo.Head]]:
    """Offer the head to the zoo."""
    return {"gate": GateHead}

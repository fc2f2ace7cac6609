"""PredRNN (Wang et al. 2017): the spatiotemporal LSTM.

Beside the cell's own memory c, which stays in its layer, a memory m rises through the
layers within a step, and goes from the top layer to the bottom layer of the next step.

    i, f, g, o = split(W ∗ [x, h] + b)
    c′ = σ(f) ⊙ c + σ(i) ⊙ tanh(g)
    iₘ, fₘ, gₘ = split(Wₘ ∗ [x, m] + bₘ)
    m′ = σ(fₘ) ⊙ m + σ(iₘ) ⊙ tanh(gₘ)
    h′ = σ(o + Wₒ ∗ [c′, m′]) ⊙ tanh(W₁ₓ₁ ∗ [c′, m′])
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import zoo


class PredRNN(zoo.RecurrentCell):
    """State: h, c; memory: m; each (B, channels, H, W). The output is h′."""

    def __init__(self, in_channels: int, channels: int, kernel_size: int = 3) -> None:
        super().__init__(in_channels, channels)

        def conv(inputs: int, outputs: int) -> nn.Conv2d:
            return nn.Conv2d(inputs, outputs, kernel_size, padding="same")

        self.gates = conv(in_channels + channels, 4 * channels)
        self.memory_gates = conv(in_channels + channels, 3 * channels)
        self.output_gate = conv(2 * channels, channels)
        self.mix = nn.Conv2d(2 * channels, channels, 1)

    def init_state(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Zeros."""
        return self.zeros(x), self.zeros(x)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor], memory: Tensor) -> zoo.Step:
        """One step of the equations above."""
        h, c = state
        m = memory
        i, f, g, o = self.gates(torch.cat([x, h], dim=1)).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        i, f, g = self.memory_gates(torch.cat([x, m], dim=1)).chunk(3, dim=1)
        m = torch.sigmoid(f) * m + torch.sigmoid(i) * torch.tanh(g)
        both = torch.cat([c, m], dim=1)
        h = torch.sigmoid(o + self.output_gate(both)) * torch.tanh(self.mix(both))
        return zoo.Step(h, (h, c), memory=m)


@zoo.hookimpl
def zoo_cells() -> dict[str, type[zoo.RecurrentCell]]:
    """Offer the cell to the zoo."""
    return {"predrnn": PredRNN}

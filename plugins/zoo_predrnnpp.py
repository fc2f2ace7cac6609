"""PredRNN++ (Wang et al. 2018, arXiv 1804.06300): causal LSTM and gradient highway.

Causal LSTM, in which the memory m, that rises through the layers, follows on the memory c:

    i, f, g = split(W₁ ∗ [x, h, c]);     c′ = σ(f) ⊙ c + σ(i) ⊙ tanh(g)
    i, f, g = split(W₂ ∗ [x, c′, m]);    m′ = σ(f) ⊙ tanh(W₃ ∗ m) + σ(i) ⊙ tanh(g)
    o = tanh(W₄ ∗ [x, c′, m′])
    h′ = o ⊙ tanh(W₅ ∗ [c′, m′])                                      W₃, W₅ are 1×1

Gradient highway unit, on the way from the bottom layer to the one above it:

    p, s = split(W ∗ [x, z]);    z′ = σ(s) ⊙ tanh(p) + (1 − σ(s)) ⊙ z;    x ← z′

The published code holds a highway in every layer and uses that of layer 1; here no other
layer has one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import zoo


class GradientHighway(nn.Module):
    """The gradient highway unit, which keeps the width of its input."""

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(2 * channels, 2 * channels, kernel_size, padding="same")

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """z′."""
        p, s = self.gates(torch.cat([x, z], dim=1)).chunk(2, dim=1)
        s = torch.sigmoid(s)
        return s * torch.tanh(p) + (1 - s) * z


class PredRNNpp(zoo.RecurrentCell):
    """State: h, c, and z in layer 1; memory: m; each (B, channels, H, W). The output is h′."""

    def __init__(
        self, in_channels: int, channels: int, place: zoo.Place, kernel_size: int = 3
    ) -> None:
        super().__init__(in_channels, channels)

        def conv(inputs: int, outputs: int, k: int = kernel_size) -> nn.Conv2d:
            return nn.Conv2d(inputs, outputs, k, padding="same")

        self.highway = GradientHighway(in_channels, kernel_size) if place.index == 1 else None
        self.gates = conv(in_channels + 2 * channels, 3 * channels)
        self.memory_gates = conv(in_channels + 2 * channels, 3 * channels)
        self.memory_mix = conv(channels, channels, 1)
        self.output_gate = conv(in_channels + 2 * channels, channels)
        self.mix = conv(2 * channels, channels, 1)

    def init_state(self, x: Tensor) -> tuple[Tensor, ...]:
        """Zeros."""
        z = () if self.highway is None else (torch.zeros_like(x),)
        return self.zeros(x), self.zeros(x), *z

    def forward(self, x: Tensor, state: tuple[Tensor, ...], memory: Tensor) -> zoo.Step:
        """One step of the equations above."""
        h, c, *z = state
        m = memory
        if self.highway is not None:
            x = self.highway(x, z[0])
            z = [x]
        i, f, g = self.gates(torch.cat([x, h, c], dim=1)).chunk(3, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        i, f, g = self.memory_gates(torch.cat([x, c, m], dim=1)).chunk(3, dim=1)
        m = torch.sigmoid(f) * torch.tanh(self.memory_mix(m)) + torch.sigmoid(i) * torch.tanh(g)
        o = torch.tanh(self.output_gate(torch.cat([x, c, m], dim=1)))
        h = o * torch.tanh(self.mix(torch.cat([c, m], dim=1)))
        return zoo.Step(h, (h, c, *z), memory=m)


@zoo.hookimpl
def zoo_cells() -> dict[str, type[zoo.RecurrentCell]]:
    """Offer the cell to the zoo."""
    return {"predrnnpp": PredRNNpp}

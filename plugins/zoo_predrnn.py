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

from functools import partial

import torch
from torch import Tensor, nn

import zoo


class PredRNN(zoo.RecurrentCell):
    """State: h, c; memory: m; each (B, channels, H, W). The output is h′.

    bias: of all convolutions. forget_bias: a number added to f and fₘ. norm: layer
    normalisation after the k×k convolutions, as its authors' code has it: one convolution of x
    for all gates, one of h, one of m; needs the size of the frames.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel_size: int = 3,
        bias: bool = True,
        forget_bias: float = 0.0,
        norm: bool = False,
        size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(in_channels, channels)
        self.forget_bias = forget_bias
        self.norm = norm
        conv = partial(zoo.convolution, kernel_size=kernel_size, bias=bias, norm=norm, size=size)
        if norm:
            self.x_gates = conv(in_channels, 7 * channels)
            self.h_gates = conv(channels, 4 * channels)
            self.m_gates = conv(channels, 3 * channels)
        else:
            self.gates = conv(in_channels + channels, 4 * channels)
            self.memory_gates = conv(in_channels + channels, 3 * channels)
        self.output_gate = conv(2 * channels, channels)
        self.mix = nn.Conv2d(2 * channels, channels, 1, bias=bias)

    def init_state(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Zeros."""
        return self.zeros(x), self.zeros(x)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor], memory: Tensor) -> zoo.Step:
        """One step of the equations above."""
        return self.advance(x, state, memory)[0]

    def advance(
        self, x: Tensor, state: tuple[Tensor, Tensor], memory: Tensor
    ) -> tuple[zoo.Step, Tensor, Tensor]:
        """One step, and what c and m gain in it, the products of i and g."""
        h, c = state
        m = memory
        gates, memory_gates = self._gates(x, h, m)
        i, f, g, o = gates.chunk(4, dim=1)
        delta_c = torch.sigmoid(i) * torch.tanh(g)
        c = torch.sigmoid(f + self.forget_bias) * c + delta_c
        i, f, g = memory_gates.chunk(3, dim=1)
        delta_m = torch.sigmoid(i) * torch.tanh(g)
        m = torch.sigmoid(f + self.forget_bias) * m + delta_m
        both = torch.cat([c, m], dim=1)
        h = torch.sigmoid(o + self.output_gate(both)) * torch.tanh(self.mix(both))
        return zoo.Step(h, (h, c), memory=m), delta_c, delta_m

    def _gates(self, x: Tensor, h: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
        """i, f, g, o as one map, and iₘ, fₘ, gₘ."""
        if not self.norm:
            gates = self.gates(torch.cat([x, h], dim=1))
            return gates, self.memory_gates(torch.cat([x, m], dim=1))
        of_x, of_x_for_m = self.x_gates(x).split([4 * self.channels, 3 * self.channels], dim=1)
        return of_x + self.h_gates(h), of_x_for_m + self.m_gates(m)


@zoo.hookimpl
def zoo_cells() -> dict[str, type[zoo.RecurrentCell]]:
    """Offer the cell to the zoo."""
    return {"predrnn": PredRNN}

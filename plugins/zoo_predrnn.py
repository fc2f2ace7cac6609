"""PredRNN (Wang et al. 2017): the spatiotemporal LSTM.

Besides the memory c, which stays in its layer, there is a memory m that passes from layer to
layer within a step, and from the top layer to the bottom layer of the next step.

    i, f, g, o = split(W ∗ [x, h] + b)
    c′ = σ(f) ⊙ c + σ(i) ⊙ tanh(g)
    iₘ, fₘ, gₘ = split(Wₘ ∗ [x, m] + bₘ)
    m′ = σ(fₘ) ⊙ m + σ(iₘ) ⊙ tanh(gₘ)
    h′ = σ(o + Wₒ ∗ [c′, m′]) ⊙ tanh(W₁ₓ₁ ∗ [c′, m′])
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

import zoo


class PredRNN(zoo.RecurrentCell):
    """PredRNN. The state is h, c, the memory m, each (B, channels, H, W); the output is h′.

    Args:
        kernel_size: Kernel size of W, Wₘ and Wₒ.
        bias: Whether the convolutions have biases.
        forget_bias: Number added to f and fₘ.
        norm: Whether layer normalization follows the k×k convolutions. As in the authors' code,
            these are then one of x for all gates, one of h and one of m. Requires the size of the
            frames.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel_size: zoo.KernelSize = 3,
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
        self.mix = zoo.convolution(2 * channels, channels, 1, bias=bias)

    def init_state(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return zeros for h and c."""
        return self.zeros(x), self.zeros(x)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor], memory: Tensor) -> zoo.Step:
        """Take one step of the equations above."""
        return self.advance(x, state, memory)[0]

    def advance(
        self, x: Tensor, state: tuple[Tensor, Tensor], memory: Tensor
    ) -> tuple[zoo.Step, Tensor, Tensor]:
        """Take one step; also return σ(i) ⊙ tanh(g) and σ(iₘ) ⊙ tanh(gₘ)."""
        h, c = state
        m = memory
        gates, memory_gates = self._gates(x, h, m)
        i, f, g, o = zoo.activate(gates, "ifg_", self.forget_bias)
        delta_c = i * g
        c = f * c + delta_c
        i, f, g = zoo.activate(memory_gates, "ifg", self.forget_bias)
        delta_m = i * g
        m = f * m + delta_m
        h = zoo.gated(torch.sigmoid(o + self.output_gate(c, m)), self.mix(c, m))
        return zoo.Step(h, (h, c), memory=m), delta_c, delta_m

    def _gates(self, x: Tensor, h: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
        """Return [i, f, g, o] and [iₘ, fₘ, gₘ]."""
        if not self.norm:
            return self.gates(x, h), self.memory_gates(x, m)
        x_gates, x_memory = self.x_gates(x).split([4 * self.channels, 3 * self.channels], dim=1)
        return x_gates + self.h_gates(h), x_memory + self.m_gates(m)

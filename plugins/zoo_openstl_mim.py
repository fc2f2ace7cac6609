"""MIM (Wang et al. 2019, arXiv 1811.07490) as in OpenSTL and the authors' code.

Both cascaded memories are LSTMs with peepholes, P(x, h, c) → h⁺, c⁺, instead of the convolutions
of the memories in `mim`, the cell of the MS-RNN papers:

    i, f, g, o = split(Wₓ ∗ x + W_h ∗ h)
    c⁺ = σ(f + w_f ⊙ c + 1) ⊙ c + σ(i + w_i ⊙ c) ⊙ tanh(g);    h⁺ = σ(o + w_o ⊙ c⁺) ⊙ tanh(c⁺)

The bottom layer is PredRNN's cell. Above it, x is the output of the layer below:

    n′, d′ = P(Δ, n, d)        Δ = x − (x one step ago) in layer 1, n′ of the layer below above it
    T, s′ = P(n′, c, s)
    i_x, f_x, g_x, o_x = split(Wₓ ∗ x);   i_m, f_m, g_m, o_m = split(Wₘ ∗ m)
    i_h, g_h, o_h = split(W_h ∗ h)
    m′ = σ(f_x + f_m + 1) ⊙ m + σ(i_x + i_m) ⊙ tanh(g_x + g_m)
    c′ = T + σ(i_x + i_h) ⊙ tanh(g_x + g_h)
    h′ = σ(o_x + o_h + o_m) ⊙ tanh(W₁ₓ₁ ∗ [c′, m′])

At the first step there is no difference, and n′ and d′ are 0. Convolutions have no biases. In the
published code s persists from one forecast to the next; here it starts at 0 like all state.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from zoo_predrnn import PredRNN

import zoo


class PeepholeLSTM(nn.Module):
    """P, with peephole weights per pixel if the size is given, else per channel."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        forget_bias: float,
        size: tuple[int, int] | None,
        conv: Callable[[int, int], nn.Module],
    ) -> None:
        super().__init__()
        self.forget_bias = forget_bias
        self.x_gates = conv(in_channels, 4 * channels)
        self.h_gates = conv(channels, 4 * channels)
        self.ct_weight = nn.Parameter(torch.zeros(2 * channels, *(size or (1, 1))))  # of i, f
        self.oc_weight = nn.Parameter(torch.zeros(channels, *(size or (1, 1))))

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Return h⁺ and c⁺."""
        i, f, g, o = (self.x_gates(x) + self.h_gates(h)).chunk(4, dim=1)
        w_i, w_f = self.ct_weight.chunk(2, dim=0)
        f = torch.sigmoid(f + w_f * c + self.forget_bias)
        c = f * c + torch.sigmoid(i + w_i * c) * zoo.tanh(g)
        return torch.sigmoid(o + self.oc_weight * c) * zoo.tanh(c), c


class OpenSTLMIM(zoo.RecurrentCell):
    """MIM of OpenSTL. The state is h, c (and n, d, s above the bottom layer); the output is h′.

    Each is (B, channels, H, W). The memory is m; layers 1 and above also pass n′ to the next layer.
    Above the bottom layer, the state has a flag, (B, 1, 1, 1), which is 0 at the first step and 1
    afterwards.

    Args:
        kernel_size: Kernel size of all convolutions but W₁ₓ₁.
        forget_bias: The 1 in the equations.
        norm: Whether layer normalization follows the k×k convolutions. Requires the size of the
            frames.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        place: zoo.Place,
        kernel_size: zoo.KernelSize = 5,
        forget_bias: float = 1.0,
        norm: bool = False,
        size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(in_channels, channels)
        self.place = place
        self.forget_bias = forget_bias
        if place.first:
            self.bottom = PredRNN(
                in_channels, channels, kernel_size, False, forget_bias, norm, size
            )
            return
        conv = partial(zoo.convolution, kernel_size=kernel_size, bias=False, norm=norm, size=size)
        difference_channels = in_channels if place.index == 1 else channels
        self.difference = PeepholeLSTM(difference_channels, channels, forget_bias, size, conv)
        self.stationary = PeepholeLSTM(channels, channels, forget_bias, size, conv)
        self.x_gates = conv(in_channels, 4 * channels)
        self.m_gates = conv(channels, 4 * channels)
        self.h_gates = conv(channels, 3 * channels)
        self.mix = zoo.convolution(2 * channels, channels, 1, bias=False)

    def init_state(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return zeros for the whole state, including the flag."""
        if self.place.first:
            return self.bottom.init_state(x)
        return *(self.zeros(x) for _ in range(5)), x.new_zeros(x.shape[0], 1, 1, 1)

    def forward(
        self,
        x: Tensor,
        state: tuple[Tensor, ...],
        memory: Tensor | tuple[Tensor, Tensor],
        below: Tensor | None,
    ) -> zoo.Step:
        """Take one step of the equations above."""
        if self.place.first:
            return self.bottom(x, state, memory)
        h, c, n, d, s, started = state
        m, difference = (memory, x - below) if self.place.index == 1 else memory
        n, d = (started * new for new in self.difference(difference, n, d))
        t, s = self.stationary(n, c, s)
        i_x, f_x, g_x, o_x = self.x_gates(x).chunk(4, dim=1)
        i_m, f_m, g_m, o_m = self.m_gates(m).chunk(4, dim=1)
        i_h, g_h, o_h = self.h_gates(h).chunk(3, dim=1)
        f = torch.sigmoid(f_x + f_m + self.forget_bias)
        m = f * m + torch.sigmoid(i_x + i_m) * zoo.tanh(g_x + g_m)
        c = t + torch.sigmoid(i_x + i_h) * zoo.tanh(g_x + g_h)
        h = torch.sigmoid(o_x + o_h + o_m) * zoo.tanh(self.mix(c, m))
        state = (h, c, n, d, s, torch.ones_like(started))
        return zoo.Step(h, state, memory=m if self.place.last else (m, n))

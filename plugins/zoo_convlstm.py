"""ConvLSTM (Shi et al. 2015, arXiv 1506.04214): an LSTM with convolutions for products.

    i, f, g, o = split(W ∗ [x, h] + b)
    c′ = σ(f) ⊙ c + σ(i) ⊙ tanh(g)
    h′ = σ(o) ⊙ tanh(c′)

As in the MS-RNN papers, there are no peepholes.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor

import zoo


class ConvLSTM(zoo.RecurrentCell):
    """ConvLSTM. The state is h, c, each (B, channels, H, W); the output is h′.

    Args:
        kernel_size: Kernel size of W.
        bias: Whether b exists.
        forget_bias: Number added to f.
        norm: Whether to split W into one convolution of x and one of h, each followed by layer
            normalization. Requires the size of the frames.
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
            self.x_gates = conv(in_channels, 4 * channels)
            self.h_gates = conv(channels, 4 * channels)
        else:
            self.gates = conv(in_channels + channels, 4 * channels)

    def init_state(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return zeros for h and c."""
        return self.zeros(x), self.zeros(x)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> zoo.Step:
        """Take one step of the equations above."""
        h, c = state
        gates = self.x_gates(x) + self.h_gates(h) if self.norm else self.gates(x, h)
        i, f, g, o = zoo.activate(gates, "ifgo", self.forget_bias)
        c = zoo.update(f, c, i, g)
        h = zoo.gated(o, c)
        return zoo.Step(h, (h, c))

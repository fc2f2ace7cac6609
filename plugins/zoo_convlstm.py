"""ConvLSTM (Shi et al. 2015, arXiv 1506.04214): an LSTM whose products are convolutions.

    i, f, g, o = split(W ∗ [x, h] + b)
    c′ = σ(f) ⊙ c + σ(i) ⊙ tanh(g)
    h′ = σ(o) ⊙ tanh(c′)

without the paper's peepholes, as the MS-RNN papers use it.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

import zoo


class ConvLSTM(zoo.RecurrentCell):
    """State: h, c, each (B, channels, H, W). The output is h′.

    bias: b. forget_bias: a number added to f. norm: layer normalisation after the convolutions
    of x and of h, which are then two; needs the size of the frames.
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
            self.x_gates = conv(in_channels, 4 * channels)
            self.h_gates = conv(channels, 4 * channels)
        else:
            self.gates = conv(in_channels + channels, 4 * channels)

    def init_state(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Zeros."""
        return self.zeros(x), self.zeros(x)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> zoo.Step:
        """One step of the equations above."""
        h, c = state
        if self.norm:
            gates = self.x_gates(x) + self.h_gates(h)
        else:
            gates = self.gates(torch.cat([x, h], dim=1))
        i, f, g, o = gates.chunk(4, dim=1)
        c = torch.sigmoid(f + self.forget_bias) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return zoo.Step(h, (h, c))


@zoo.hookimpl
def zoo_cells() -> dict[str, type[zoo.RecurrentCell]]:
    """Offer the cell to the zoo."""
    return {"convlstm": ConvLSTM}

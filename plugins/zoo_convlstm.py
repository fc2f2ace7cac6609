"""ConvLSTM (Shi et al. 2015, arXiv 1506.04214): an LSTM whose products are convolutions.

    i, f, g, o = split(W ∗ [x, h] + b)
    c′ = σ(f) ⊙ c + σ(i) ⊙ tanh(g)
    h′ = σ(o) ⊙ tanh(c′)

without the paper's peepholes, as the MS-RNN papers use it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import zoo


class ConvLSTM(zoo.RecurrentCell):
    """State: h, c, each (B, channels, H, W). The output is h′."""

    def __init__(self, in_channels: int, channels: int, kernel_size: int = 3) -> None:
        super().__init__(in_channels, channels)
        self.gates = nn.Conv2d(in_channels + channels, 4 * channels, kernel_size, padding="same")

    def init_state(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Zeros."""
        return self.zeros(x), self.zeros(x)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> zoo.Step:
        """One step of the equations above."""
        h, c = state
        i, f, g, o = self.gates(torch.cat([x, h], dim=1)).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return zoo.Step(h, (h, c))


@zoo.hookimpl
def zoo_cells() -> dict[str, type[zoo.RecurrentCell]]:
    """Offer the cell to the zoo."""
    return {"convlstm": ConvLSTM}

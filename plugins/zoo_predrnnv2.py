"""PredRNN-V2 (Wang et al. 2022, arXiv 2103.09504): PredRNN with memories pushed apart.

PredRNN's cell, and in training a loss on what c and m gain in a step,

    Δc = σ(i) ⊙ tanh(g),   Δm = σ(iₘ) ⊙ tanh(gₘ)
    d = |cosine(A ∗ Δc, A ∗ Δm)|                  for each sample and channel, over pixels

with one 1×1 convolution A for all layers. The sum of d over channels and layers enters the
training loss with the weight 0.01.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import zoo


class PredRNNV2(zoo.RecurrentCell):
    """State: h, c; memory: m; each (B, channels, H, W). The output is h′.

    decouple_weight: of the loss above.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel_size: int = 3,
        decouple_weight: float = 0.01,
    ) -> None:
        super().__init__(in_channels, channels)
        self.decouple_weight = decouple_weight

        def conv(inputs: int, outputs: int) -> nn.Conv2d:
            return nn.Conv2d(inputs, outputs, kernel_size, padding="same")

        self.gates = conv(in_channels + channels, 4 * channels)
        self.memory_gates = conv(in_channels + channels, 3 * channels)
        self.output_gate = conv(2 * channels, channels)
        self.mix = nn.Conv2d(2 * channels, channels, 1)

    @classmethod
    def make_shared(cls, channels: int, **options: object) -> nn.Module:
        """A, for all layers."""
        return nn.Conv2d(channels, channels, 1)

    def init_state(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Zeros."""
        return self.zeros(x), self.zeros(x)

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor], memory: Tensor, shared: nn.Module
    ) -> zoo.Step:
        """One step of PredRNN's equations, and in training the loss above."""
        h, c = state
        m = memory
        i, f, g, o = self.gates(torch.cat([x, h], dim=1)).chunk(4, dim=1)
        delta_c = torch.sigmoid(i) * torch.tanh(g)
        c = torch.sigmoid(f) * c + delta_c
        i, f, g = self.memory_gates(torch.cat([x, m], dim=1)).chunk(3, dim=1)
        delta_m = torch.sigmoid(i) * torch.tanh(g)
        m = torch.sigmoid(f) * m + delta_m
        both = torch.cat([c, m], dim=1)
        h = torch.sigmoid(o + self.output_gate(both)) * torch.tanh(self.mix(both))
        loss = self._decouple(shared(delta_c), shared(delta_m)) if self.training else None
        return zoo.Step(h, (h, c), memory=m, loss=loss)

    def _decouple(self, a: Tensor, b: Tensor) -> Tensor:
        cosine = F.cosine_similarity(a.flatten(2), b.flatten(2), dim=2)  # over H·W: (B, C)
        return self.decouple_weight * cosine.abs().sum(dim=1)


@zoo.hookimpl
def zoo_cells() -> dict[str, type[zoo.RecurrentCell]]:
    """Offer the cell to the zoo."""
    return {"predrnnv2": PredRNNV2}

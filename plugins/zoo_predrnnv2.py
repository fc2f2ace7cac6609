"""PredRNN-V2 (Wang et al. 2022, arXiv 2103.09504): PredRNN with memories pushed apart.

PredRNN's cell, and in training a loss on what c and m gain in a step,

    Δc = σ(i) ⊙ tanh(g),   Δm = σ(iₘ) ⊙ tanh(gₘ)
    d = |cosine(A ∗ Δc, A ∗ Δm)|                  for each sample and channel, over pixels

with one 1×1 convolution A for all layers. The sum of d over channels and layers enters the
training loss with the weight 0.01.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from zoo_predrnn import PredRNN

import zoo


class PredRNNV2(PredRNN):
    """State, memory, output and options of PredRNN; decouple_weight: of the loss above."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel_size: int = 3,
        decouple_weight: float = 0.01,
        bias: bool = True,
        forget_bias: float = 0.0,
        norm: bool = False,
        size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(in_channels, channels, kernel_size, bias, forget_bias, norm, size)
        self.decouple_weight = decouple_weight

    @classmethod
    def make_shared(cls, channels: int, bias: bool = True, **options: Any) -> nn.Module:
        """A, for all layers."""
        return nn.Conv2d(channels, channels, 1, bias=bias)

    def forward(  # type: ignore[override]
        self, x: Tensor, state: tuple[Tensor, Tensor], memory: Tensor, shared: nn.Module
    ) -> zoo.Step:
        """One step of PredRNN's equations, and in training the loss above."""
        step, delta_c, delta_m = self.advance(x, state, memory)
        if not self.training:
            return step
        return step._replace(loss=self._decouple(shared(delta_c), shared(delta_m)))

    def _decouple(self, a: Tensor, b: Tensor) -> Tensor:
        cosine = F.cosine_similarity(a.flatten(2), b.flatten(2), dim=2)  # over H·W: (B, C)
        return self.decouple_weight * cosine.abs().sum(dim=1)


@zoo.hookimpl
def zoo_cells() -> dict[str, type[zoo.RecurrentCell]]:
    """Offer the cell to the zoo."""
    return {"predrnnv2": PredRNNV2}

"""PredRNN-V2 (Wang et al. 2022, arXiv 2103.09504): PredRNN with decoupled memories.

The cell is PredRNN's. In training, a loss decouples the increments of c and m:

    Δc = σ(i) ⊙ tanh(g),   Δm = σ(iₘ) ⊙ tanh(gₘ)
    d = |cosine(A ∗ Δc, A ∗ Δm)|                  per sample and channel, over pixels

A is one 1×1 convolution shared by all layers. The sum of d over channels and layers is added to
the training loss with weight 0.01.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from zoo_predrnn import PredRNN

import zoo


class PredRNNV2(PredRNN):
    """PredRNN-V2. State, memory, output and the other options are those of PredRNN.

    Args:
        decouple_weight: Weight of the loss above.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel_size: zoo.KernelSize = 3,
        decouple_weight: Annotated[float, Field(ge=0, le=1000)] = 0.01,
        bias: bool = True,
        forget_bias: float = 0.0,
        norm: bool = False,
        size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(in_channels, channels, kernel_size, bias, forget_bias, norm, size)
        self.decouple_weight = decouple_weight

    @classmethod
    def make_shared(cls, channels: int, bias: bool = True, **options: Any) -> nn.Module:
        """Return A."""
        return nn.Conv2d(channels, channels, 1, bias=bias)

    def forward(  # type: ignore[override]
        self, x: Tensor, state: tuple[Tensor, Tensor], memory: Tensor, shared: nn.Module
    ) -> zoo.Step:
        """Take one step of PredRNN; in training mode, add the loss above."""
        step, delta_c, delta_m = self.advance(x, state, memory)
        if not self.training:
            return step
        return step._replace(loss=self._decouple(shared(delta_c), shared(delta_m)))

    def _decouple(self, a: Tensor, b: Tensor) -> Tensor:
        cosine = F.cosine_similarity(a.flatten(2), b.flatten(2), dim=2)  # over H·W: (B, C)
        return self.decouple_weight * cosine.abs().sum(dim=1)

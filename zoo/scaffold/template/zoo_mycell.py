"""MyCell: say here what is new about it, and which paper it is from.

To begin with, this is the minimal gated unit (Zhou et al. 2016, arXiv 1603.09420), its
products convolutions:

    f = σ(W ∗ [x, h])
    h′ = (1 − f) ⊙ h + f ⊙ tanh(V ∗ [x, f ⊙ h])
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import zoo

#: The version of the zoo's hooks that this plugin is written for.
ZOO_HOOKS = 1


class MyCell(zoo.RecurrentCell):
    """State: h, (B, channels, H, W). The output is h′.

    kernel_size: of both convolutions; an option of `zoo.create`, as any argument with a default.
    """

    def __init__(self, in_channels: int, channels: int, kernel_size: int = 3) -> None:
        super().__init__(in_channels, channels)
        self.gate = nn.Conv2d(in_channels + channels, channels, kernel_size, padding="same")
        self.new = nn.Conv2d(in_channels + channels, channels, kernel_size, padding="same")

    def init_state(self, x: Tensor) -> Tensor:
        """Zeros."""
        return self.zeros(x)

    def forward(self, x: Tensor, state: Tensor) -> zoo.Step:
        """One step of the equations above."""
        h = state
        f = torch.sigmoid(self.gate(torch.cat([x, h], dim=1)))
        h = (1 - f) * h + f * torch.tanh(self.new(torch.cat([x, f * h], dim=1)))
        return zoo.Step(output=h, state=h)


@zoo.hookimpl
def zoo_cells() -> dict[str, type[zoo.RecurrentCell]]:
    """Offer the cell to the zoo, which makes `mycell` and `ms-mycell` of it."""
    return {"mycell": MyCell}


# Weights that you have published become loadable by name, `zoo.load("ms-mycell-mmnist")`, with:
#
# @zoo.hookimpl
# def zoo_pretrained():
#     return {
#         "ms-mycell-mmnist": zoo.Pretrained(
#             "hf-hub:me/ms-mycell-mmnist", sha256="what sha256sum prints of model.safetensors"
#         )
#     }

"""The training objective: a forecaster and the loss of its rollout, as one module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.forecast import Forecaster
from zoo.train.recipe import LossRecipe
from zoo.units import scale

__all__ = ["Objective"]


class Objective(nn.Module):
    """The loss of a model on whole sequences, that of a recipe.

    All T − 1 one-step predictions are compared with frames 1 … T − 1: the weighted sum of
    squared and of absolute errors over (C, H, W), averaged over steps; and the auxiliary
    losses of the cells. It is one module so that a data-parallel wrapper sees one forward.

    Args:
        model: the forecaster.
        loss: how errors are weighted.
        checkpoint_every: steps in time whose activations are computed again in the backward
            pass; None keeps all.
    """

    thresholds: Tensor
    weights: Tensor

    def __init__(
        self,
        model: Forecaster,
        loss: LossRecipe | None = None,
        checkpoint_every: int | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = loss or LossRecipe()
        self.l1 = 1.0 if self.loss.l1 is None else self.loss.l1
        self.checkpoint_every = checkpoint_every
        # Thresholds are told in units of the data, and sequences are scaled.
        told = torch.tensor(self.loss.thresholds).view(1, 1, -1)
        scaled = scale(told, model.config.data, like=told).flatten() if told.numel() else told[0, 0]
        self.register_buffer("thresholds", scaled, persistent=False)
        self.register_buffer("weights", torch.tensor(self.loss.weights), persistent=False)

    def forward(self, sequences: Tensor, fed: Tensor) -> Tensor:
        """Scaled sequences (B, T, C, H, W), fed (B, T − 1) of bool, to losses (B,).

        NaN is what is missing: the network reads it as 0, and it enters no loss.
        """
        there = ~sequences.isnan()
        sequences = sequences.where(there, 0)
        rollout = self.model.rollout(
            sequences[:, :-1], 1, fed, checkpoint_every=self.checkpoint_every
        )
        truth = sequences[:, 1:]
        error = rollout.frames.float() - truth
        pixelwise = self.loss.l2 * error.square() + self.l1 * error.abs()
        if len(self.weights):
            pixelwise = (
                pixelwise
                * self.weights[torch.bucketize(truth.contiguous(), self.thresholds, right=True)]
            )
        pixelwise = pixelwise.where(there[:, 1:], 0)
        losses = pixelwise.sum(dim=(2, 3, 4)).mean(dim=1)
        return losses if rollout.loss is None else losses + self.loss.auxiliary * rollout.loss

"""The training objective: a forecaster and the loss of its rollout in one module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.forecast import Forecaster
from zoo.train.recipe import LossRecipe
from zoo.units import scale

__all__ = ["Objective"]


class Objective(nn.Module):
    """The loss of a model on whole sequences.

    All T − 1 one-step predictions are compared with frames 1 … T − 1. The loss of a sequence is
    the weighted sum of squared and absolute errors over (C, H, W), averaged over time, plus the
    auxiliary losses of the cells. A single module lets a data-parallel wrapper see one forward
    pass.

    Args:
        model: the forecaster.
        loss: the weights of the errors.
        checkpoint_every: keep the activations of every N-th time step only, and recompute the
            others in the backward pass; None keeps all.
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
        # Thresholds have the units of the data, but sequences are scaled.
        thresholds = torch.tensor(self.loss.thresholds).view(1, 1, -1)
        if thresholds.numel():
            thresholds = scale(thresholds, model.config.data, like=thresholds)
        self.register_buffer("thresholds", thresholds.flatten(), persistent=False)
        self.register_buffer("weights", torch.tensor(self.loss.weights), persistent=False)

    def forward(self, sequences: Tensor, fed: Tensor) -> Tensor:
        """Compute the loss of each sequence, (B,).

        Missing pixels (NaN) are read as 0 and do not contribute to the loss.

        Args:
            sequences: scaled frames (B, T, C, H, W).
            fed: whether the network reads the true frame, (B, T − 1), or its own prediction.
        """
        valid = ~sequences.isnan()
        sequences = sequences.where(valid, 0)
        rollout = self.model.rollout(
            sequences[:, :-1], 1, fed, checkpoint_every=self.checkpoint_every
        )
        truth = sequences[:, 1:]
        error = rollout.frames.float() - truth
        pixelwise = self.loss.l2 * error.square() + self.l1 * error.abs()
        if len(self.weights):
            ranges = torch.bucketize(truth.contiguous(), self.thresholds, right=True)
            pixelwise = pixelwise * self.weights[ranges]
        pixelwise = pixelwise.where(valid[:, 1:], 0)
        losses = pixelwise.sum(dim=(2, 3, 4)).mean(dim=1)
        return losses if rollout.loss is None else losses + self.loss.auxiliary * rollout.loss

"""The training objective: a forecaster and the loss of its rollout, as one module."""

from __future__ import annotations

from torch import Tensor, nn

from zoo.forecast import Forecaster

__all__ = ["Objective"]


class Objective(nn.Module):
    """The papers' loss of a model on whole sequences (arXiv 2304.07724, section 4).

    All T − 1 one-step predictions are compared with frames 1 … T − 1: the sum of squared and
    of absolute errors over (C, H, W), averaged over steps and samples; and the auxiliary
    losses of the cells. It is one module so that a data-parallel wrapper sees one forward.
    """

    def __init__(self, model: Forecaster) -> None:
        super().__init__()
        self.model = model

    def forward(self, sequences: Tensor, fed: Tensor) -> Tensor:
        """Sequences (B, T, C, H, W) in [0, 1], fed (B, T − 1) of bool, to a scalar."""
        rollout = self.model.rollout(sequences[:, :-1], 1, fed)
        error = rollout.frames.float() - sequences[:, 1:]
        loss = (error.square() + error.abs()).sum(dim=(2, 3, 4)).mean()
        return loss if rollout.loss is None else loss + rollout.loss.mean()

"""The training objective: a forecaster and the loss of its rollout in one module."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from zoo.errors import ConfigError
from zoo.forecast import Forecaster
from zoo.losses import Loss, create_loss
from zoo.train.recipe import LossRecipe

__all__ = ["Objective", "create_losses", "create_terms"]


class Objective(nn.Module):
    """The loss of a model on whole sequences.

    All T − 1 one-step predictions are compared with frames 1 … T − 1. The loss of a sequence is
    the weighted sum of the recipe's losses, plus the auxiliary losses of the cells. A single
    module lets a data-parallel wrapper see one forward pass.

    Args:
        model: the forecaster.
        loss: the losses and their weights.
        checkpoint_every: keep the activations of every N-th time step only, and recompute the
            others in the backward pass; None keeps all.

    Raises:
        ConfigError: if a loss does not exist, has invalid options, or does not fit the model.
    """

    def __init__(
        self,
        model: Forecaster,
        loss: LossRecipe | None = None,
        checkpoint_every: int | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = loss or LossRecipe()
        self.losses = create_losses(self.loss)
        self.checkpoint_every = checkpoint_every
        for _, term in self.losses:
            if term.ensemble > 1:
                raise ConfigError(
                    f"{type(term).__name__} compares {term.ensemble} forecasts of a sequence, but "
                    "this model has only one; remove it from loss.terms"
                )

    def forward(
        self,
        sequences: Tensor,
        fed: Tensor,
        progress: float = 0.0,
        known: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss of each sequence, (B,).

        Missing pixels (NaN) are read as 0 and do not contribute to the loss.

        Args:
            sequences: scaled frames (B, T, C, H, W).
            fed: whether the network reads the true frame, (B, T − 1), or its own prediction.
            progress: the share of the training that is done, from 0 to 1.
            known: the known inputs of the steps, (B, T − 1, K, H, W), if the model has any.
        """
        valid = ~sequences.isnan()
        sequences = sequences.where(valid, 0)
        rollout = self.model.rollout(
            sequences[:, :-1], 1, fed, known=known, checkpoint_every=self.checkpoint_every
        )
        channels = rollout.frames.shape[2]
        truth, valid = (x[:, 1:, :channels] for x in (sequences, valid))
        compared = rollout.frames.float(), truth, valid
        data = self.model.config.data
        losses = [w * term(*compared, data=data, progress=progress) for w, term in self.losses]
        if rollout.loss is not None:
            losses.append(self.loss.auxiliary * rollout.loss)
        return sum(losses[1:], start=losses[0])


def create_losses(recipe: LossRecipe) -> list[tuple[float, Loss]]:
    """Create all losses of a recipe, each with its weight.

    Raises:
        ConfigError: if a loss does not exist or has invalid options.
    """
    default = 0.0 if recipe.terms else 1.0
    l1, l2 = (default if weight is None else weight for weight in (recipe.l1, recipe.l2))
    options = {"l1": l1, "l2": l2, "thresholds": recipe.thresholds, "weights": recipe.weights}
    losses = [] if recipe.terms and l1 == l2 == 0 else [(1.0, create_loss("pixelwise", options))]
    return [*losses, *create_terms(recipe).values()]


def create_terms(recipe: LossRecipe) -> dict[str, tuple[float, Loss]]:
    """Create the further losses of a recipe by name, each with its weight.

    Raises:
        ConfigError: if a loss does not exist or has invalid options.
    """
    terms = {}
    for name, options in recipe.terms.items():
        own: dict[str, Any] = {"weight": 1.0, **options}
        terms[name] = (float(own.pop("weight")), create_loss(name, own))
    return terms

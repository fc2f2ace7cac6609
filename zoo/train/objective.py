"""The training objective: a forecaster and the loss of its rollout in one module."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from zoo.errors import ConfigError
from zoo.forecast import Forecaster
from zoo.known_inputs import with_noise
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
        sizes = {term.ensemble for _, term in self.losses} - {1}
        self.members = max(sizes, default=1)
        if len(sizes) > 1:
            raise ConfigError(f"losses need ensembles of {sizes}; set the same number of members")
        if (self.members > 1) != (model.config.noise > 0):
            raise ConfigError(
                f"the losses compare {self.members} forecasts of a sequence, and the model reads "
                f"{model.config.noise} channels of noise; an ensemble needs both model.noise and "
                "the loss crps, other models neither"
            )

    def forward(
        self,
        sequences: Tensor,
        fed: Tensor,
        progress: float = 0.0,
        known: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss of each sequence, (B,).

        Missing pixels (NaN) are read as 0 and do not contribute to the loss.

        Args:
            sequences: scaled frames (B, T, C, H, W).
            fed: whether the network reads the true frame, (B, T − 1), or its own prediction.
            progress: the share of the training that is done, from 0 to 1.
            known: the known inputs of the steps, (B, T − 1, K, H, W), if the model has any.
            noise: the noise of the steps, (B, members, T − 1, N, H, W), if the model reads any.
        """
        valid = ~sequences.isnan()
        sequences = sequences.where(valid, 0)
        members = self.members
        past, feeding = (_repeat(x, members) for x in (sequences[:, :-1], fed))
        known = None if known is None else _repeat(known, members)
        if noise is not None and self.model.config.noise:
            known = with_noise(known, rearrange(noise, "b m ... -> (m b) ..."))
        rollout = self.model.rollout(
            past, 1, feeding, known=known, checkpoint_every=self.checkpoint_every
        )
        forecast = rearrange(rollout.frames.float(), "(m b) ... -> m b ...", m=members)
        truth, valid = (x[:, 1:, : forecast.shape[3]] for x in (sequences, valid))
        data = self.model.config.data

        def measure(term: Loss) -> Tensor:
            """Measure all members together, or each alone and take the mean."""
            if term.ensemble > 1:
                return term(forecast, truth, valid, data=data, progress=progress)
            each = [term(x, truth, valid, data=data, progress=progress) for x in forecast]
            return _mean(each)

        losses = [weight * measure(term) for weight, term in self.losses]
        if rollout.loss is not None:
            auxiliary = rearrange(rollout.loss, "(m b) -> m b", m=members)
            losses.append(self.loss.auxiliary * _mean([*auxiliary]))
        return sum(losses[1:], start=losses[0])


def _repeat(x: Tensor, members: int) -> Tensor:
    """Repeat a batch for each member of an ensemble: (B, …) to (members · B, …)."""
    return x if members == 1 else repeat(x, "b ... -> (m b) ...", m=members)


def _mean(values: list[Tensor]) -> Tensor:
    return values[0] if len(values) == 1 else torch.stack(values).mean(dim=0)


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

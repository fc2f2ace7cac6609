"""How far a run has got: its progress in checkpoints and its facts in metrics.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from zoo.errors import ConfigError, ZooError
from zoo.model_folder import missing_files, read_metrics
from zoo.train.recipe import Recipe
from zoo.train.sampling import Order

__all__ = ["Outcome", "finished_outcome", "training_facts"]


@dataclass
class Outcome:
    """The progress of a run.

    Attributes:
        step: steps done.
        steps: steps of the whole budget.
        seconds: total training time.
        loss: the last mean loss in the log.
        skipped: steps skipped because their loss or gradient was not finite.
        best: the best validation score.
        best_step: the step of the best validation score.
        unlogged: sum and number of the losses since the last line of the log.
        already: the run was finished before, and nothing was done.
    """

    step: int
    steps: int
    seconds: float = 0.0
    loss: float = math.nan
    skipped: int = 0
    best: float | None = None
    best_step: int | None = None
    unlogged: tuple[float, int] = (0.0, 0)
    already: bool = False

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.steps

    @classmethod
    def from_progress(cls, progress: Mapping[str, Any], steps: int) -> Outcome:
        """Restore the outcome saved in a checkpoint, with a budget that may have changed.

        Raises:
            ConfigError: if the run has already done more steps than the budget.
        """
        known = {field.name for field in fields(cls)} - {"steps"}
        outcome = cls(steps=steps, **{k: v for k, v in progress.items() if k in known})
        if outcome.step > steps:
            raise ConfigError(
                f"cannot set train.steps to {steps}: the run has already done {outcome.step} steps"
            )
        return outcome


def finished_outcome(run: Path, steps: int, select: str) -> Outcome | None:
    """Read the outcome of a finished run from metrics.json; None if it is not finished."""
    try:
        facts = read_metrics(run)["training"]
        if missing_files(run) or (facts["steps"], facts.get("select", "last")) != (steps, select):
            return None
        validation = facts.get("validation", {})
        return Outcome(
            step=steps,
            steps=steps,
            seconds=60 * facts["minutes"],
            loss=facts["loss"],
            skipped=facts.get("skipped", 0),
            best=validation.get("best"),
            best_step=validation.get("step"),
            already=True,
        )
    except (ZooError, LookupError, TypeError, AttributeError):  # missing or damaged
        return None


def training_facts(
    recipe: Recipe, order: Order, accelerator: Accelerator, outcome: Outcome
) -> dict[str, Any]:
    """Return the facts of a finished training for metrics.json."""
    epochs, rest = divmod(outcome.steps, order.steps_per_epoch)
    facts: dict[str, Any] = {
        "steps": outcome.steps,
        "sequences": epochs * order.length + rest * recipe.train.batch_size,
        "minutes": round(outcome.seconds / 60, 1),
        "device": accelerator.device.type,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "loss": round(outcome.loss, 4),
        "processes": accelerator.num_processes,
    }
    if outcome.skipped:
        facts["skipped"] = outcome.skipped
    if outcome.best is not None:
        metric, select = recipe.evaluation.metric, recipe.evaluation.select
        facts["validation"] = {"metric": metric, "best": outcome.best, "step": outcome.best_step}
        if select == "best":
            facts["select"] = "best"
    return facts

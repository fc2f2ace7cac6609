"""Runs that were made: what their folders tell, and how they stand beside one another.

This module knows no torch, so that runs are listed at once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.train.recipe import Recipe, differences, read_recipe

__all__ = ["Run", "compare", "find_runs", "read_run"]

ROWS = 12  # of a curve that is longer


@dataclass
class Run:
    """A run: its folder, its recipe, what its log and its metrics.json say."""

    folder: Path
    recipe: Recipe
    log: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)

    @property
    def step(self) -> int:
        """The last step in the log or a checkpoint."""
        told = [line["step"] for line in self.log[-1:]] + [self.progress.get("step", 0)]
        return max(told)

    @property
    def steps(self) -> int | None:
        """Those of the budget; None where it is told in epochs and no step was taken."""
        steps: int | None = self.progress.get("steps", self.recipe.train.steps)
        return steps

    @property
    def state(self) -> str:
        """ "finished", or how much of it is done."""
        training = self.metrics.get("training")
        if isinstance(training, dict) and self.step <= training.get("steps", self.step):
            return "finished"
        return f"{self.step / self.steps:.0%}" if self.steps else "begun"

    def curve(self, name: str) -> dict[int, float]:
        """What the log has of a value, by step."""
        return {line["step"]: line[name] for line in self.log if name in line}

    def summary(self) -> dict[str, Any]:
        """What `zoo runs` prints of it."""
        losses, lines = self.curve("loss"), [line for line in self.log if "seconds" in line]
        return {
            "run": str(self.folder),
            "model": self.recipe.model.get("name"),
            "data": self.recipe.data.name,
            "state": self.state,
            "step": self.step,
            "steps": self.steps,
            "loss": list(losses.values())[-1] if losses else None,
            "metric": self.recipe.evaluation.metric,
            "best": self.progress.get("best"),
            "best_step": self.progress.get("best_step"),
            "skipped": self.progress.get("skipped", 0),
            "minutes": round(lines[-1]["seconds"] / 60, 1) if lines else 0.0,
        }


def read_run(folder: Path) -> Run:
    """Read the folder of a run; ZooError where it is none."""
    if not (folder / "recipe.toml").is_file():
        raise ZooError(f"{folder} is no run: it has no recipe.toml; see: zoo runs")
    checkpoints = sorted((folder / "checkpoints").glob("step-*/progress.json"))
    return Run(
        folder,
        read_recipe(folder / "recipe.toml"),
        _lines(folder / "log.jsonl"),
        _object(folder / "metrics.json"),
        _object(checkpoints[-1]) if checkpoints else {},
    )


def find_runs(folder: Path) -> tuple[list[Run], list[str]]:
    """The runs in a folder and its folders, by name; and what is wrong with others there."""
    runs, problems = [], []
    told = {path.parent for name in ("run.json", "log.jsonl") for path in folder.rglob(name)}
    for path in sorted(told):
        try:
            runs.append(read_run(path))
        except ZooError as error:
            problems.append(str(error))
    return runs, problems


def compare(runs: list[Run]) -> dict[str, Any]:
    """Runs side by side: what differs in their recipes, their curves, their results.

    Returns {"recipe": {key: [value a run]}, "curves": {name: {step: [value or None a run]}},
    "results": {name: [value or None a run]}}, ready for JSON. Of long curves about a dozen
    steps are taken, at which every run that went so far has a value.
    """
    differing = {key for run in runs[1:] for key in differences(runs[0].recipe, run.recipe)}
    recipes = [run.recipe.flat() for run in runs]
    names = ["loss", "mse", "mae", "ssim", "psnr"]
    curves = {name: [run.curve(name) for run in runs] for name in names}
    results = {
        "state": [run.state for run in runs],
        **{f"last {name}": [_last(one) for one in c] for name, c in curves.items() if any(c)},
        "minutes": [run.summary()["minutes"] for run in runs],
    }
    for protocol in ("forecast", "all-steps"):
        for name in names[1:]:
            measured = [run.metrics.get(protocol, {}).get("model", {}).get(name) for run in runs]
            if any(value is not None for value in measured):
                results[f"{protocol} {name} (zoo eval)"] = measured
    return {
        "runs": [str(run.folder) for run in runs],
        "recipe": {key: [recipe.get(key) for recipe in recipes] for key in sorted(differing)},
        "curves": {name: _table(c) for name, c in curves.items() if any(c)},
        "results": results,
    }


def _table(curves: list[dict[int, float]]) -> dict[int, list[float | None]]:
    """Some steps, and the value of every run at each: its last one until then."""
    steps = sorted({step for curve in curves for step in curve})
    size = max(1, -(-len(steps) // ROWS))
    chosen = sorted({*steps[size - 1 :: size], steps[-1]})
    return {step: [_until(curve, step) for curve in curves] for step in chosen}


def _until(curve: dict[int, float], step: int) -> float | None:
    if not curve or step > max(curve):
        return None
    before = [at for at in curve if at <= step]
    return curve[max(before)] if before else None


def _last(curve: dict[int, float]) -> float | None:
    return curve[max(curve)] if curve else None


def _lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a log, without one that is being written."""
    lines = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict) and isinstance(value.get("step"), int):
                lines.append(value)
    return lines


def _object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not there yet, or being written
        return {}
    return value if isinstance(value, dict) else {}

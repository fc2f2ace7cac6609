"""Read the folders of runs, and compare runs.

This module does not import torch, so that runs are listed quickly.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.errors import ConfigError, ZooError
from zoo.train.recipe import Recipe, differences, read_recipe

__all__ = ["Run", "compare", "find_runs", "read_run"]

ROWS = 12  # longer curves are thinned to about this length


@dataclass
class Run:
    """A run, as read from its folder.

    Attributes:
        folder: the folder.
        recipe: recipe.toml.
        log: the lines of log.jsonl.
        metrics: metrics.json; empty until the run is finished.
        progress: progress.json of the last checkpoint; empty without one.
    """

    folder: Path
    recipe: Recipe
    log: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)

    @property
    def step(self) -> int:
        """The last step in the log or the last checkpoint."""
        logged = self.log[-1]["step"] if self.log else 0
        return max(logged, self.progress.get("step", 0))

    @property
    def steps(self) -> int | None:
        """Steps of the budget; None if it is in epochs and there is no checkpoint yet."""
        steps: int | None = self.progress.get("steps", self.recipe.train.steps)
        return steps

    @property
    def state(self) -> str:
        """Return "finished", the percentage done, or "begun" if that is unknown."""
        training = self.metrics.get("training")
        if isinstance(training, dict) and self.step <= training.get("steps", self.step):
            return "finished"
        return f"{self.step / self.steps:.0%}" if self.steps else "begun"

    def curve(self, name: str) -> dict[int, float]:
        """Return the logged values of a quantity by step."""
        return {line["step"]: line[name] for line in self.log if name in line}

    def summary(self) -> dict[str, Any]:
        """Return the row of `zoo runs`."""
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
    """Read the folder of a run.

    Raises:
        ConfigError: if the folder has no valid recipe.toml.
    """
    if not (folder / "recipe.toml").is_file():
        raise ConfigError(f"{folder} is not a run: recipe.toml not found; list runs with: zoo runs")
    checkpoints = sorted((folder / "checkpoints").glob("step-*/progress.json"))
    return Run(
        folder,
        read_recipe(folder / "recipe.toml"),
        _lines(folder / "log.jsonl"),
        _object(folder / "metrics.json"),
        _object(checkpoints[-1]) if checkpoints else {},
    )


def find_runs(folder: Path) -> tuple[list[Run], list[str]]:
    """Find the runs in a folder and its subfolders.

    Returns:
        The runs, sorted by path, and what is wrong with runs that cannot be read.
    """
    runs, problems = [], []
    folders = {path.parent for name in ("run.json", "log.jsonl") for path in folder.rglob(name)}
    for path in sorted(folders):
        try:
            runs.append(read_run(path))
        except ZooError as error:
            problems.append(str(error))
    return runs, problems


def compare(runs: list[Run]) -> dict[str, Any]:
    """Compare the recipes, curves and results of runs.

    Returns:
        A dict for JSON, in which each list has one value per run, or None: {"runs": [folder],
        "recipe": {key: [value]} of the keys that differ, "curves": {name: {step: [value]}} at
        about a dozen steps, "results": {name: [value]}}.
    """
    differing = {key for run in runs[1:] for key in differences(runs[0].recipe, run.recipe)}
    recipes = [run.recipe.flat() for run in runs]
    names = ["loss", "mse", "mae", "ssim", "psnr"]
    curves = {name: [run.curve(name) for run in runs] for name in names}
    results = {
        "state": [run.state for run in runs],
        **{
            f"last {name}": [_last(curve) for curve in group]
            for name, group in curves.items()
            if any(group)
        },
        "minutes": [run.summary()["minutes"] for run in runs],
    }
    for protocol in ("forecast", "all-steps"):
        for name in names[1:]:
            scores = [run.metrics.get(protocol, {}).get("model", {}).get(name) for run in runs]
            if any(score is not None for score in scores):
                results[f"{protocol} {name} (zoo eval)"] = scores
    return {
        "runs": [str(run.folder) for run in runs],
        "recipe": {key: [recipe.get(key) for recipe in recipes] for key in sorted(differing)},
        "curves": {name: _table(group) for name, group in curves.items() if any(group)},
        "results": results,
    }


def _table(curves: list[dict[int, float]]) -> dict[int, list[float | None]]:
    """Thin curves to common steps; each run has its last value up to that step."""
    steps = sorted({step for curve in curves for step in curve})
    size = max(1, -(-len(steps) // ROWS))
    chosen = sorted({*steps[size - 1 :: size], steps[-1]})
    return {step: [_until(curve, step) for curve in curves] for step in chosen}


def _until(curve: dict[int, float], step: int) -> float | None:
    if not curve or step > max(curve):
        return None
    earlier = [logged for logged in curve if logged <= step]
    return curve[max(earlier)] if earlier else None


def _last(curve: dict[int, float]) -> float | None:
    return curve[max(curve)] if curve else None


def _lines(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a log, except incomplete ones."""
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
    except (OSError, ValueError):  # missing or incomplete
        return {}
    return value if isinstance(value, dict) else {}

"""Read the folders of runs, and compare runs.

This module does not import torch, so that runs are listed quickly.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.errors import ConfigError, ZooError
from zoo.model_folder import read_metrics
from zoo.train.recipe import Recipe, differences, read_recipe
from zoo.train.records import is_number, log_lines, read_progress

__all__ = ["Run", "compare", "find_runs", "read_run"]

#: Files by which a run is recognized.
MARKS = ("run.json", "log.jsonl")

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
        problems: What is wrong with these files; what cannot be read is empty.
    """

    folder: Path
    recipe: Recipe
    log: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

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
        """Return "damaged", "finished", the percentage done, or "begun" if that is unknown."""
        if self.problems:
            return "damaged"
        training = self.metrics.get("training")
        if training and self.step <= training["steps"]:
            return "finished"
        return f"{self.step / self.steps:.0%}" if self.steps else "begun"

    def curve(self, name: str) -> dict[int, float]:
        """Return the logged values of a quantity by step."""
        return {line["step"]: line[name] for line in self.log if is_number(line.get(name))}

    def summary(self) -> dict[str, Any]:
        """Return the row of `zoo runs`."""
        losses, seconds = self.curve("loss"), self.curve("seconds")
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
            "minutes": round(list(seconds.values())[-1] / 60, 1) if seconds else 0.0,
            "problems": self.problems,
        }


def read_run(folder: Path) -> Run:
    """Read the folder of a run; files other than the recipe may be absent or damaged.

    Raises:
        ConfigError: if the folder has no valid recipe.toml.
    """
    if not os.path.isfile(folder / "recipe.toml"):
        raise ConfigError(f"{folder} is not a run: recipe.toml not found; list runs with: zoo runs")
    run = Run(folder, read_recipe(folder / "recipe.toml"))
    checkpoints = sorted((folder / "checkpoints").glob("step-*/progress.json"))
    try:
        lines = list(log_lines(folder / "log.jsonl"))
        run.log = [values for _, values in lines if values is not None]
        # A run that was killed may have left the last line incomplete.
        if odd := sum(values is None for _, values in lines[:-1]):
            run.problems.append(f"{folder / 'log.jsonl'} has {odd} invalid lines")
    except ZooError as error:
        run.problems.append(str(error))
    try:
        run.metrics = read_metrics(folder)
    except ZooError as error:
        run.problems.append(str(error))
    try:
        run.progress = read_progress(checkpoints[-1].parent) if checkpoints else {}
    except ZooError as error:
        run.problems.append(str(error))
    return run


def find_runs(folder: Path) -> tuple[list[Run], list[str]]:
    """Find the runs in a folder and its subfolders.

    Returns:
        The runs, sorted by path, and what is wrong with runs that cannot be read at all.
    """
    runs, problems = [], []
    walk = os.walk(folder) if folder.is_dir() else ()
    for path in sorted(Path(path) for path, _, files in walk if {*MARKS} & {*files}):
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
            scores = [_score(run, protocol, name) for run in runs]
            if any(score is not None for score in scores):
                results[f"{protocol} {name} (zoo eval)"] = scores
    return {
        "runs": [str(run.folder) for run in runs],
        "recipe": {key: [recipe.get(key) for recipe in recipes] for key in sorted(differing)},
        "curves": {name: _table(group) for name, group in curves.items() if any(group)},
        "results": results,
    }


def _score(run: Run, protocol: str, name: str) -> float | None:
    scores = run.metrics.get(protocol) or {"model": {}}
    value: float | None = scores["model"].get(name)
    return value


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

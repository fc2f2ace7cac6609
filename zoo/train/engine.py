"""The training loop: on accelerate, with timm's optimisers and schedules.

Every random draw of a step is a function of the recipe's seeds and the step's number alone,
and a checkpoint appears whole or not at all. So a run that was killed and resumed ends with
the weights of the run that was not.
"""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DataLoaderConfiguration
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch.utils.data import DataLoader

from zoo.atomic import atomic_folder, atomic_path, make_folder
from zoo.config import Data, nearest
from zoo.data import open_dataset
from zoo.errors import ZooError
from zoo.forecast import Forecaster, scheduled_sampling
from zoo.hub import save
from zoo.progress import progress_bar
from zoo.registry import create
from zoo.train.objective import Objective
from zoo.train.recipe import Recipe, TrainRecipe, read_recipe

__all__ = ["Outcome", "train"]

KEPT_CHECKPOINTS = 2
LOG_EVERY = 10


@dataclass
class Outcome:
    """How a run stopped: after how many steps, seconds of training in all, last mean loss."""

    step: int
    steps: int
    seconds: float
    loss: float

    @property
    def finished(self) -> bool:
        """Whether the whole budget was spent."""
        return self.step >= self.steps


def train(
    recipe_path: Path,
    run: Path,
    *,
    resume: bool = False,
    max_minutes: float | None = None,
    data_root: Path | None = None,
) -> Outcome:
    """Carry out a recipe in the folder `run`, or go on with it.

    The folder ends up holding the model (config.json, model.safetensors), the recipe,
    metrics.json with the facts of the training, log.jsonl and the last checkpoints.

    Args:
        recipe_path: the recipe.
        run: a new or empty folder; with `resume` one that holds a run of the same recipe.
        resume: go on from the last checkpoint, or from the start where there is none.
        max_minutes: stop after so long, with a checkpoint. SIGTERM and Ctrl-C do the same.
        data_root: the folder of the data sets; by default that of ``ZOO_DATA``.

    Raises ZooError for a recipe, a folder or data that do not fit, and a loss that is not
    finite (the last checkpoint stays).
    """
    recipe = read_recipe(recipe_path)
    settings = recipe.train
    # What was set in this process by a run before, its precision, would be kept.
    AcceleratorState._reset_state()
    accelerator = Accelerator(
        mixed_precision="no" if settings.precision == "fp32" else settings.precision,
        # A recipe's batch is that of all processes, so it means the same on any number.
        dataloader_config=DataLoaderConfiguration(split_batches=True),
    )
    set_seed(settings.seed)
    dataset = open_dataset(
        recipe.data.name,
        "train",
        root=data_root,
        frames=recipe.data.input_frames + recipe.data.horizon,
        sequences=settings.steps * settings.batch_size,
        seed=recipe.data.seed,
    )
    height, width = dataset[0].shape[-2:]
    model = _create_model(recipe, (height, width))
    objective: Any = Objective(model)
    if settings.channels_last:
        objective = objective.to(memory_format=torch.channels_last)
    if settings.compile:
        model.network.compile()
    optimizer = _create_optimizer(objective, settings)
    loader: Any = DataLoader(dataset, batch_size=settings.batch_size, shuffle=False)
    objective, optimizer, loader = accelerator.prepare(objective, optimizer, loader)
    schedule = _create_schedule(optimizer, settings)
    # Only now, so that a recipe that cannot be carried out leaves no folder.
    checkpoints = _prepare_folder(run, recipe, recipe_path, resume)
    done = Outcome(0, settings.steps, 0.0, float("nan"))
    if checkpoints:
        accelerator.load_state(str(checkpoints[-1]))
        done = Outcome(**json.loads((checkpoints[-1] / "progress.json").read_text()))
        loader = accelerator.skip_first_batches(loader, done.step)
    log = _Log(run / "log.jsonl", done.step, enabled=accelerator.is_main_process)
    objective.train()

    started, before, mean = time.monotonic(), done.seconds, _Mean()
    with _stop_signals() as stopped, progress_bar("training", settings.steps, done.step) as bar:
        for sequences in loader:
            schedule.step_update(done.step)
            fed = _fed_frames(recipe, done.step).to(sequences.device)
            here = fed.chunk(accelerator.num_processes)[accelerator.process_index]
            with accelerator.autocast():
                loss = objective(sequences, here)
            value = float(loss.detach())
            if value != value or value in (float("inf"), float("-inf")):
                raise ZooError(
                    f"the loss of step {done.step} is {value}; the last checkpoint in "
                    f"{run / 'checkpoints'} is sound; lower train.lr or set train.clip_norm"
                )
            accelerator.backward(loss)
            if settings.clip_norm is not None:
                accelerator.clip_grad_norm_(objective.parameters(), settings.clip_norm)
            optimizer.step()
            optimizer.zero_grad()

            mean.add(value)
            done.step += 1
            done.seconds = before + time.monotonic() - started
            out_of_time = max_minutes is not None and time.monotonic() - started > 60 * max_minutes
            last = done.step == settings.steps or out_of_time or bool(stopped)
            if done.step % LOG_EVERY == 0 or last:
                done.loss = mean.take()
                lr = optimizer.param_groups[0]["lr"]
                log.write(step=done.step, loss=done.loss, lr=lr, seconds=round(done.seconds, 1))
            bar(done.step, f"loss {done.loss:.2f}")
            if done.step % settings.checkpoint_every == 0 or last:
                _save_checkpoint(accelerator, run, done)
            if last:
                break
    if done.finished and accelerator.is_main_process:
        _finish(accelerator.unwrap_model(objective).model, run, recipe, done)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return done


def _prepare_folder(run: Path, recipe: Recipe, recipe_path: Path, resume: bool) -> list[Path]:
    """Make the run's folder and put the recipe there; its checkpoints, oldest first."""
    kept = run / "recipe.toml"
    if kept.exists():
        if not resume:
            raise ZooError(f"{run} holds a run already; add --resume, or take another folder")
        if read_recipe(kept) != recipe:
            raise ZooError(f"{kept} is another recipe than {recipe_path}; take another folder")
    else:
        make_folder(run)
        with atomic_path(kept) as temporary:
            shutil.copyfile(recipe_path, temporary)
    for leftover in (run / "checkpoints").glob(".*"):  # half a checkpoint, of a killed run
        shutil.rmtree(leftover)
    return sorted((run / "checkpoints").glob("step-*"))


def _create_model(recipe: Recipe, size: tuple[int, int]) -> Forecaster:
    data = Data(
        name=recipe.data.name,
        size=size,
        input_frames=recipe.data.input_frames,
        horizon=recipe.data.horizon,
    )
    options: dict[str, Any] = dict(recipe.model)
    return create(options.pop("name"), **options, data=data.model_dump())


def _create_optimizer(objective: Objective, settings: TrainRecipe) -> torch.optim.Optimizer:
    known = [str(name) for name in list_optimizers()]
    if settings.optimizer.lower() not in known:
        near = nearest(settings.optimizer, known)
        raise ZooError(f"timm has no optimizer {settings.optimizer!r}{near}")
    return create_optimizer_v2(objective, opt=settings.optimizer, lr=settings.lr)


def _create_schedule(optimizer: torch.optim.Optimizer, settings: TrainRecipe) -> Scheduler:
    """A schedule of timm's: a function of the number of the step, so nothing of it is saved."""
    constant = settings.schedule == "constant"
    schedule, _ = create_scheduler_v2(
        optimizer,
        sched="cosine" if constant else settings.schedule,
        num_epochs=settings.steps,
        warmup_epochs=settings.warmup_steps,
        warmup_prefix=False,
        min_lr=settings.lr if constant else 0.0,
        step_on_epochs=False,
        updates_per_epoch=1,
    )
    return schedule


def _fed_frames(recipe: Recipe, step: int) -> torch.Tensor:
    """The scheduled sampling of a step, for the batch of all processes."""
    settings, data = recipe.train, recipe.data
    generator = torch.Generator().manual_seed(settings.seed * 2**32 + step)
    return scheduled_sampling(
        settings.batch_size,
        data.input_frames + data.horizon - 1,
        data.input_frames,
        settings.teacher_probability(step),
        generator,
    )


def _save_checkpoint(accelerator: Accelerator, run: Path, done: Outcome) -> None:
    folder = run / "checkpoints" / f"step-{done.step:08d}"
    make_folder(folder.parent)
    with atomic_folder(folder) as temporary:
        accelerator.save_state(str(temporary))
        (temporary / "progress.json").write_text(json.dumps(vars(done)))
    for old in sorted(folder.parent.glob("step-*"))[:-KEPT_CHECKPOINTS]:
        shutil.rmtree(old)


def _finish(model: Forecaster, run: Path, recipe: Recipe, done: Outcome) -> None:
    save(model, run)
    settings = recipe.train
    facts = {
        "steps": done.steps,
        "sequences": done.steps * settings.batch_size,
        "minutes": round(done.seconds / 60, 1),
        "device": next(model.parameters()).device.type,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "loss": round(done.loss, 4),
    }
    with atomic_path(run / "metrics.json") as temporary:
        temporary.write_text(json.dumps({"training": facts}, indent=2) + "\n")


class _Mean:
    """The mean of the numbers since the last one was taken."""

    def __init__(self) -> None:
        self.sum, self.count = 0.0, 0

    def add(self, value: float) -> None:
        self.sum, self.count = self.sum + value, self.count + 1

    def take(self) -> float:
        mean = self.sum / self.count
        self.sum, self.count = 0.0, 0
        return mean


class _Log:
    """A line of JSON every few steps; lines after the checkpoint resumed from are dropped."""

    def __init__(self, path: Path, step: int, *, enabled: bool) -> None:
        self.path, self.enabled = path, enabled
        if enabled and path.exists():
            lines = path.read_text().splitlines(keepends=True)
            kept = [line for line in lines if _is_until(line, step)]
            with atomic_path(path) as temporary:
                temporary.write_text("".join(kept))

    def write(self, **values: float) -> None:
        if self.enabled:
            with self.path.open("a") as file:
                file.write(json.dumps(values) + "\n")


def _is_until(line: str, step: int) -> bool:
    try:
        return json.loads(line)["step"] <= step
    except (ValueError, KeyError):  # the line that was being written when the run was killed
        return False


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collect SIGTERM and Ctrl-C, to stop after the step at hand."""
    received: list[int] = []
    kinds = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(kind, lambda number, _: received.append(number)) for kind in kinds]
    try:
        yield received
    finally:
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler)

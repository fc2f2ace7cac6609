"""The training loop, built on accelerate and timm.

All randomness of a step is a function of the recipe's seeds and the step number, and checkpoints
are written atomically. So a run that is killed and resumed ends with the same weights as an
uninterrupted one. The loss of a batch is a weighted sum over its rows, so that the parts of a
batch, on one process or several, add up to the whole.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.utils import ModelEmaV3
from torch import Tensor
from torch.utils.data import DataLoader

from zoo.config import Config, Data
from zoo.errors import ConfigError, ZooError
from zoo.forecast import Forecaster
from zoo.hub import save
from zoo.model_folder import WEIGHTS, update_metrics
from zoo.progress import progress_bar
from zoo.train.augment import augment
from zoo.train.checkpoints import Checkpoints, verify
from zoo.train.crops import Crops
from zoo.train.data import describe, is_fresh, known_of, open_data
from zoo.train.fit import find_parts
from zoo.train.folder import Changes, affects_result, claim, identity, lock, save_recipe
from zoo.train.log import Log, check_trackers
from zoo.train.model import create_model, create_optimizer, create_schedule, resolve
from zoo.train.objective import Objective
from zoo.train.outcome import Outcome, finished_outcome, training_facts
from zoo.train.processes import (
    create_accelerator,
    on_main,
    report_lost_processes,
    stop_signals,
)
from zoo.train.recipe import Recipe, read_recipe
from zoo.train.run_file import add_start
from zoo.train.sampling import Order, Share, ShareSampler, fed_frames, shown_frames, step_noise
from zoo.train.validation import Validation

__all__ = ["Outcome", "train"]

#: Keys that define what a validation score means.
SCORE_KEYS = tuple(f"evaluation.{name}" for name in ("split", "options", "sequences", "metric"))


def train(
    recipe_path: Path,
    run: Path,
    *,
    resume: bool = False,
    max_minutes: float | None = None,
    data_root: Path | None = None,
    settings: Iterable[tuple[str, Any]] = (),
) -> Outcome:
    """Train a model from a recipe, or resume its training.

    Afterwards the folder `run` holds the model (config.json, model.safetensors), the complete
    recipe, metrics.json with facts about the training, run.json with its environment, log.jsonl,
    pictures and the last checkpoints. Processes started by torchrun or ``accelerate launch`` train
    one model together.

    Args:
        recipe_path: the recipe.
        run: a new or empty folder; with `resume`, one that holds a run of the same recipe.
            Several machines need it on a shared file system.
        resume: continue from the last checkpoint, or start if there is none. Some recipe keys
            may change; see docs/training.md.
        max_minutes: stop with a checkpoint after this time, as SIGTERM and Ctrl-C do.
        data_root: the folder of the data sets, by default that of ``ZOO_DATA``.
        settings: keys and values that override the recipe's, such as ("train.lr", 1e-4).

    Returns:
        How far the run has got.

    Raises:
        ConfigError: if the recipe is invalid, or differs from that of the run.
        DataError: if the data are missing or invalid.
        ZooError: if another process trains in the folder, a loss or gradient is not finite, or a
            checkpoint cannot be written; the last checkpoint stays intact.
    """
    settings = list(settings)
    recipe = resolve(read_recipe(recipe_path, settings))
    check_trackers(recipe.watch.trackers)
    with report_lost_processes():
        accelerator = create_accelerator(recipe, run)
        training = _Training(recipe, accelerator, run, data_root)
        # Claim the folder last, so that an invalid recipe leaves none behind.
        with ExitStack() as locks:

            def claim_folder() -> Changes | None:
                locks.enter_context(lock(run))
                return claim(run, recipe, recipe_path, settings, resume)

            changes = on_main(accelerator, claim_folder)
            try:
                return training.carry_out(changes, max_minutes)
            finally:
                accelerator.end_training()


class _Training:
    """A run: its data, objective and optimizer, and the loop over its steps."""

    def __init__(
        self, recipe: Recipe, accelerator: Accelerator, run: Path, root: Path | None
    ) -> None:
        self.recipe, self.accelerator, self.run = recipe, accelerator, run
        self.dataset = self.samples = open_data(recipe, root)
        if recipe.crop.size is not None:
            self.samples = Crops(self.dataset, recipe.crop, recipe.train.seed)
        self.order = Order(
            len(self.dataset),
            recipe.train.batch_size,
            recipe.data.seed,
            shuffle=not is_fresh(recipe),
        )
        self.steps = _count_steps(recipe, self.order)
        data = describe(recipe, self.dataset)
        _check_rotation(recipe, data)
        model = create_model(recipe, data, root)
        _check_inputs(recipe, model.config, self.dataset)
        self.validation: Validation | None = None
        if recipe.evaluation.every or recipe.watch.pictures_every:
            self.validation = Validation(recipe, accelerator, root)
        self._prepare(model)
        self.parts = recipe.memory.accumulate
        if recipe.memory.fit:
            rows = -(-recipe.train.batch_size // accelerator.num_processes)
            objective = accelerator.unwrap_model(self.objective)
            sample = self.samples[0 if recipe.crop.size is None else (0, 0)]
            self.parts = find_parts(objective, sample, rows, self.parts, accelerator)
        self.checkpoints = Checkpoints(
            run / "checkpoints",
            accelerator,
            recipe.train.keep,
            identity(recipe),
            None if self.average is None else self.average.module,
        )
        self.outcome = Outcome(0, self.steps)
        self.saved = 0  # the step of the last checkpoint

    def _prepare(self, model: Forecaster) -> None:
        """Create objective, optimizer, schedule and moving average, on the device."""
        settings, accelerator = self.recipe.train, self.accelerator
        objective: Any = Objective(model, self.recipe.loss, self.recipe.memory.checkpoint_every)
        self.members = objective.members
        if settings.channels_last:
            objective = objective.to(memory_format=torch.channels_last)
        optimizer: Any = create_optimizer(model.network, settings)
        self.average: ModelEmaV3 | None = None
        if settings.ema_decay is not None:
            model.network.to(accelerator.device)
            self.average = ModelEmaV3(model.network, decay=settings.ema_decay)
        if settings.compile:
            model.network.compile()
        self.objective, self.optimizer = accelerator.prepare(objective, optimizer)
        self.schedule = create_schedule(self.optimizer, settings, self.steps)

    @property
    def model(self) -> Forecaster:
        """The forecaster with the current weights."""
        model: Forecaster = self.accelerator.unwrap_model(self.objective).model
        return model

    @property
    def result(self) -> Forecaster:
        """The forecaster that is validated and saved: with averaged weights, if there are any."""
        if self.average is None:
            return self.model
        return Forecaster(self.average.module, self.model.config)

    def carry_out(self, changes: Changes | None, max_minutes: float | None) -> Outcome:
        """Train until the last step, or until it is time to stop.

        Args:
            changes: recipe keys that change from the last checkpoint on; None for a new run.
            max_minutes: stop after this time.
        """
        if changes is not None and not any(map(affects_result, changes)):
            select = self.recipe.evaluation.select
            finished = on_main(
                self.accelerator, lambda: finished_outcome(self.run, self.steps, select)
            )
            if finished is not None:
                return finished
        self._resume(changes or {})
        self._loop(max_minutes)
        if self.outcome.finished:
            self._finish()
        return self.outcome

    def _resume(self, changes: Changes) -> None:
        """Load the last checkpoint, if there is one, and record this start."""
        accelerator = self.accelerator
        if accelerator.is_main_process:
            self.checkpoints.clean()
        progress = self.checkpoints.load_last()
        if progress is not None:
            self.outcome = Outcome.from_progress(progress, self.steps)
        step = self.saved = self.outcome.step
        if any(key.startswith(SCORE_KEYS) for key in changes):
            self.outcome.best = self.outcome.best_step = None  # no longer comparable
        if accelerator.is_main_process:
            starts = add_start(self.run / "run.json", accelerator, self.model, step, changes)
            if changes:
                save_recipe(self.run, self.recipe, starts)
        if self.recipe.watch.trackers and not self.outcome.finished:
            # Steps after the checkpoint are repeated: hide their earlier values.
            accelerator.init_trackers(
                "tracked", init_kwargs={"tensorboard": {"purge_step": step + 1}}
            )
        self.log = Log(self.run / "log.jsonl", step, accelerator)

    def _loop(self, max_minutes: float | None) -> None:
        """Take steps until the last one, a signal, or the time limit."""
        outcome = self.outcome
        first, before, started = outcome.step, outcome.seconds, time.monotonic()

        def should_stop() -> bool:
            minutes = (time.monotonic() - started) / 60
            return bool(signals) or (max_minutes is not None and minutes > max_minutes)

        self.objective.train()
        with stop_signals() as signals, self._progress_bar() as show:
            for sequences in self._loader():
                step = self._step(sequences, should_stop)
                self._count(step)
                seconds = time.monotonic() - started
                outcome.seconds = before + seconds
                speed = (outcome.step - first) / seconds
                show(outcome.step, f"loss {step.loss:.2f}  {speed:.2f} steps/s")
                self._after_step(step)
                if step.stop:
                    break

    def _loader(self) -> DataLoader[Tensor]:
        """Load this process's share of the remaining batches."""
        accelerator = self.accelerator
        sampler = ShareSampler(
            self.order,
            self.outcome.step,
            self.steps,
            accelerator.process_index,
            accelerator.num_processes,
            drawn=self.recipe.crop.size is not None,
        )
        return DataLoader(
            self.samples,
            batch_sampler=sampler,
            num_workers=self.recipe.data.workers,
            pin_memory=accelerator.device.type == "cuda",
            # Each loader draws from its generator, and a resumed run creates more loaders: keep
            # them away from the global generator.
            generator=torch.Generator(),
        )

    def _progress_bar(self) -> AbstractContextManager[Callable[[int, str], None]]:
        if self.accelerator.is_main_process:
            return progress_bar("training", self.steps, self.outcome.step)
        return nullcontext(lambda step, note: None)

    def _step(self, sequences: Tensor, should_stop: Callable[[], bool]) -> _Step:
        """Take one step with this process's rows of a batch."""
        accelerator, settings, number = self.accelerator, self.recipe.train, self.outcome.step
        batch = self.order.batch(number)
        share = Share.of(len(batch), accelerator.process_index, accelerator.num_processes)
        fed = fed_frames(self.recipe, number, self.steps)[share.rows]
        sequences = augment(sequences, self.recipe, number, share.rows)
        chosen = [batch[row] for row in share.rows]
        config, members = self.model.config, self.members
        known = known_of(config, self.dataset, chosen, sequences)
        noise = step_noise(self.recipe, config, number, members)[share.rows]
        frames = shown_frames(self.recipe, number, self.steps)
        sequences, fed, known = sequences[:, :frames], fed[:, : frames - 1], known[:, : frames - 1]
        self.schedule.step_update(number)
        losses = self._backward((sequences, fed, known, noise[:, :, : frames - 1]), share.weights)
        # All processes must agree on the loss and on stopping.
        local = torch.stack([losses @ share.weights, torch.tensor(float(should_stop()))])
        loss, stop = accelerator.reduce(local.to(accelerator.device)).tolist()
        # An infinite limit measures the norm and leaves the gradient unchanged.
        limit = settings.clip_norm or math.inf
        norm = float(accelerator.clip_grad_norm_(self.objective.parameters(), limit))
        # In fp16, gradients may overflow: the gradient scaler then skips the step.
        finite = math.isfinite(loss) and (math.isfinite(norm) or settings.precision == "fp16")
        bad: list[int] = []
        if finite:
            self._update()
            if self.average is not None:
                self.average.update(self.model.network)
        else:
            gathered = accelerator.gather(losses.to(accelerator.device))[: len(batch)]
            rows = (~gathered.isfinite()).nonzero().flatten().tolist()
            bad = [batch[row] for row in rows] or batch
        self.optimizer.zero_grad()
        return _Step(loss, norm, stop > 0, bad)

    def _update(self) -> None:
        """Take a step of the optimizer, whose state may come from a checkpoint of someone else."""
        try:
            self.optimizer.step()
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ZooError(
                f"the optimizer failed in step {self.outcome.step + 1} ({reason}); if its state "
                f"comes from a checkpoint, it does not fit: move {self.checkpoints.folder} away"
            ) from error

    def _backward(self, inputs: tuple[Tensor, ...], weights: Tensor) -> Tensor:
        """Accumulate the gradient of the weighted losses, part by part; returns the losses.

        Args:
            inputs: the sequences, which of their frames are fed, known inputs and noise, by row.
            weights: the weight of each row.
        """
        accelerator, progress = self.accelerator, self.outcome.step / self.steps
        chunks = [tensor.chunk(self.parts) for tensor in (*inputs, weights)]
        parts = list(zip(*chunks, strict=True))
        losses = []
        for number, part in enumerate(parts, start=1):
            on_device = (tensor.to(accelerator.device) for tensor in part)
            frames, feeding, known, noise, factors = on_device
            # Processes add up their gradients once per step, with the last part.
            last = number == len(parts)
            with nullcontext() if last else accelerator.no_sync(self.objective):
                with accelerator.autocast():
                    loss = self.objective(frames, feeding, progress, known, noise)
                # Data parallelism averages over processes, but the sum is needed.
                accelerator.backward(accelerator.num_processes * (loss * factors).sum())
            losses.append(loss.detach().float().cpu())
        return torch.cat(losses)

    def _count(self, step: _Step) -> None:
        """Add a step to the outcome; stop if its loss is not finite and must not be skipped."""
        outcome = self.outcome
        if step.bad:
            number = outcome.step + 1
            self.log.write(number, skipped=outcome.skipped + 1, sequences=step.bad)
            if self.recipe.train.nonfinite == "stop":
                if outcome.step > self.saved:  # the weights are still those of the step before
                    self._save()
                raise ZooError(_describe_not_finite(number, step, self.checkpoints.all()))
            outcome.skipped += 1
        else:
            total, count = outcome.unlogged
            outcome.unlogged = total + step.loss, count + 1
        outcome.step += 1

    def _after_step(self, step: _Step) -> None:
        """Log, validate, save and draw whatever is due."""
        outcome, recipe = self.outcome, self.recipe
        last = outcome.finished or step.stop
        if last or outcome.step % recipe.watch.log_every == 0:
            self._log_loss(step.norm)
        improved = self._validate()
        if improved or last or outcome.step % recipe.train.checkpoint_every == 0:
            self._save()
        self._draw()

    def _log_loss(self, norm: float) -> None:
        outcome = self.outcome
        total, count = outcome.unlogged
        if count == 0:  # every step was skipped
            return
        outcome.loss, outcome.unlogged = total / count, (0.0, 0)
        self.log.write(
            outcome.step,
            loss=outcome.loss,
            lr=self.optimizer.param_groups[0]["lr"],
            gradient_norm=norm,
            seconds=round(outcome.seconds, 1),
        )

    def _validate(self) -> bool:
        """Validate if it is due; returns whether the model is the best so far."""
        outcome, settings = self.outcome, self.recipe.evaluation
        if self.validation is None or not settings.every:
            return False
        if outcome.step % settings.every and not outcome.finished:
            return False
        scores = self.validation.measure(self.result)
        self.objective.train()
        self.log.write(outcome.step, **scores)
        score = scores[settings.metric]
        if score is None or not self.validation.is_better(score, outcome.best):
            return False  # None: no valid pixel
        outcome.best, outcome.best_step = score, outcome.step
        return True

    def _save(self) -> None:
        self.checkpoints.save(self.outcome.step, asdict(self.outcome), self.outcome.best_step)
        self.saved = self.outcome.step

    def _draw(self) -> None:
        step, every = self.outcome.step, self.recipe.watch.pictures_every
        if self.validation is not None and every and step % every == 0:
            if self.accelerator.is_main_process:
                self.validation.draw(self.result, self.run / "pictures" / f"step-{step:08d}.png")
            self.objective.train()

    def _finish(self) -> None:
        """Save the model and the facts of its training."""
        outcome = self.outcome
        if self.recipe.evaluation.select == "best" and outcome.best_step is not None:
            best = self.checkpoints.path(outcome.best_step)
            problem = on_main(self.accelerator, lambda: verify(best))
            if problem is not None:
                raise ZooError(
                    f"the best checkpoint, {best}, is damaged ({problem}); to use the last one "
                    "instead: --resume --set evaluation.select=last"
                )
            self.checkpoints.load(best)
        if self.accelerator.is_main_process:
            if not _has_weights(self.run, self.result):
                # Scores of earlier weights do not belong to these.
                (self.run / "metrics.json").unlink(missing_ok=True)
            save(self.result, self.run)
            facts = training_facts(self.recipe, self.order, self.accelerator, outcome)
            update_metrics(self.run, training=facts)
        self.accelerator.wait_for_everyone()


class _Step(NamedTuple):
    """The result of a step; `bad` lists the sequences whose loss or gradient was not finite."""

    loss: float
    norm: float
    stop: bool
    bad: list[int]


def _count_steps(recipe: Recipe, order: Order) -> int:
    """Return the number of steps of a recipe whose budget may be in epochs."""
    settings = recipe.train
    steps = settings.steps or (settings.epochs or 0) * order.steps_per_epoch
    if settings.warmup_steps >= steps:
        raise ConfigError(
            f"train.warmup_steps ({settings.warmup_steps}) must be less than the steps of the run "
            f"({steps})"
        )
    return steps


def _check_rotation(recipe: Recipe, data: Data) -> None:
    size = recipe.crop.size or data.size
    if recipe.augment.rotate and size and size[0] != size[1]:
        raise ConfigError(
            f"augment.rotate needs square frames, but these are {size[0]}×{size[1]}; set "
            "augment.rotate=false or crop the frames"
        )


def _check_inputs(recipe: Recipe, config: Config, dataset: Any) -> None:
    """Raise an error if the inputs of the model do not fit the data or their augmentation."""
    shape = tuple(dataset[0].shape)
    if shape[1] != config.in_channels:
        raise ConfigError(
            f"the frames have {shape[1]} channels; set model.in_channels={shape[1]} (now "
            f"{config.in_channels})"
        )
    if config.static and recipe.crop.size is not None:
        raise ConfigError("static maps belong to whole frames; remove [crop] or model.static")
    if config.static and config.size != shape[-2:]:
        raise ConfigError(
            f"the frames are {shape[-2]}×{shape[-1]}, but model.size is {config.size}; static maps "
            "need the size of the frames"
        )
    moved = recipe.augment.mirror or recipe.augment.flip or recipe.augment.rotate
    if config.static and moved:
        raise ConfigError(
            "augment.mirror, flip and rotate would move the frames away from the static maps; "
            "disable them"
        )
    known_of(config, dataset, [0], dataset[0][None])  # fails if the times are not known


def _has_weights(run: Path, model: Forecaster) -> bool:
    """Return whether the folder already holds a model with exactly these weights."""
    try:
        saved = load_file(run / WEIGHTS)
    except (OSError, SafetensorError):
        return False
    current = model.network.state_dict()
    return saved.keys() == current.keys() and all(
        saved[n].dtype == current[n].dtype and torch.equal(saved[n], current[n].cpu())
        for n in saved
    )


def _describe_not_finite(number: int, step: _Step, checkpoints: list[Path]) -> str:
    problem = (
        f"the gradient norm of step {number} is {step.norm}"
        if math.isfinite(step.loss)
        else f"the loss of step {number} is {step.loss}"
    )
    sequences = ", ".join(map(str, step.bad[:8])) + (" …" if len(step.bad) > 8 else "")
    last = f"the last checkpoint is {checkpoints[-1]}" if checkpoints else "no checkpoint yet"
    return (
        f"{problem} (sequences {sequences}; {last}); lower train.lr, set train.clip_norm, or skip "
        "such steps: --resume --set train.nonfinite=skip"
    )

"""The training loop: on accelerate, with timm's optimisers, schedules and moving average.

Every random draw of a step is a function of the recipe's seeds and the step's number alone,
and a checkpoint appears whole or not at all. So a run that was killed and resumed ends with
the weights of the run that was not. The mean loss of a batch is a weighted sum over its
rows, wherever they are computed, so that parts of a batch and processes add up to it.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, set_seed
from accelerate.utils.memory import should_reduce_batch_size
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.utils import ModelEmaV3
from torch import Tensor
from torch.utils.data import DataLoader

from zoo.errors import ZooError
from zoo.forecast import Forecaster
from zoo.hub import save
from zoo.model_folder import WEIGHTS, missing_files, read_metrics, update_metrics
from zoo.progress import progress_bar
from zoo.train.augment import augment
from zoo.train.checkpoints import Checkpoints, verify
from zoo.train.data import describe, is_fresh, open_data
from zoo.train.folder import Changes, claim, counts, identity, lock, put_recipe
from zoo.train.model import create_model, create_optimizer, create_schedule, resolve
from zoo.train.objective import Objective
from zoo.train.processes import lost_processes, on_main
from zoo.train.recipe import Recipe, read_recipe
from zoo.train.sampling import Order, Share, ShareSampler, fed_frames
from zoo.train.watch import Log, Validation, check_trackers, write_facts

__all__ = ["Outcome", "train"]

#: Keys of the evaluation that decide what a measure is.
MEASURE = tuple(f"evaluation.{name}" for name in ("split", "options", "sequences", "metric"))


@dataclass
class Outcome:
    """How far a run is.

    step, steps: those done, and those of the budget.
    seconds: of training, in all.
    loss: the last mean loss in the log.
    skipped: steps whose loss or gradient was not finite.
    best, best_step: the best measure of the validation, and when it was taken.
    untold: the sum and the number of the losses that are not in the log yet.
    already: it was finished before, and nothing was done.
    """

    step: int
    steps: int
    seconds: float = 0.0
    loss: float = math.nan
    skipped: int = 0
    best: float | None = None
    best_step: int | None = None
    untold: tuple[float, int] = (0.0, 0)
    already: bool = False

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
    settings: Iterable[tuple[str, Any]] = (),
) -> Outcome:
    """Carry out a recipe in the folder `run`, or go on with it.

    The folder ends up holding the model (config.json, model.safetensors), the whole recipe,
    metrics.json with the facts of the training, run.json with what it ran on, log.jsonl,
    pictures and the last checkpoints. Started by torchrun or ``accelerate launch``, several
    processes carry out one recipe together, and end with the weights of one.

    Args:
        recipe_path: the recipe.
        run: a new or empty folder; with `resume` one that holds a run of the same recipe.
            Several machines need it on a file system that they share.
        resume: go on from the last checkpoint, or from the start where there is none. Some
            keys may be set anew then: docs/training.md.
        max_minutes: stop after so long, with a checkpoint. SIGTERM and Ctrl-C do the same.
        data_root: the folder of the data sets; by default that of ``ZOO_DATA``.
        settings: keys and values that take the place of the recipe's: ("train.lr", 1e-4).

    Raises ZooError for a recipe, a folder or data that do not fit, a folder in which another
    process trains, a loss or gradient that is not finite, and a checkpoint that cannot be
    written (the last one stays).
    """
    settings = list(settings)
    recipe = resolve(read_recipe(recipe_path, settings))
    check_trackers(recipe.watch.trackers)
    # What was set in this process by a run before, its precision, would be kept.
    AcceleratorState._reset_state()
    with lost_processes():
        accelerator = Accelerator(
            cpu=not torch.accelerator.is_available(),  # else several processes on CPUs are alone
            mixed_precision="no" if recipe.train.precision == "fp32" else recipe.train.precision,
            log_with=list(recipe.watch.trackers) or None,
            project_dir=run,
        )
        if accelerator.gradient_accumulation_steps != 1:  # it would divide the gradient
            raise ZooError(
                "ACCELERATE_GRADIENT_ACCUMULATION_STEPS is "
                f"{accelerator.gradient_accumulation_steps}, set by hand or by accelerate config; "
                "set it to 1, and run a batch in parts by --set memory.accumulate=N"
            )
        set_seed(recipe.train.seed, deterministic=recipe.train.deterministic)
        training = _Training(recipe, accelerator, data_root)
        # Only now, so that a recipe that cannot be carried out leaves no folder.
        with ExitStack() as held:

            def begin() -> Changes | None:
                held.enter_context(lock(run))
                return claim(run, recipe, recipe_path, settings, resume)

            changes = on_main(accelerator, begin)
            try:
                return training.carry_out(run, changes, max_minutes)
            finally:
                accelerator.end_training()


class _Training:
    """A recipe made ready: data, objective, optimiser, and the loop over steps."""

    def __init__(self, recipe: Recipe, accelerator: Accelerator, root: Path | None) -> None:
        self.recipe, self.accelerator = recipe, accelerator
        settings = recipe.train
        self.dataset = open_data(recipe, root)
        self.order = Order(
            len(self.dataset),
            settings.batch_size,
            recipe.data.seed,
            shuffle=not is_fresh(recipe),
        )
        self.steps = settings.steps or (settings.epochs or 0) * self.order.steps_per_epoch
        if settings.warmup_steps >= self.steps:
            raise ZooError(
                f"train.warmup_steps is {settings.warmup_steps}; the run has {self.steps} steps"
            )
        data = describe(recipe, self.dataset)
        if recipe.augment.rotate and data.size and data.size[0] != data.size[1]:
            raise ZooError(
                f"augment.rotate needs square frames, these are {data.size[0]}×{data.size[1]}; "
                "set augment.rotate=false, or crop them"
            )
        model = create_model(recipe, data)
        self.validation = None
        if recipe.evaluation.every or recipe.watch.pictures_every:
            self.validation = Validation(recipe, accelerator, root)
        objective: Any = Objective(model, recipe.loss, recipe.memory.checkpoint_every)
        if settings.channels_last:
            objective = objective.to(memory_format=torch.channels_last)
        optimizer = create_optimizer(model.network, settings)
        self.objective: Any
        self.optimizer: Any
        self.average: ModelEmaV3 | None = None
        if settings.ema_decay is not None:
            if accelerator.distributed_type == DistributedType.FSDP:
                raise ZooError("train.ema_decay: FSDP keeps no whole weights to average; leave out")
            model.network.to(accelerator.device)
            self.average = ModelEmaV3(model.network, decay=settings.ema_decay)
        if settings.compile:
            model.network.compile()
        self.objective, self.optimizer = accelerator.prepare(objective, optimizer)
        self.schedule = create_schedule(self.optimizer, settings, self.steps)
        self.parts = recipe.memory.accumulate
        if recipe.memory.fit:
            self.parts = self._find_parts()

    @property
    def model(self) -> Forecaster:
        """The forecaster with the weights of now."""
        model: Forecaster = self.accelerator.unwrap_model(self.objective).model
        return model

    @property
    def measured(self) -> Forecaster:
        """The forecaster that is measured and kept: with the averaged weights, if there are."""
        if self.average is None:
            return self.model
        return Forecaster(self.average.module, self.model.config)

    def carry_out(self, run: Path, changes: Changes | None, max_minutes: float | None) -> Outcome:
        """Train to the end of the budget, or until it is time to stop.

        changes: of the recipe of a run that is gone on with, from its last checkpoint on.
        """
        recipe, settings, accelerator = self.recipe, self.recipe.train, self.accelerator
        if changes is not None and not any(map(counts, changes)):
            finished = on_main(
                accelerator, lambda: _finished(run, self.steps, recipe.evaluation.select)
            )
            if finished is not None:
                return finished
        changes = changes or {}
        network = self.average.module if self.average is not None else None
        checkpoints = Checkpoints(
            run / "checkpoints", accelerator, settings.keep, identity(recipe), network
        )
        if accelerator.is_main_process:
            checkpoints.clean()
        loaded = checkpoints.load_last()
        done = Outcome(0, self.steps) if loaded is None else _outcome(loaded, self.steps)
        if any(key.startswith(MEASURE) for key in changes):
            done.best = done.best_step = None  # was measured in another way
        if accelerator.is_main_process:
            starts = write_facts(run / "run.json", accelerator, self.model, done.step, changes)
            if changes:
                put_recipe(run, recipe, starts)
        if recipe.watch.trackers and not done.finished:
            # Of the steps after the last checkpoint, which come once more, nothing is shown.
            accelerator.init_trackers(
                "tracked", init_kwargs={"tensorboard": {"purge_step": done.step + 1}}
            )
        log = Log(run / "log.jsonl", done.step, accelerator)
        loader = DataLoader(
            self.dataset,
            batch_sampler=ShareSampler(
                self.order,
                done.step,
                self.steps,
                accelerator.process_index,
                accelerator.num_processes,
            ),
            num_workers=recipe.data.workers,
            pin_memory=accelerator.device.type == "cuda",
            # A generator of its own, as it is drawn from once a loader: a resumed run has more.
            generator=torch.Generator(),
        )
        self.objective.train()

        started, before = time.monotonic(), done.seconds
        with _stop_signals() as stopped, self._progress(done.step) as bar:

            def leave() -> bool:
                minutes = (time.monotonic() - started) / 60
                return bool(stopped) or (max_minutes is not None and minutes > max_minutes)

            first = saved = done.step
            for sequences in loader:
                step = self._step(done.step, sequences, leave)
                if step.bad:
                    log.write(done.step + 1, skipped=done.skipped + 1, sequences=step.bad)
                    if settings.nonfinite == "stop":
                        if done.step > saved:  # the weights are still those of the step before
                            checkpoints.save(done.step, asdict(done), done.best_step)
                        raise ZooError(_not_finite(done.step + 1, step, checkpoints.all()))
                    done.skipped += 1
                else:
                    done.untold = (done.untold[0] + step.loss, done.untold[1] + 1)
                done.step += 1
                done.seconds = before + time.monotonic() - started
                last = done.step == self.steps or step.stop
                total, count = done.untold
                if count and (done.step % recipe.watch.log_every == 0 or last):
                    done.loss, done.untold = total / count, (0.0, 0)
                    log.write(
                        done.step,
                        loss=done.loss,
                        lr=self.optimizer.param_groups[0]["lr"],
                        gradient_norm=step.norm,
                        seconds=round(done.seconds, 1),
                    )
                speed = (done.step - first) / (done.seconds - before)
                bar(done.step, f"loss {step.loss:.2f}  {speed:.2f} steps/s")
                best = self._evaluate(done, log)
                if best or last or done.step % settings.checkpoint_every == 0:
                    checkpoints.save(done.step, asdict(done), done.best_step)
                    saved = done.step
                self._draw(done.step, run)
                if last:
                    break
        if done.finished:
            self._finish(run, done, checkpoints)
        return done

    def _progress(self, step: int) -> AbstractContextManager[Callable[[int, str], None]]:
        """A bar of one of the processes."""
        if self.accelerator.is_main_process:
            return progress_bar("training", self.steps, step)
        return nullcontext(lambda done, note: None)

    def _step(self, number: int, sequences: Tensor, leave: Callable[[], bool]) -> _Step:
        """One step: `sequences` are the rows of this process."""
        accelerator, settings = self.accelerator, self.recipe.train
        batch = self.order.batch(number)
        share = Share.of(len(batch), accelerator.process_index, accelerator.num_processes)
        fed = fed_frames(self.recipe, number, self.steps)[share.rows]
        sequences = augment(sequences, self.recipe, number, share.rows)
        self.schedule.step_update(number)
        losses = self._backward(sequences, fed, share.weights)
        # What all must know: the loss of all, and whether anyone is to stop.
        told = torch.stack([losses @ share.weights, torch.tensor(float(leave()))])
        loss, stop = accelerator.reduce(told.to(accelerator.device)).tolist()
        # Of infinite length where none is asked for, which leaves the gradient as it is.
        longest = settings.clip_norm or math.inf
        norm = float(accelerator.clip_grad_norm_(self.objective.parameters(), longest))
        # In fp16 a gradient that overflows is part of the way: the scaler leaves the step out.
        sound = math.isfinite(loss) and (math.isfinite(norm) or settings.precision == "fp16")
        bad: list[int] = []
        if sound:
            self.optimizer.step()
            if self.average is not None:
                self.average.update(self.model.network)
        else:
            every = accelerator.gather(losses.to(accelerator.device))[: len(batch)]
            rows = (~every.isfinite()).nonzero().flatten().tolist()
            bad = [batch[row] for row in rows] or batch
        self.optimizer.zero_grad()
        return _Step(loss, norm, stop > 0, bad)

    def _backward(self, sequences: Tensor, fed: Tensor, weights: Tensor) -> Tensor:
        """Add the gradient of the weighted losses of some rows, part by part; the losses."""
        device, processes = self.accelerator.device, self.accelerator.num_processes
        rows = [tensor.chunk(self.parts) for tensor in (sequences, fed, weights)]
        losses = []
        for number, part in enumerate(zip(*rows, strict=True), start=1):
            here, fed_here, weights_here = (tensor.to(device) for tensor in part)
            # Processes add up their gradients once a step, with the last part.
            later = number < len(rows[0])
            with self.accelerator.no_sync(self.objective) if later else nullcontext():
                with self.accelerator.autocast():
                    each = self.objective(here, fed_here)
                # Not the sum but the mean over processes is taken.
                self.accelerator.backward(processes * (each * weights_here).sum())
            losses.append(each.detach().float().cpu())
        return torch.cat(losses)

    def _find_parts(self) -> int:
        """Into how few parts a batch must be cut to fit into memory, on every process."""
        objective = self.accelerator.unwrap_model(self.objective)
        rows = -(-self.recipe.train.batch_size // self.accelerator.num_processes)
        device = self.accelerator.device
        sequences = torch.stack([self.dataset[0]] * rows)
        fed = torch.ones(rows, sequences.shape[1] - 1, dtype=torch.bool)
        # What the optimiser adds in its first step: Adam's two moments.
        moments = [torch.empty_like(weight) for weight in [*objective.parameters()] * 2]
        parts = self.parts
        while True:
            try:
                for part in zip(sequences.chunk(parts), fed.chunk(parts), strict=True):
                    with self.accelerator.autocast():
                        loss = objective(*(tensor.to(device) for tensor in part)).sum()
                    loss.backward()
                break
            except RuntimeError as error:
                if not should_reduce_batch_size(error):
                    raise
                if parts >= rows:
                    raise ZooError(
                        "a batch of one sequence does not fit into memory; "
                        "set memory.checkpoint_every, or make the model smaller"
                    ) from None
                parts = min(2 * parts, rows)
            finally:
                objective.zero_grad()
        del moments
        found = self.accelerator.gather(torch.tensor([parts], device=device))
        return int(found.max())

    def _evaluate(self, done: Outcome, log: Log) -> bool:
        """Measure if it is time, and say whether it is the best so far."""
        settings = self.recipe.evaluation
        if self.validation is None or not settings.every:
            return False
        if done.step % settings.every and not done.finished:
            return False
        measured = self.validation.measure(self.measured)
        self.objective.train()
        log.write(done.step, **measured)
        value = measured[settings.metric]
        if value is None or not settings.better(value, done.best):  # None: all was missing
            return False
        done.best, done.best_step = value, done.step
        return True

    def _draw(self, step: int, run: Path) -> None:
        every = self.recipe.watch.pictures_every
        if self.validation is not None and every and step % every == 0:
            if self.accelerator.is_main_process:
                self.validation.draw(self.measured, run / "pictures" / f"step-{step:08d}.png")
            self.objective.train()

    def _finish(self, run: Path, done: Outcome, checkpoints: Checkpoints) -> None:
        """Write the model and the facts of its training."""
        if self.recipe.evaluation.select == "best" and done.best_step is not None:
            best = checkpoints.path(done.best_step)
            problem = on_main(self.accelerator, lambda: verify(best))
            if problem is not None:
                raise ZooError(
                    f"{best}, the best, is not sound ({problem}); to leave the last weights: "
                    "--resume --set evaluation.select=last"
                )
            checkpoints.load(best)
        model = self.measured
        if self.accelerator.distributed_type == DistributedType.FSDP:
            state = self.accelerator.get_state_dict(self.objective)
            if self.accelerator.is_main_process:
                model = create_model(self.recipe, model.config.data)
                model.load_state_dict({k.removeprefix("model."): v for k, v in state.items()})
        if self.accelerator.is_main_process:
            if not _holds(run, model):  # else what zoo eval measured is of these weights
                (run / "metrics.json").unlink(missing_ok=True)
            save(model, run)
            update_metrics(run, training=_facts(self, done))
        self.accelerator.wait_for_everyone()


class _Step(NamedTuple):
    """What became of a step; `bad` are the sequences whose loss was not finite."""

    loss: float
    norm: float
    stop: bool
    bad: list[int]


def _finished(run: Path, steps: int, select: str) -> Outcome | None:
    """What became of a run that has all its steps and left its model; None of any other."""
    try:
        told = read_metrics(run)["training"]
        if missing_files(run) or (told["steps"], told.get("select", "last")) != (steps, select):
            return None
        best = told.get("validation", {})
        return Outcome(
            steps,
            steps,
            60 * told["minutes"],
            told["loss"],
            told.get("skipped", 0),
            best.get("best"),
            best.get("step"),
            already=True,
        )
    except (ZooError, LookupError, TypeError, AttributeError):  # not there, or damaged
        return None


def _holds(run: Path, model: Forecaster) -> bool:
    """Whether the model in a folder has these weights."""
    try:
        kept = load_file(run / WEIGHTS)
    except (OSError, SafetensorError):
        return False
    now = model.network.state_dict()
    return kept.keys() == now.keys() and all(
        kept[n].dtype == now[n].dtype and torch.equal(kept[n], now[n].cpu()) for n in kept
    )


def _facts(training: _Training, done: Outcome) -> dict[str, Any]:
    settings = training.recipe.train
    epochs, rest = divmod(done.steps, training.order.steps_per_epoch)
    facts: dict[str, Any] = {
        "steps": done.steps,
        "sequences": epochs * training.order.length + rest * settings.batch_size,
        "minutes": round(done.seconds / 60, 1),
        "device": training.accelerator.device.type,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "loss": round(done.loss, 4),
        "processes": training.accelerator.num_processes,
    }
    if done.skipped:
        facts["skipped"] = done.skipped
    if done.best is not None:
        facts["validation"] = {
            "metric": training.recipe.evaluation.metric,
            "best": done.best,
            "step": done.best_step,
        }
        if training.recipe.evaluation.select == "best":
            facts["select"] = "best"
    return facts


def _outcome(progress: dict[str, Any], steps: int) -> Outcome:
    """How far a run is by its checkpoint; its budget may have been another."""
    known = {field.name for field in fields(Outcome)}
    done = Outcome(**{name: v for name, v in progress.items() if name in known} | {"steps": steps})
    if done.step > steps:
        raise ZooError(f"the run has taken {done.step} steps; train.steps cannot become {steps}")
    return done


def _not_finite(number: int, step: _Step, checkpoints: list[Path]) -> str:
    what = (
        f"the gradient of step {number} has the norm {step.norm}"
        if math.isfinite(step.loss)
        else f"the loss of step {number} is {step.loss}"
    )
    shown = ", ".join(map(str, step.bad[:8])) + (" …" if len(step.bad) > 8 else "")
    kept = f"{checkpoints[-1]} is sound" if checkpoints else "there is no checkpoint yet"
    return (
        f"{what}, from the sequences {shown}; {kept}; lower train.lr, set train.clip_norm, or "
        "leave such steps out, from there on: --resume --set train.nonfinite=skip"
    )


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

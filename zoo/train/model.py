"""The model of a recipe, and the optimiser and schedule that change it."""

from __future__ import annotations

import inspect
import math
from fnmatch import fnmatchcase
from typing import Any

import torch
from timm.optim import create_optimizer_v2, get_optimizer_class, list_optimizers
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import nn

from zoo.config import Config, Data
from zoo.errors import ZooError, did_you_mean, shorten
from zoo.forecast import Forecaster
from zoo.head import FrameHead
from zoo.hub import load, pull
from zoo.model_folder import read_config
from zoo.registry import CREATE_FIELDS, build, create, find_head
from zoo.train.recipe import Recipe, TrainRecipe

__all__ = ["create_model", "create_optimizer", "create_schedule", "resolve"]

#: What the recipe tells elsewhere than among the arguments of create_scheduler_v2.
TOLD = {
    "num_epochs": "train.steps",
    "warmup_epochs": "train.warmup_steps",
    "sched": "train.schedule",
    "step_on_epochs": "",
    "updates_per_epoch": "",
    "optimizer": "train.optimizer",
}


def resolve(recipe: Recipe) -> Recipe:
    """The recipe with every option of its model, those of an `init` included, and its loss.

    Raises ZooError for a model that cannot be made.
    """
    config = _config(recipe)
    fields = config.model_dump(mode="json", include=CREATE_FIELDS - {"topology", "data"})
    model = {"name": config.architecture, **fields, **config.options}
    loss = recipe.loss
    if loss.l1 is None:
        head, _ = find_head(config.head) or (FrameHead, None)
        loss = loss.model_copy(update={"l1": 0.0 if head.starts_from_frame else 1.0})
    model = {k: v for k, v in model.items() if v is not None}
    return recipe.model_copy(update={"model": model, "loss": loss})


def create_model(recipe: Recipe, data: Data) -> Forecaster:
    """The model that training starts from, with fresh weights or those of `init`."""
    model = build(_config(recipe).model_copy(update={"data": data}))
    if recipe.init is not None:
        _begin_with(model.network, recipe.init)
    return model


def create_optimizer(network: nn.Module, settings: TrainRecipe) -> torch.optim.Optimizer:
    """An optimiser of timm's for the weights that are not frozen.

    Raises ZooError for a name or options that timm does not know, patterns that fit nothing,
    and those that leave nothing to train.
    """
    known = [str(name) for name in list_optimizers()]
    if settings.optimizer.lower() not in known:
        near = did_you_mean(settings.optimizer, known)
        raise ZooError(f"timm has no optimizer {settings.optimizer!r}{near}")
    if settings.optimizer.lower() == "adahessian":
        raise ZooError("adahessian needs second derivatives, which a step does not take; take adam")
    names = [name for name, _ in network.named_parameters()]
    for pattern in (*settings.freeze, *settings.lr_parts):
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ZooError(
                f"the pattern {pattern!r} fits no weights{did_you_mean(pattern, names)}; "
                f"there are {shorten(names)}"
            )
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not any(fnmatchcase(name, one) for one in settings.freeze))
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ZooError("train.freeze leaves no weights to train; take some of its patterns out")
    options: dict[str, Any] = dict(settings.optimizer_options)
    try:
        _try_optimizer(settings)
        if settings.lr_parts:
            decay = float(options.get("weight_decay", 0))
            options["param_group_fn"] = lambda module: _groups(module, settings, decay)
        return create_optimizer_v2(network, opt=settings.optimizer, lr=settings.lr, **options)
    except Exception as error:  # of any kind: nobody looks at an option before it is used
        raise ZooError(
            f"train.optimizer_options: {_told(error)}; {_taken(settings.optimizer)}"
        ) from None


def create_schedule(
    optimizer: torch.optim.Optimizer, settings: TrainRecipe, steps: int
) -> Scheduler:
    """A schedule of timm's: a function of the number of the step, so nothing of it is saved."""
    constant = settings.schedule == "constant"
    # timm begins a warm-up at 1e-5, which is no rise to a learning rate below it.
    options: dict[str, Any] = {
        "min_lr": settings.lr if constant else 0.0,
        "warmup_lr": min(1e-5, settings.lr / 10),
    }
    takes = set(inspect.signature(create_scheduler_v2).parameters)
    for name, value in settings.schedule_options.items():
        if name not in takes or name in TOLD:
            instead = (
                f"; it is {TOLD[name]}" if TOLD.get(name) else did_you_mean(name, takes - {*TOLD})
            )
            raise ZooError(f"train.schedule_options takes no {name!r}{instead}")
        options[name] = value
    try:
        schedule, _ = create_scheduler_v2(
            optimizer,
            sched="cosine" if constant else settings.schedule,
            num_epochs=steps,
            warmup_epochs=settings.warmup_steps,
            step_on_epochs=False,
            updates_per_epoch=1,
            **options,
        )
        for step in (0, 1, steps // 2, steps - 1):
            schedule.step_update(step)
            if not all(math.isfinite(group["lr"]) for group in optimizer.param_groups):
                raise ValueError(f"the learning rate of step {step + 1} is not finite")
    except Exception as error:  # of any kind, as those of the optimisers
        raise ZooError(f"train.schedule_options: {_told(error)}") from None
    return schedule


def _try_optimizer(settings: TrainRecipe) -> None:
    """Take a step with a few weights, which uses the options."""
    weights = nn.Parameter(torch.zeros(2, 2))
    weights.grad = torch.ones(2, 2)
    with torch.random.fork_rng(devices=[]):
        options: dict[str, Any] = dict(settings.optimizer_options)
        create_optimizer_v2([weights], opt=settings.optimizer, lr=settings.lr, **options).step()


def _taken(optimizer: str) -> str:
    """Which options an optimiser takes."""
    try:
        taken = inspect.signature(get_optimizer_class(optimizer, bind_defaults=False)).parameters
    except (AssertionError, ImportError):  # it is of a package or a device that is not there
        return f"{optimizer} cannot be used here; take another"
    return f"{optimizer} takes {', '.join(n for n in taken if n not in ('params', 'lr'))}"


def _told(error: Exception) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _config(recipe: Recipe) -> Config:
    options: dict[str, Any] = dict(recipe.model)
    if not options:
        return read_config(pull(str(recipe.init)))
    if "data" in options:
        raise ZooError("[model] takes no data; the table [data] tells it")
    with torch.device("meta"):  # only its config is wanted
        return create(options.pop("name"), **options).config


def _begin_with(network: nn.Module, init: str) -> None:
    """Load the weights of a pretrained model, every one of them."""
    found = load(init).network.state_dict()
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    unfit = [name for name in wanted if name not in found or found[name].shape != wanted[name]]
    unfit += [name for name in found if name not in wanted]
    if unfit:
        raise ZooError(
            f"the weights of {init} do not fit the model of the recipe ({shorten(unfit)}); "
            "leave [model] out to take that of init"
        )
    network.load_state_dict(found)


def _groups(network: nn.Module, settings: TrainRecipe, decay: float) -> list[dict[str, Any]]:
    """Groups of parameters by learning rate, and those of one axis without weight decay.

    A schedule of timm's multiplies its learning rate by the `lr_scale` of a group.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            fitting = (lr for p, lr in settings.lr_parts.items() if fnmatchcase(name, p))
            key = next(fitting, settings.lr), decay if parameter.ndim > 1 else 0.0
            groups.setdefault(key, []).append(parameter)
    return [
        {"params": members, "weight_decay": weight_decay, "lr_scale": lr / settings.lr}
        for (lr, weight_decay), members in groups.items()
    ]

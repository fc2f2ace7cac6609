"""The model, optimizer and schedule of a recipe."""

from __future__ import annotations

import math
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import nn

from zoo.config import Config, Data
from zoo.data import data_root
from zoo.errors import ConfigError, did_you_mean, shorten
from zoo.forecast import Forecaster
from zoo.head import FrameHead
from zoo.hub import load, pull
from zoo.model_folder import read_config
from zoo.registry import CREATE_FIELDS, build, create, find_head
from zoo.scores import create_metric
from zoo.train.data import read_static
from zoo.train.objective import create_losses, create_terms
from zoo.train.recipe import VALIDATED, LossRecipe, Recipe, TrainRecipe

__all__ = ["create_model", "create_optimizer", "create_schedule", "resolve"]


def resolve(recipe: Recipe) -> Recipe:
    """Return the recipe with all defaults of its model and its loss filled in.

    Raises:
        ConfigError: if the model cannot be created, or a loss or the metric does not exist.
    """
    config = _config(recipe)
    fields = config.model_dump(mode="json", include=CREATE_FIELDS - {"topology", "data"})
    model = {"name": config.architecture, **fields, **config.options}
    model = {k: v for k, v in model.items() if v is not None}
    loss = _resolve_loss(recipe.loss, config.head)
    _check_metric(recipe.evaluation.metric, config)
    return recipe.model_copy(update={"model": model, "loss": loss})


def create_model(recipe: Recipe, data: Data, root: Path | None = None) -> Forecaster:
    """Create the model that training starts from, with random weights or those of `init`.

    Args:
        recipe: the recipe.
        data: the data of the model.
        root: the folder of the data sets, which has the static maps.

    Raises:
        ConfigError: if the weights of `init` or the static maps do not fit the model.
        DataError: if the static maps cannot be read.
    """
    model = build(_config(recipe).model_copy(update={"data": data}))
    if recipe.init is not None:
        _load_weights(model.network, recipe.init)
    static = recipe.data.static
    if (static is None) != (not model.config.static) and recipe.init is None:
        raise ConfigError(
            f"data.static is {static!r}, but model.static is {model.config.static}; set both, the "
            "file of the maps and their number, or none"
        )
    if static is not None:
        maps = read_static((root or data_root()) / static, model.config)
        model.network.get_buffer("static").copy_(maps)
    return model


def create_optimizer(network: nn.Module, settings: TrainRecipe) -> torch.optim.Optimizer:
    """Create an optimizer with timm for the weights that are not frozen.

    Raises:
        ConfigError: if timm does not accept the name or the options, a pattern matches no
            weights, or all weights are frozen.
    """
    known = [str(name) for name in list_optimizers()]
    if settings.optimizer.lower() not in known:
        hint = did_you_mean(settings.optimizer, known)
        raise ConfigError(f"timm has no optimizer {settings.optimizer!r}{hint}")
    _freeze(network, settings)
    options: dict[str, Any] = dict(settings.optimizer_options)
    try:
        _try_step(settings)
        if settings.lr_parts:
            decay = float(options.get("weight_decay", 0))
            options["param_group_fn"] = lambda module: _groups(module, settings, decay)
        return create_optimizer_v2(network, opt=settings.optimizer, lr=settings.lr, **options)
    except Exception as error:  # optimizers raise errors of any kind
        raise ConfigError(
            f"train.optimizer_options: cannot use {settings.optimizer!r}: {_one_line(error)}"
        ) from error


def _try_step(settings: TrainRecipe) -> None:
    """Take one step with a few weights: some optimizers check their options only then."""
    weights = nn.Parameter(torch.zeros(2, 2))
    weights.grad = torch.ones(2, 2)
    options: dict[str, Any] = dict(settings.optimizer_options)
    with torch.random.fork_rng(devices=[]):
        create_optimizer_v2([weights], opt=settings.optimizer, lr=settings.lr, **options).step()


def create_schedule(
    optimizer: torch.optim.Optimizer, settings: TrainRecipe, steps: int
) -> Scheduler:
    """Create a schedule with timm, a function of the step number that needs no checkpoint.

    Raises:
        ConfigError: if timm does not accept the options.
    """
    constant = settings.schedule == "constant"
    options: dict[str, Any] = {
        "min_lr": settings.lr if constant else 0.0,
        # timm warms up from 1e-5 by default, which may be above the learning rate.
        "warmup_lr": min(1e-5, settings.lr / 10),
        **settings.schedule_options,
    }
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
        # timm checks options only when they are used.
        for step in (0, 1, steps // 2, steps - 1):
            schedule.step_update(step)
            if not all(math.isfinite(group["lr"]) for group in optimizer.param_groups):
                raise ValueError(f"the learning rate of step {step + 1} is not finite")
    except Exception as error:  # schedules raise errors of any kind
        raise ConfigError(
            f"train.schedule_options: cannot create {settings.schedule!r}: {_one_line(error)}"
        ) from error
    return schedule


def _check_metric(name: str, config: Config) -> None:
    """Raise ConfigError before data are opened if there is no such metric for the model."""
    if name == "crps" and not config.noise:
        raise ConfigError('evaluation.metric = "crps" is for ensembles; set model.noise')
    if name not in (*VALIDATED, "crps"):
        create_metric(name)


def _resolve_loss(loss: LossRecipe, head: str) -> LossRecipe:
    """Fill in the default weights and the defaults of the options of all terms."""
    default = 0.0 if loss.terms else 1.0
    found, _ = find_head(head) or (FrameHead, None)
    l1 = (0.0 if found.starts_from_frame else default) if loss.l1 is None else loss.l1
    l2 = default if loss.l2 is None else loss.l2
    terms = {
        name: {"weight": weight, **term.model_dump(mode="json")}
        for name, (weight, term) in create_terms(loss).items()
    }
    filled = loss.model_copy(update={"l1": l1, "l2": l2, "terms": terms})
    create_losses(filled)  # check them before data are opened
    return filled


def _freeze(network: nn.Module, settings: TrainRecipe) -> None:
    """Freeze weights by the recipe's patterns, each of which must match some."""
    names = [name for name, _ in network.named_parameters()]
    for pattern in (*settings.freeze, *settings.lr_parts):
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(
                f"the pattern {pattern!r} matches no weights{did_you_mean(pattern, names)}; "
                f"weights are {shorten(names)}"
            )
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not any(fnmatchcase(name, p) for p in settings.freeze))
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ConfigError("train.freeze freezes all weights; remove some of its patterns")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _config(recipe: Recipe) -> Config:
    options: dict[str, Any] = dict(recipe.model)
    if not options:
        return read_config(pull(str(recipe.init)))
    if "data" in options:
        raise ConfigError("[model] has no key 'data'; use the table [data]")
    with torch.device("meta"):  # only the config is needed
        return create(options.pop("name"), **options).config


def _load_weights(network: nn.Module, init: str) -> None:
    """Load the weights of a pretrained model, which must match exactly."""
    weights = load(init).network.state_dict()
    shapes = {name: tensor.shape for name, tensor in weights.items()}
    expected = {name: tensor.shape for name, tensor in network.state_dict().items()}
    mismatched = [n for n in {**expected, **shapes} if shapes.get(n) != expected.get(n)]
    if mismatched:
        raise ConfigError(
            f"the weights of {init} do not fit the model of the recipe ({shorten(mismatched)}); "
            "remove [model] to use the model of init"
        )
    network.load_state_dict(weights)


def _groups(network: nn.Module, settings: TrainRecipe, decay: float) -> list[dict[str, Any]]:
    """Group parameters by learning rate and weight decay; vectors have no weight decay.

    timm's schedules multiply their learning rate by the `lr_scale` of a group.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            rates = (lr for p, lr in settings.lr_parts.items() if fnmatchcase(name, p))
            key = next(rates, settings.lr), decay if parameter.ndim > 1 else 0.0
            groups.setdefault(key, []).append(parameter)
    return [
        {"params": members, "weight_decay": weight_decay, "lr_scale": lr / settings.lr}
        for (lr, weight_decay), members in groups.items()
    ]

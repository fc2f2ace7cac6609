"""The cost of a forecast and of a training step: counted from shapes, and measured.

Counting runs one step of the network on torch's meta device, which computes nothing. Every step
of a forecast costs the same.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.module_tracker import ModuleTracker

from zoo.bench.peak import peak
from zoo.config import Config
from zoo.errors import ConfigError, ZooError
from zoo.hub import pull
from zoo.model_folder import read_config
from zoo.published import DIFFERENCES, TABLES, Published, Task
from zoo.registry import build, create, parse_architecture

__all__ = [
    "CONVENTION",
    "KINDS",
    "MEMORY_MODEL",
    "Cost",
    "Part",
    "count",
    "default_task",
    "explain",
    "find_config",
    "measure_peak",
    "published",
    "report",
    "reports",
    "summary",
]

KINDS = ("convolution", "attention", "warp")
CONVENTION = (
    "MACs are multiply-accumulates of one forecast at batch 1; FLOPs = 2 × MACs. Convolutions are "
    "counted without bias and with their padding, transposed ones per input; attention as its two "
    "matrix products, with masked and padded positions; a warp as 4 per element read. Not counted: "
    "element-wise operations, softmax, pooling, interpolation."
)
MEMORY_MODEL = (
    "Memory model: 4·M_par + 2·M_out in float32: weights, gradients and Adam's two moments; the "
    "results of all operations of all steps in training and their gradients. Views need no memory, "
    "attention is one operation, nothing is freed early, and operations need no workspace."
)


@dataclass(frozen=True)
class Part:
    """The cost of a part of a network, in one forecast or one training step.

    Attributes:
        name: Name of the part.
        parameters: Number of parameters.
        macs: Multiply-accumulates by kind.
        outputs: Bytes of the results of its operations, M_out.
    """

    name: str
    parameters: int
    macs: dict[str, int]
    outputs: int

    @property
    def memory_model(self) -> int:
        """Bytes that training takes by the papers' model, see MEMORY_MODEL."""
        return 4 * 4 * self.parameters + 2 * self.outputs

    def as_dict(self) -> dict[str, Any]:
        """Return the costs, ready for JSON."""
        macs = sum(self.macs.values())
        return {
            "name": self.name,
            "parameters": self.parameters,
            "macs": {**self.macs, "total": macs},
            "flops": 2 * macs,
            "memory_model_bytes": self.memory_model,
        }


@dataclass(frozen=True)
class Cost:
    """The cost of a network.

    Attributes:
        total: The whole network.
        parts: Its parts, which add up to the total: embed, layers, head, "between layers"
            (resampling, skips, padding), and "shared", whose MACs are counted in the layers that
            use it.
    """

    total: Part
    parts: tuple[Part, ...]


def find_config(name: str, options: dict[str, Any] | None = None) -> Config:
    """Return the config of an architecture or of a pretrained model.

    Args:
        name: Name of the architecture or the model.
        options: Options of the architecture, as for :func:`zoo.create`.

    Raises:
        ConfigError: If an option is unknown, or if options are given for a pretrained model.
        HubError: If there is no such architecture or model.
    """
    try:
        parse_architecture(name)
    except ZooError:
        folder = pull(name)
        if options:
            raise ConfigError(
                f"{name} is a pretrained model, whose options are fixed; leave out "
                f"{', '.join(options)}, or name an architecture"
            ) from None
        return read_config(folder)
    with torch.device("meta"):
        return create(name, **(options or {})).config


def count(config: Config, task: Task) -> Cost:
    """Count the cost of a forecast and of a training step, at batch 1.

    Raises:
        ConfigError: If the network does not run on frames of this size.
    """
    flops = FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.grid_sampler_2d: _warp_flops}
    )
    with torch.device("meta"), torch.no_grad():
        network = build(config).network
        frame = torch.empty(1, config.read_channels, *task.size)
        try:
            state = network.init_state(frame)
            network.eval()
            with flops:
                network(frame, state)
            network.train()
            with _Results() as results, _WholeAttention():
                network(frame, state)
        except RuntimeError as error:
            height, width = task.size
            raise ConfigError(
                f"{config.architecture} does not run on frames of {height}x{width}; choose "
                f"another --size: {str(error).splitlines()[0]}"
            ) from error

    def part(name: str, path: str, module: nn.Module) -> Part:
        macs = dict.fromkeys(KINDS, 0)
        for operation, n in flops.flop_counts[path].items():
            macs[_kind(operation)] += n // 2 * task.steps
        return Part(name, _parameters(module), macs, results.bytes[path] * task.steps)

    root = type(network).__name__  # as the trackers name modules
    total = part("total", "Global", network)
    parts = [part("embed", f"{root}.embed", network.embed)]
    parts += [part(f"layer {j}", f"{root}.layers.{j}", m) for j, m in enumerate(network.layers)]
    parts.append(part("head", f"{root}.head", network.head))
    if network.shared is not None:  # it runs inside the layers
        parts.append(Part("shared", _parameters(network.shared), dict.fromkeys(KINDS, 0), 0))
    parts.append(_remainder("between layers", total, parts))
    return Cost(total, tuple(p for p in parts if p.parameters or p.outputs))


def report(name: str, config: Config, task: Task, device: str | None = None) -> dict[str, Any]:
    """Return all costs of a model, ready for JSON.

    Args:
        name: Name of the model.
        config: Its config.
        task: The frames that it reads and forecasts.
        device: Where to measure a training step (:func:`measure_peak`); by default nowhere.
    """
    cost, row = count(config, task), published(config, task)
    return {
        **cost.total.as_dict(),
        "name": name,
        "architecture": config.architecture,
        **asdict(task),
        "steps": task.steps,
        "peak_bytes": measure_peak(config, task, device) if device else None,
        "parts": [part.as_dict() for part in cost.parts],
        "published": asdict(row) if row else None,
        "differs": explain(row, config, cost.total) or None,
    }


def default_task(config: Config) -> Task:
    """Return the frames that a model was trained with, or 10 and 10 of 64×64."""
    data = config.data
    size = config.size or data.size or (64, 64)
    return Task(size, data.input_frames or 10, data.horizon or 10)


def summary(counted: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a report that metrics.json keeps."""
    keys = ("parameters", "flops", "memory_model_bytes", "size", "input_frames", "horizon")
    return {"macs": counted["macs"]["total"], **{key: counted[key] for key in keys}}


def reports(dataset: str, device: str | None = None) -> list[dict[str, Any]]:
    """Return reports of the models in a published table, then of those in the other tables."""
    task = TABLES[dataset].task
    rows = [*TABLES[dataset].rows, *(row for table in TABLES.values() for row in table.rows)]
    names = dict.fromkeys([*(row.architecture for row in rows), *DIFFERENCES])
    return [report(name, find_config(name), task, device) for name in names]


def published(config: Config, task: Task) -> Published | None:
    """Return the published row of a model for a task, or None."""

    def essence(config: Config) -> dict[str, Any]:
        return config.model_dump(exclude={"data", "plugin"})

    for table in TABLES.values():
        if table.task == task:
            for row in table.rows:
                if row.architecture == config.architecture:
                    same = essence(find_config(row.architecture)) == essence(config)
                    return row if same else None
    return None


def explain(row: Published | None, config: Config, cost: Part) -> str:
    """Return why the published network or figure differs, in one line; "" if it does not."""
    difference = DIFFERENCES.get(config.cell, "")
    if row is None:
        return difference
    printed = (row.parameters, row.macs)
    if printed == (round(cost.parameters / 1e6, 1), round(cost.macs["convolution"] / 1e9, 1)):
        return ""
    return "; ".join(filter(None, (difference, row.why)))


def measure_peak(config: Config, task: Task, device: str = "cpu") -> int:
    """Measure the peak memory of one training step: batch 1, float32, without an optimizer.

    Returns:
        Bytes; see :func:`zoo.bench.peak.peak`.

    Raises:
        ConfigError: If the device is unknown or out of memory, or if it is a CPU and the system
            is not Linux.
    """
    small = find_config("convlstm", {"hidden": 4})
    warm_up = (small, Task((16, 16), 1, 1), device)
    return peak(_train_step, config, task, device, warm_up=warm_up, device=device)


def _train_step(config: Config, task: Task, device: str = "cpu") -> None:
    model = build(config).to(device).train()
    frames = torch.rand(1, task.input_frames, config.in_channels, *task.size, device=device)
    steps = task.input_frames - 1 + task.horizon
    known = torch.rand(1, steps, config.known_channels, *task.size, device=device)
    rollout = model.rollout(frames, task.horizon, known=known)
    loss = rollout.frames.square().mean()
    if rollout.loss is not None:
        loss = loss + rollout.loss.mean()
    loss.backward()


class _Results(TorchDispatchMode):
    """Sums the bytes that operations write to new memory, by the modules they run in."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: Counter[str] = Counter()
        self.modules = ModuleTracker()

    def __enter__(self) -> _Results:
        self.modules.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.modules.__exit__(*error)

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = operation(*args, **(kwargs or {}))
        inputs = {_storage(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        for x in tree_leaves(result):
            if isinstance(x, Tensor) and _storage(x) not in inputs:
                for module in self.modules.parents:
                    self.bytes[module] += x.numel() * x.element_size()
        return result


def _storage(x: Tensor) -> int:
    """Identify the storage of a tensor, also on the meta device, where all addresses are 0."""
    return x.untyped_storage()._cdata


class _WholeAttention(TorchFunctionMode):
    """Runs attention as one operation, as fused kernels do; the meta device stores its scores."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is F.scaled_dot_product_attention:
            return _attention_result(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def _attention_result(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
    return query.new_empty(*query.shape[:-1], value.shape[-1])


def _warp_flops(*_: Any, out_shape: torch.Size, **__: Any) -> int:
    """Count F.grid_sample, which torch does not: each element is a mean of 4 neighbors.

    The four weights are shared by all channels and not counted.
    """
    return 2 * 4 * out_shape.numel()


def _kind(operation: Any) -> str:
    name = str(operation)
    if "grid_sampler" in name:
        return "warp"
    return "convolution" if "conv" in name else "attention"


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _remainder(name: str, total: Part, parts: list[Part]) -> Part:
    """Return what is in the total but in none of the parts."""
    return Part(
        name,
        total.parameters - sum(p.parameters for p in parts),
        {kind: total.macs[kind] - sum(p.macs[kind] for p in parts) for kind in KINDS},
        total.outputs - sum(p.outputs for p in parts),
    )

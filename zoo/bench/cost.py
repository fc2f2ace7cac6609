"""What a forecast and a training step cost: counted from shapes, and measured.

Counting runs one step of the network on torch's meta device, which computes nothing; every
step of a forecast costs the same.
"""

from __future__ import annotations

import re
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.module_tracker import ModuleTracker

from zoo.config import Config
from zoo.errors import ZooError
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
    "explain",
    "find_config",
    "measure_peak",
    "published",
    "report",
    "reports",
]

#: What is counted, and how.
KINDS = ("convolution", "attention", "warp")
CONVENTION = (
    "MACs are multiply-accumulates of one forecast at batch 1; FLOPs = 2 × MACs. Convolutions "
    "without bias, their padding included, a transposed one at its inputs; attention: its two "
    "matrix products, masked and padded positions included; a warp: 4 an element read. Not "
    "counted: what is element-wise, softmax, pooling, interpolation."
)
MEMORY_MODEL = (
    "Memory model: 4·M_par + 2·M_out in float32: weights, gradients, Adam's two moments; the "
    "results of all operations of all steps in training (a view is none, attention is one) and "
    "their gradients. Nothing is freed early, and no operation needs room to work."
)


@dataclass(frozen=True)
class Part:
    """What a part of a network costs in one forecast, or in one training step.

    macs: multiply-accumulates by kind. outputs: bytes of its operations' results, M_out.
    """

    name: str
    parameters: int
    macs: dict[str, int]
    outputs: int

    @property
    def memory_model(self) -> int:
        """Bytes of training by the papers' model, see MEMORY_MODEL."""
        return 4 * 4 * self.parameters + 2 * self.outputs

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
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
    """What a network costs: as a whole, and part by part, which add up to it.

    Beside embed, layers and head there is what lies between the layers (resampling, skips,
    padding), and what they share, whose MACs are those of the layers that use it.
    """

    total: Part
    parts: tuple[Part, ...]


def find_config(name: str, options: dict[str, Any] | None = None) -> Config:
    """The config of an architecture with options (of :func:`zoo.create`), or of a model.

    Raises ZooError for unknown names and options, and for options of a pretrained model.
    """
    try:
        parse_architecture(name)
    except ZooError:
        folder = pull(name)
        if options:
            raise ZooError(
                f"{name} is a trained model, whose options stand in its config; "
                f"leave out {', '.join(options)}, or name an architecture"
            ) from None
        return read_config(folder)
    with torch.device("meta"):
        return create(name, **(options or {})).config


def count(config: Config, task: Task) -> Cost:
    """Count what a model's forecast and its training step cost, at batch 1.

    Raises ZooError where the network does not run on such frames.
    """
    flops = FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.grid_sampler_2d: _warp_flops}
    )
    with torch.device("meta"), torch.no_grad():
        network = build(config).network
        frame = torch.empty(1, config.in_channels, *task.size)
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
            raise ZooError(
                f"{config.architecture} does not run on frames of {height}x{width}; give it "
                f"another --size: {str(error).splitlines()[0]}"
            ) from error

    def part(name: str, path: str, module: nn.Module) -> Part:
        macs = dict.fromkeys(KINDS, 0)
        for operation, n in flops.flop_counts[path].items():
            macs[_kind(operation)] += n // 2 * task.steps
        return Part(name, _parameters(module), macs, results.bytes[path] * task.steps)

    root = type(network).__name__  # of the trackers' names
    total = part("total", "Global", network)
    parts = [part("embed", f"{root}.embed", network.embed)]
    parts += [part(f"layer {j}", f"{root}.layers.{j}", m) for j, m in enumerate(network.layers)]
    parts.append(part("head", f"{root}.head", network.head))
    if network.shared is not None:  # it runs inside the layers
        parts.append(Part("shared", _parameters(network.shared), dict.fromkeys(KINDS, 0), 0))
    parts.append(_remainder("between layers", total, parts))
    return Cost(total, tuple(p for p in parts if p.parameters or p.outputs))


def report(name: str, config: Config, task: Task, device: str | None = None) -> dict[str, Any]:
    """All that is known of what a model costs, as JSON holds it.

    Where `device` is given, one training step is measured there (:func:`measure_peak`).
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
    """The frames that a model was trained with, where it says so."""
    data = config.data
    size = config.size or data.size or (64, 64)
    return Task(size, data.input_frames or 10, data.horizon or 10)


def kept(told: dict[str, Any]) -> dict[str, Any]:
    """What metrics.json keeps of a report."""
    keys = ("parameters", "flops", "memory_model_bytes", "size", "input_frames", "horizon")
    return {"macs": told["macs"]["total"], **{key: told[key] for key in keys}}


def reports(dataset: str, device: str | None = None) -> list[dict[str, Any]]:
    """Reports of the models of a published table, and then of those of the other tables."""
    task = TABLES[dataset].task
    rows = [*TABLES[dataset].rows, *(row for table in TABLES.values() for row in table.rows)]
    names = dict.fromkeys([*(row.architecture for row in rows), *DIFFERENCES])
    return [report(name, find_config(name), task, device) for name in names]


def published(config: Config, task: Task) -> Published | None:
    """The published row of a model and what it forecasts; None where there is none."""

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
    """In one line, why the published network or figure differs; "" where it does not."""
    difference = DIFFERENCES.get(config.cell, "")
    if row is None:
        return difference
    printed = (row.parameters, row.macs)
    if printed == (round(cost.parameters / 1e6, 1), round(cost.macs["convolution"] / 1e9, 1)):
        return ""
    return "; ".join(filter(None, (difference, row.why)))


def measure_peak(config: Config, task: Task, device: str = "cpu") -> int:
    """Bytes that one training step takes at its peak: batch 1, float32, forward and backward.

    Weights, gradients and what backward needs; no optimizer. On CUDA what torch allocates. On a
    CPU the step is taken in a process of its own, and it is what that grows by (resident).

    Raises ZooError where the device or its memory does not do, and off Linux on a CPU.
    """
    if device.startswith("cuda"):
        return _cuda_peak(config, task, device)
    if device != "cpu" or not _STATUS.exists():
        raise ZooError(
            f"memory on the device {device!r} cannot be measured here, only on cuda, and on cpu "
            "under Linux; leave out --measure"
        )
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(_resident_peak, config, task).result()
        except BrokenProcessPool:
            raise ZooError(
                "the process that took the training step was ended, as the system does for want "
                "of memory; give a smaller --size, --input or --horizon"
            ) from None


def _cuda_peak(config: Config, task: Task, device: str) -> int:
    try:
        torch.empty(0, device=device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        _train_step(config, task, device)
        return torch.cuda.max_memory_allocated(device) - before
    except (RuntimeError, AssertionError, ValueError) as error:  # torch's words for a device
        raise ZooError(f"no training step on {device!r}: {str(error).splitlines()[0]}") from None


_STATUS = Path("/proc/self/status")


def _resident_peak(config: Config, task: Task) -> int:
    """How far this process, a fresh one, grows in one training step."""
    # What torch loads at its first step is not the model's.
    _train_step(find_config("convlstm", {"hidden": 4}), Task((16, 16), 1, 1))
    before = _resident("VmRSS")
    try:
        _train_step(config, task)
    except RuntimeError as error:
        raise ZooError(f"no training step: {str(error).splitlines()[0]}") from None
    return max(0, _resident("VmHWM") - before)


def _resident(field: str) -> int:
    """Bytes of this process in memory: now (VmRSS), at most so far (VmHWM)."""
    found = re.search(rf"{field}:\s+(\d+) kB", _STATUS.read_text())
    return int(found[1]) * 1024 if found else 0


def _train_step(config: Config, task: Task, device: str = "cpu") -> None:
    model = build(config).to(device).train()
    frames = torch.rand(1, task.input_frames, config.in_channels, *task.size, device=device)
    rollout = model.rollout(frames, task.horizon)
    loss = rollout.frames.square().mean()
    if rollout.loss is not None:
        loss = loss + rollout.loss.mean()
    loss.backward()


class _Results(TorchDispatchMode):
    """Adds up the bytes that operations write to new memory, by the modules they run in."""

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
        given = {_memory(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        for x in tree_leaves(result):
            if isinstance(x, Tensor) and _memory(x) not in given:
                for module in self.modules.parents:
                    self.bytes[module] += x.numel() * x.element_size()
        return result


def _memory(x: Tensor) -> int:
    """Which memory a tensor lies in, on the meta device too, where addresses are all 0."""
    return x.untyped_storage()._cdata


class _WholeAttention(TorchFunctionMode):
    """Attention as one operation, as its kernels run it; the meta device makes its scores."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is F.scaled_dot_product_attention:
            return _attention_result(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def _attention_result(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
    return query.new_empty(*query.shape[:-1], value.shape[-1])


def _warp_flops(*_: Any, out_shape: torch.Size, **__: Any) -> int:
    """Of F.grid_sample, which torch counts as nothing: each element is a mean of 4 neighbours.

    Their four weights are one for all channels and are not counted.
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
    """What is in the total and in none of the parts."""
    return Part(
        name,
        total.parameters - sum(p.parameters for p in parts),
        {kind: total.macs[kind] - sum(p.macs[kind] for p in parts) for kind in KINDS},
        total.outputs - sum(p.outputs for p in parts),
    )

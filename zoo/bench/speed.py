"""The speed of models: time, peak memory, and the share of what the machine can do.

Ratios are medians over pairs of runs, one after the other, in CPU time per thread: they hold on a
busy machine, whose speed changes while it measures.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, fields, replace
from statistics import median
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.bench.cost import count, find_config
from zoo.bench.peak import can_measure, peak
from zoo.bench.reference import plain
from zoo.errors import ConfigError
from zoo.forecast import Forecaster
from zoo.published import Task
from zoo.registry import build

__all__ = [
    "MODES",
    "Case",
    "Ceiling",
    "Timing",
    "changed",
    "compare",
    "measure",
    "measure_ceiling",
    "measure_peak",
]

#: What is timed, and how many times the multiply-accumulates of a rollout it needs.
MODES = {"rollout": 1, "train": 3, "step": 1}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Case:
    """Something to measure.

    Attributes:
        model: Name of an architecture or a pretrained model; its weights are random.
        mode: "rollout" (a forecast), "train" (a rollout, its loss and gradient; no optimizer) or
            "step" (one step of a stream).
        size: Height and width of the frames.
        input_frames: Number of input frames.
        horizon: Number of forecast frames.
        batch: Number of sequences.
        precision: "fp32", or mixed precision with "bf16" or "fp16".
        compile: Whether the network is compiled.
        channels_last: Whether weights and frames are in the channels-last format.
        reference: Whether cells are the plain ones of zoo.bench.reference.
        device: Where it runs.
        options: Options of the architecture.
    """

    model: str
    mode: str = "rollout"
    size: tuple[int, int] = (64, 64)
    input_frames: int = 10
    horizon: int = 10
    batch: int = 1
    precision: str = "fp32"
    compile: bool = False
    channels_last: bool = False
    reference: bool = False
    device: str = "cpu"
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def task(self) -> Task:
        """The frames of a forecast; a step is a forecast from one frame."""
        if self.mode == "step":
            return Task(self.size, 1, 1)
        return Task(self.size, self.input_frames, self.horizon)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one run; a backward pass takes twice those of the forward."""
        cost = count(find_config(self.model, self.options), self.task)
        return sum(cost.total.macs.values()) * self.batch * MODES[self.mode]


class Ceiling(NamedTuple):
    """What the machine can do.

    Attributes:
        macs: Multiply-accumulates per second of a large convolution.
        bytes: Bytes per second that a large copy reads and writes.
    """

    macs: float
    bytes: float


class Timing(NamedTuple):
    """The time of one run in seconds.

    Attributes:
        cpu: CPU time per thread; on a GPU, the time until it has finished.
        wall: Elapsed time.
    """

    cpu: float
    wall: float


def changed(case: Case, settings: dict[str, Any]) -> Case:
    """Return a case with other settings: attributes of :class:`Case` or options of its model.

    Raises:
        ConfigError: If a value is invalid.
    """
    names = {f.name for f in fields(Case)} - {"options", "model", "size"}
    options = {key: value for key, value in settings.items() if key not in names}
    known = {key: value for key, value in settings.items() if key in names}
    for name, value in known.items():
        if type(value) is not type(getattr(case, name)):
            expected = type(getattr(case, name)).__name__
            raise ConfigError(f"{name} is {value!r}; expected a value such as {expected}")
    case = replace(case, **known, options={**case.options, **options})
    for name, valid in (("mode", MODES), ("precision", DTYPES)):
        if getattr(case, name) not in valid:
            raise ConfigError(f"{name} is {getattr(case, name)!r}; expected {', '.join(valid)}")
    return case


def measure(
    case: Case, other: Case | None = None, *, seconds: float = 10, memory: bool = True
) -> dict[str, Any]:
    """Measure a case, and another one interleaved with it.

    Args:
        case: What to measure.
        other: What to compare it with.
        seconds: For how long to run them, in time that they use; each runs at least three times.
        memory: Whether to measure the peak memory, too, where that is possible.

    Returns:
        The attributes of the case; the time of the first run and medians of the others in seconds,
        `peak_bytes` and `macs`. With another case, the same of that, and how many times as long
        (`ratio`, `ratio_wall`) and as much memory (`ratio_bytes`) that takes.

    Raises:
        ConfigError: If the model does not run.
    """
    cases = [case] if other is None else [case, other]
    try:
        runs = [prepare(c) for c in cases]
        firsts = [_time(run, c.device).wall for run, c in zip(runs, cases, strict=True)]
        rounds = compare(runs, case.device, seconds)
    except RuntimeError as error:
        raise ConfigError(f"{case.model} does not run: {str(error).splitlines()[0]}") from error
    results: list[dict[str, Any]] = []
    for n, c in enumerate(cases):
        times = [timings[n] for timings in rounds]
        results.append(
            {
                "first_s": firsts[n],
                "cpu_s": median(t.cpu for t in times),
                "wall_s": median(t.wall for t in times),
                "peak_bytes": measure_peak(c) if memory and can_measure(c.device) else None,
                "macs": c.macs,
            }
        )
    row = {**asdict(case), "threads": torch.get_num_threads(), "runs": len(rounds), **results[0]}
    if other is None:
        return row
    return {
        **row,
        **{f"vs_{name}": value for name, value in results[1].items() if name != "macs"},
        "ratio": median(b.cpu / a.cpu for a, b in rounds),
        "ratio_wall": median(b.wall / a.wall for a, b in rounds),
        "ratio_bytes": _ratio(results[1]["peak_bytes"], results[0]["peak_bytes"]),
    }


def compare(
    runs: list[Callable[[], object]], device: str, seconds: float, least: int = 3
) -> list[list[Timing]]:
    """Time functions in turn, until they have run for some seconds, and at least `least` times.

    Every other round is in reverse order, so that no function profits from its place.
    """
    rounds: list[list[Timing]] = []
    spent = 0.0
    while len(rounds) < least or spent < seconds:
        order = list(enumerate(runs))[:: -1 if len(rounds) % 2 else 1]
        timings = {n: _time(run, device) for n, run in order}
        rounds.append([timings[n] for n in range(len(runs))])
        spent += sum(timing.cpu for timing in rounds[-1])
    return rounds


def measure_ceiling(device: str = "cpu", precision: str = "fp32") -> Ceiling:
    """Measure what the machine can do: a large convolution, and a large copy.

    The convolution is 3×3, of 256 channels on a 56×56 grid, in the faster memory format.
    """
    dtype = DTYPES[precision]
    x = torch.randn(1, 256, 56, 56, device=device, dtype=dtype)
    weight = torch.randn(256, 256, 3, 3, device=device, dtype=dtype)
    x_last, weight_last = (a.contiguous(memory_format=torch.channels_last) for a in (x, weight))
    source = torch.randn(2**24, device=device)  # 64 MiB
    target = torch.empty_like(source)
    runs: list[Callable[[], object]] = [
        lambda: F.conv2d(x, weight, padding=1),
        lambda: F.conv2d(x_last, weight_last, padding=1),
        lambda: target.copy_(source),
    ]
    with torch.no_grad():
        for run in runs:
            run()
        rounds = compare(runs, device, seconds=0, least=7)
    planar, interleaved, copy = (median(t[n].cpu for t in rounds) for n in range(3))
    macs = x.numel() * weight[:, 0].numel()
    return Ceiling(macs / min(planar, interleaved), 2 * source.nbytes / copy)


def measure_peak(case: Case) -> int:
    """Measure the peak memory of one run of a case in bytes; see :func:`zoo.bench.peak.peak`."""
    small = Case("convlstm", case.mode, (16, 16), 1, 1, options={"hidden": 4}, device=case.device)
    return peak(_run_once, case, warm_up=(small,), device=case.device)


def prepare(case: Case) -> Callable[[], object]:
    """Create the model and the frames of a case, and return the function that runs it once."""
    model = build(find_config(case.model, case.options))
    if case.reference:
        model = plain(model)
    model = model.to(case.device).train(case.mode == "train")
    shape = (case.batch, case.task.input_frames, model.config.in_channels, *case.size)
    frames = torch.rand(shape, device=case.device)
    if case.channels_last:
        model.network.to(memory_format=torch.channels_last)
    if case.compile:
        model.network.compile()
    return _RUNS[case.mode](model, frames, case)


def _train(model: Forecaster, frames: Tensor, case: Case) -> Callable[[], object]:
    def run() -> None:
        model.zero_grad()
        with _autocast(case):
            rollout = model.rollout(frames, case.horizon)
        loss = rollout.frames.float().square().mean()
        if rollout.loss is not None:
            loss = loss + rollout.loss.mean()
        loss.backward()

    return run


def _rollout(model: Forecaster, frames: Tensor, case: Case) -> Callable[[], object]:
    def run() -> None:
        with torch.no_grad(), _autocast(case):
            model(frames, case.horizon)

    return run


def _step(model: Forecaster, frames: Tensor, case: Case) -> Callable[[], object]:
    state = model.network.init_state(frames[:, 0])

    def run() -> None:
        with torch.no_grad(), _autocast(case):
            model.step(frames[:, 0], state)

    return run


_RUNS = {"train": _train, "rollout": _rollout, "step": _step}


def _autocast(case: Case) -> AbstractContextManager[object]:
    if case.precision == "fp32":
        return nullcontext()
    return torch.autocast(torch.device(case.device).type, dtype=DTYPES[case.precision])


def _time(run: Callable[[], object], device: str) -> Timing:
    _wait(device)
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    _wait(device)
    elapsed = time.perf_counter() - wall
    on_cpu = torch.device(device).type == "cpu"
    used = (time.process_time() - cpu) / torch.get_num_threads()
    return Timing(used if on_cpu else elapsed, elapsed)


def _wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def _run_once(case: Case) -> None:
    prepare(case)()


def _ratio(a: int | None, b: int | None) -> float | None:
    return a / b if a and b else None

"""What happens inside a network: outputs, gates and states of every layer at every step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from zoo.cell import Step
from zoo.forecast import Forecaster
from zoo.labeled import is_labeled, unlabel
from zoo.units import Frames, scale

if TYPE_CHECKING:
    import xarray

__all__ = ["features", "gates", "layer_scales", "scaled_past"]

#: A gate value below the first is closed, above the second open.
CLOSED, OPEN = 0.1, 0.9

BINS = 50  # of the histogram of gate values

Recorder = Callable[[int, Step], None]


def features(model: Forecaster, frames: Frames, horizon: int | None = None) -> xarray.Dataset:
    """Return the output of every layer at every step of a forecast.

    Args:
        model: The model.
        frames: Input frames in the unit of the data, as for :meth:`zoo.Forecaster.predict`.
        horizon: Number of frames to forecast; by default that of training.

    Returns:
        The variables ``layer0`` (bottom), ``layer1``, …, each with the dimensions sample, time,
        channel, y and x; the grid's dimensions carry the number of the layer, as grids differ.
        `time` counts from the step that reads the last input frame, 0. At later steps the network
        reads its own forecast.

    Raises:
        DataError: If the frames do not fit the model.
    """
    import xarray

    past = scaled_past(model, frames)
    outputs: list[list[np.ndarray]] = [[] for _ in model.network.cells]
    _run(model, past, horizon, lambda j, step: outputs[j].append(step.output.cpu().numpy()))
    times = np.arange(len(outputs[0])) - (past.shape[1] - 1)
    return xarray.Dataset(
        {
            f"layer{j}": (
                ("sample", "time", "channel", f"y{j}", f"x{j}"),
                np.stack(values, axis=1),
            )
            for j, values in enumerate(outputs)
        },
        coords={"time": times},
        attrs={"scales": layer_scales(model)},
    )


def gates(model: Forecaster, frames: Frames, horizon: int | None = None) -> xarray.Dataset:
    """Return how open the gates are and how large the states, per layer and step of a forecast.

    A gate is whatever leaves a sigmoid in the layer's cell, so this works for every cell.

    Args:
        model: The model.
        frames: Input frames in the unit of the data, as for :meth:`zoo.Forecaster.predict`.
        horizon: Number of frames to forecast; by default that of training.

    Returns:
        Variables by layer and time: ``closed`` and ``open``, the shares of gate values below 0.1
        and above 0.9; ``mean``, their mean; ``state``, the root mean square of each part of the
        state (dimension `part`); ``memory``, that of the memory passed between layers. Further
        ``histogram``, the share of gate values by layer and `value`. NaN where a cell has none.

    Raises:
        DataError: If the frames do not fit the model.
    """
    import xarray

    past = scaled_past(model, frames).double()
    model = copy.deepcopy(model).double()  # in float32, zoo.tanh uses the sigmoid as well
    depth = len(model.network.cells)
    rows: list[list[dict[str, Any]]] = [[] for _ in range(depth)]
    counts = np.zeros((depth, BINS))
    sigmoids = _Sigmoids()

    def record(j: int, step: Step) -> None:
        values = sigmoids.take()
        counts[j] += np.histogram(values, BINS, (0, 1))[0]
        some = values if values.size else np.array([np.nan])
        rows[j].append(
            {
                "closed": (some < CLOSED).mean() if values.size else np.nan,
                "open": (some > OPEN).mean() if values.size else np.nan,
                "mean": some.mean(),
                "state": [_rms([part]) for part in _tensors(step.state)],
                "memory": _rms(_tensors(step.memory)),
            }
        )

    with sigmoids:
        _run(model, past, horizon, record)
    parts = max(len(row["state"]) for layer in rows for row in layer)
    for row in (row for layer in rows for row in layer):
        row["state"] += [np.nan] * (parts - len(row["state"]))
    names = rows[0][0]
    table = {name: np.array([[row[name] for row in layer] for layer in rows]) for name in names}
    total = counts.sum(1, keepdims=True)
    return xarray.Dataset(
        {
            **{name: (("layer", "time"), table[name]) for name in names if name != "state"},
            "state": (("layer", "time", "part"), table["state"]),
            "histogram": (("layer", "value"), counts / np.where(total, total, np.nan)),
        },
        coords={
            "time": np.arange(len(rows[0])) - (past.shape[1] - 1),
            "value": (np.arange(BINS) + 0.5) / BINS,
        },
    )


def scaled_past(model: Forecaster, frames: Frames) -> Tensor:
    """Return input frames as (B, T, C, H, W), scaled to [0, 1], missing values as 0."""
    values = unlabel(frames)[0] if is_labeled(frames) else frames
    like = next(model.parameters())
    return scale(values, model.config.data, like=like).nan_to_num(nan=0.0)  # type: ignore[arg-type]


def layer_scales(model: Forecaster) -> list[int]:
    """Return how many pixels of a frame a grid point of each layer covers, per side."""
    network = model.network
    return [network.patch * scale for scale in network.topology.scales]


def _run(model: Forecaster, past: Tensor, horizon: int | None, record: Recorder) -> None:
    """Forecast without gradients, and call `record` after every layer of every step."""
    horizon = (model.config.data.horizon or 1) if horizon is None else horizon
    was_training = model.training
    with torch.no_grad(), recording(model, record):
        model.eval()
        try:
            model(past, horizon)
        finally:
            model.train(was_training)


@contextmanager
def recording(model: Forecaster, record: Recorder) -> Iterator[None]:
    """Call ``record(layer, step)`` whenever a layer has taken a step."""

    def hook(j: int) -> Callable[..., None]:
        return lambda module, arguments, step: record(j, step)

    with ExitStack() as stack:
        for j, cell in enumerate(model.network.cells):
            stack.callback(cell.register_forward_hook(hook(j)).remove)
        yield


class _Sigmoids(TorchDispatchMode):
    """Keeps what leaves sigmoids, until it is taken."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[np.ndarray] = []

    def take(self) -> np.ndarray:
        """Return the values since the last call, flat."""
        values, self.values = self.values, []
        return np.concatenate(values) if values else np.empty(0, np.float32)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten.sigmoid.default, torch.ops.aten.sigmoid_.default):
            self.values.append(result.float().flatten().cpu().numpy())
        return result


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def _rms(tensors: list[Tensor]) -> float:
    """Root mean square over all values; NaN without any."""
    if not tensors:
        return float("nan")
    return float(torch.cat([x.float().flatten() for x in tensors]).square().mean().sqrt())

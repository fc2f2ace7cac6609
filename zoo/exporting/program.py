"""A model as a program with explicit state, captured by torch.export."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from zoo.errors import ConfigError
from zoo.exporting.description import Axis, StateTensor
from zoo.network import Network, NetworkState

__all__ = ["RolloutProgram", "StepProgram", "capture", "state_tensors", "tensors_of"]

#: Padded sizes at which the sizes of states are looked at, in multiples of the smallest.
PROBES = range(1, 10)


class StepProgram(nn.Module):
    """One step of a network with the state as separate tensors.

    The state consists of the tensors in :class:`zoo.network.NetworkState`, in its order and
    without those that are None.

    Args:
        network: The network.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        leaves, self.structure = pytree.tree_flatten(_initial_state(network))
        self.present = [leaf is not None for leaf in leaves]

    def forward(self, frame: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the next frame and the new states.

        Args:
            frame: (B, C, H, W), scaled to [0, 1].
            states: The tensors of the state.
        """
        height, width = frame.shape[-2:]
        prediction, state, _ = self.network(self.pad(frame), self._join(states))
        # Unlike a slice, which may be shorter, these have the sizes of the frame for certain.
        cropped = prediction.narrow(2, 0, height).narrow(3, 0, width)
        return cropped, *tensors_of(state)

    def pad(self, frame: Tensor) -> Tensor:
        """Repeat the border, as the network does.

        The network only does so where it is needed, which a program for any size cannot depend on.
        """
        multiple = self.network.multiple
        height, width = frame.shape[-2:]
        bottom, right = ((n + multiple - 1) // multiple * multiple - n for n in (height, width))
        return F.pad(frame, (0, right, 0, bottom), mode="replicate")

    def _join(self, states: Sequence[Tensor]) -> NetworkState:
        following = iter(states)
        leaves = [next(following) if present else None for present in self.present]
        return pytree.tree_unflatten(leaves, self.structure)


class RolloutProgram(nn.Module):
    """A rollout of a fixed number of steps, from past frames to the forecast.

    Args:
        network: The network.
        horizon: Number of frames to forecast.
    """

    def __init__(self, network: Network, horizon: int) -> None:
        super().__init__()
        self.step = StepProgram(network)
        self.horizon = horizon

    def forward(self, frames: Tensor) -> Tensor:
        """Return the forecast (B, horizon, C, H, W) of frames (B, T, C, H, W) in [0, 1]."""
        given = frames.shape[1]
        frame = frames[:, 0]
        network = self.step.network
        # For any size, that of the padded frame gives simpler expressions of the sizes of states.
        states = tensors_of(network.init_state(frame if network.size else self.step.pad(frame)))
        predictions: list[Tensor] = []
        for t in range(given - 1 + self.horizon):
            frame = frames[:, t] if t < given else predictions[-1]
            prediction, *states = self.step(frame, tuple(states))
            predictions.append(prediction)
        return torch.stack(predictions[-self.horizon :], dim=1)


def tensors_of(state: NetworkState) -> tuple[Tensor, ...]:
    """Return the tensors of a state in their order."""
    return tuple(leaf for leaf in pytree.tree_leaves(state) if leaf is not None)


def state_tensors(network: Network) -> tuple[StateTensor, ...]:
    """Describe the tensors of a network's state: names and shapes.

    Raises:
        ConfigError: If the state does not start at zero, or a size of it is not a multiple of the
            frame's, rounded up.
    """
    if any(tensor.any() for tensor in tensors_of(_initial_state(network, device="cpu"))):
        raise ConfigError("the state does not start at zero, as the contract of cells requires")
    paths, _ = pytree.tree_flatten_with_path(_initial_state(network))
    names = [
        "_".join(re.findall(r"\w+", pytree.keystr(path)))
        for path, leaf in paths
        if leaf is not None
    ]

    def shapes(batch: int = 1, height: int = 1, width: int = 1) -> list[torch.Size]:
        state = _initial_state(network, batch, height, width)
        return [tensor.shape for tensor in tensors_of(state)]

    varied = {"batch": [shapes(), shapes(batch=2)]}
    if network.size is None:
        varied |= {name: [shapes(**{name: q}) for q in PROBES] for name in ("height", "width")}
    units = {"batch": 1, "height": network.multiple, "width": network.multiple}
    states = []
    for i, name in enumerate(names):
        shape: list[Axis] = list(varied["batch"][0][i])
        for k in range(len(shape)):
            for source, probes in varied.items():
                sizes = [probe[i][k] for probe in probes]
                if len(set(sizes)) > 1:
                    shape[k] = _axis(name, source, sizes, units[source])
        states.append(StateTensor(name=name, next=f"next_{name}", shape=tuple(shape)))
    return tuple(states)


def _axis(state: str, source: str, sizes: list[int], unit: int) -> Axis:
    """Describe an axis by its sizes for 1, 2, … units of the batch, height or width."""
    first = sizes[0]
    steps = next(q for q, size in enumerate(sizes) if size != first)
    if sizes != [first * -(-q // steps) for q in range(1, len(sizes) + 1)]:
        raise ConfigError(
            f"the state {state} has the sizes {sizes} for frames whose {source} is 1, 2, … times "
            f"{unit}; exported states have a multiple of the frame's size, rounded up"
        )
    return source if first == unit * steps == 1 else f"{first}*ceil({source}/{unit * steps})"


def _initial_state(
    network: Network, batch: int = 1, height: int = 1, width: int = 1, device: str = "meta"
) -> NetworkState:
    """Return the first state for frames whose sides are multiples of the smallest padded size."""
    size = network.size or (height * network.multiple, width * network.multiple)
    return network.init_state(torch.zeros(batch, network.head.channels, *size, device=device))


def capture(
    program: nn.Module, example: tuple[Any, ...], *, fixed_size: bool
) -> torch.export.ExportedProgram:
    """Capture a program for frames of any batch, height and width.

    Args:
        program: A :class:`StepProgram` or :class:`RolloutProgram`.
        example: Its arguments. The sizes that may vary are larger than 1 and differ.
        fixed_size: Whether the network accepts frames of one size only.

    Raises:
        ConfigError: If something in it cannot be captured.
    """
    auto = torch.export.Dim.AUTO

    def varying(tensor: Tensor) -> dict[int, Any]:
        grid = () if fixed_size else (tensor.ndim - 2, tensor.ndim - 1)
        return {axis: auto for axis in (0, *grid) if tensor.shape[axis] > 1}

    try:
        with _any_size(), torch.no_grad():
            captured = torch.export.export(
                program,
                example,
                dynamic_shapes=pytree.tree_map(varying, example),
                strict=False,
                prefer_deferred_runtime_asserts_over_guards=True,
            )
    except Exception as error:  # exceptions of many classes
        raise ConfigError(
            f"torch.export cannot capture the model: {_first_line(error)}; "
            "see the contract of cells and heads: zoo check"
        ) from error
    # Among the conditions that torch.export adds are that some grids are larger than one pixel.
    graph = captured.graph
    for node in list(graph.nodes):
        if node.target is torch.ops.aten._assert_scalar.default:
            graph.erase_node(node)
    graph.eliminate_dead_code()
    captured.graph_module.recompile()
    return captured


@contextmanager
def _any_size() -> Iterator[None]:
    """Treat all sizes alike: by default, torch.export assumes that they are not 0 or 1."""
    from torch.fx.experimental import _config

    with _config.patch(backed_size_oblivious=True), warnings.catch_warnings():  # type: ignore[attr-defined]
        warnings.simplefilter("ignore")
        yield


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]

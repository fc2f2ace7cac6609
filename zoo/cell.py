"""The contract of a recurrent cell: one layer of a network, one step in time.

A cell asks for what it needs by naming it, as a pluggy hook does: an argument that its
``__init__`` or its ``forward`` does not name is not passed. ConvLSTM names none of them;
all of them together serve every cell of the MS-RNN and MS-LSTM papers.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

__all__ = ["Place", "RecurrentCell", "State", "Step"]

#: What a cell keeps from step to step: any pytree of tensors whose first axis is the batch.
State = Any


@dataclass(frozen=True)
class Place:
    """Where a layer stands in its network: `index` 0 is the bottom of `depth` layers."""

    index: int
    depth: int

    @property
    def first(self) -> bool:
        """Whether this is the bottom layer."""
        return self.index == 0

    @property
    def last(self) -> bool:
        """Whether this is the top layer."""
        return self.index == self.depth - 1


class Step(NamedTuple):
    """What a cell hands on after one step.

    output: (B, channels, H, W), the input of the layers above.
    state: what this layer is given back at the next step.
    memory: (B, channels, H, W), for cells that name `memory`: it rises to the next layer,
        and from the top layer to the bottom layer of the next step. Below the top it may be
        a pytree of several such tensors.
    loss: (B,), an auxiliary loss of each sample, weighted as it is to enter the training
        loss; cells that have one return it when ``self.training`` and None otherwise.
    """

    output: Tensor
    state: State
    memory: State = None
    loss: Tensor | None = None


class RecurrentCell(nn.Module):
    """One layer of a recurrent network, advanced by one step in time.

    A subclass implements :meth:`init_state` and ``forward(x, state, ...) -> Step``, where x
    is (B, in_channels, H, W) of any height and width, and any of these may follow by name:

    * ``memory``: (B, channels, H, W), the memory that has risen from the layer below, on
      this layer's grid; zero at the first step.
    * ``below``: the output of the layer below one step ago, on this layer's grid and without
      skip connections; zero at the first step, None in the bottom layer.
    * ``shared``: the module that :meth:`make_shared` made for all layers of the network.

    ``__init__`` takes ``in_channels`` and ``channels``, and if it names them ``place``
    (:class:`Place`) and ``size``, the (height, width) of its grid where the network is made for
    frames of one size, else None. Its other arguments are the cell's options: they need defaults
    that JSON can hold, and become arguments of :func:`zoo.create`.

    A cell moves nothing between devices, draws no random numbers and has no control flow
    that depends on data, so that it runs under torch.compile and torch.export.
    """

    asks_for: ClassVar[tuple[str, ...]] = ()  # which of the above `forward` names

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.channels = channels

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        names = list(inspect.signature(cls.forward).parameters)[1:]
        if "forward" in cls.__dict__:
            offered = {"memory", "below", "shared"}
            if names[:2] != ["x", "state"] or not set(names[2:]) <= offered:
                raise TypeError(
                    f"{cls.__name__}.forward takes ({', '.join(names)}); expected (x, state) "
                    f"and then any of {', '.join(sorted(offered))}"
                )
            cls.asks_for = tuple(names[2:])

    def init_state(self, x: Tensor) -> State:
        """The state before the first step, for inputs like `x` (whose values do not matter)."""
        raise NotImplementedError(f"{type(self).__name__} does not implement init_state(x)")

    def zeros(self, x: Tensor) -> Tensor:
        """Zeros of shape (B, channels, H, W), for inputs like `x`."""
        batch, _, height, width = x.shape
        return x.new_zeros(batch, self.channels, height, width)

    @classmethod
    def make_shared(cls, channels: int, **options: Any) -> nn.Module | None:
        """A module that all layers of a network share, for cells that name `shared`."""
        return None

    @classmethod
    def options(cls) -> dict[str, Any]:
        """The cell's own options and their defaults, read from its ``__init__``."""
        return {
            name: parameter.default
            for name, parameter in inspect.signature(cls).parameters.items()
            if name not in ("in_channels", "channels", "place", "size")
        }

    @classmethod
    def build(
        cls,
        in_channels: int,
        channels: int,
        place: Place,
        size: tuple[int, int] | None = None,
        **options: Any,
    ) -> RecurrentCell:
        """Make one layer, telling it its place and size if its ``__init__`` asks for them."""
        asked = inspect.signature(cls).parameters
        told = {"place": place, "size": size}
        options |= {name: value for name, value in told.items() if name in asked}
        return cls(in_channels, channels, **options)

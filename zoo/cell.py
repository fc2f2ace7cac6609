"""The contract of a recurrent cell: one layer of a network, one step in time.

A cell requests what it needs by naming it, as a pluggy hook does: optional arguments are only
passed if its ``__init__`` or ``forward`` names them. ConvLSTM names none; together they are
enough for every cell of the MS-RNN and MS-LSTM papers.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from zoo.options import Option, declared_options, requested

__all__ = ["Place", "RecurrentCell", "State", "Step"]

#: The state that a cell carries from step to step: any pytree of tensors with a batch axis first.
State = Any


@dataclass(frozen=True)
class Place:
    """The position of a layer in its network.

    Attributes:
        index: Number of the layer, 0 for the bottom one.
        depth: Number of layers in the network.
    """

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
    """The result of one step of a cell.

    Attributes:
        output: (B, channels, H, W), the input of the layers above.
        state: Passed to this layer's next step.
        memory: (B, channels, H, W), for cells that name `memory`. It is passed to the next layer,
            and from the top layer to the bottom layer's next step. Below the top it may be a
            pytree of several such tensors.
        loss: (B,), an auxiliary loss per sample, with its weight included, which is added to the
            training loss. None unless ``self.training``, and for cells without one.
    """

    output: Tensor
    state: State
    memory: State = None
    loss: Tensor | None = None


class RecurrentCell(nn.Module):
    """One layer of a recurrent network, advanced by one step in time.

    A subclass implements :meth:`init_state` and ``forward(x, state, ...) -> Step``, where ``x``
    is (B, in_channels, H, W) of any height and width. ``forward`` may also name:

    * ``memory``: (B, channels, H, W), the memory of the layer below, on this layer's grid; zero
      at the first step.
    * ``below``: the output of the layer below one step ago, on this layer's grid and without
      skip connections; zero at the first step, None in the bottom layer.
    * ``shared``: the module that :meth:`make_shared` returned for all layers of the network.

    ``__init__`` takes ``in_channels`` and ``channels``. It may also name ``place`` (a
    :class:`Place`) and ``size``: the (height, width) of the layer's grid if the network accepts
    frames of one size only, else None. All other arguments are options (:mod:`zoo.options`): they
    need a default and a type that JSON can represent, and become arguments of :func:`zoo.create`.

    A cell moves nothing between devices, draws no random numbers and has no data-dependent
    control flow, so that it runs under torch.compile and torch.export.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.

    Attributes:
        asks_for: The optional arguments that ``forward`` names.
    """

    asks_for: ClassVar[tuple[str, ...]] = ()

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
        """Return the state before the first step, for inputs with the shape and type of `x`."""
        raise NotImplementedError(f"{type(self).__name__} does not implement init_state(x)")

    def zeros(self, x: Tensor) -> Tensor:
        """Return zeros (B, channels, H, W) with the device and dtype of `x`."""
        batch, _, height, width = x.shape
        return x.new_zeros(batch, self.channels, height, width)

    @classmethod
    def make_shared(cls, channels: int, **options: Any) -> nn.Module | None:
        """Return a module for all layers of a network to share, for cells that name `shared`."""
        return None

    @classmethod
    def options(cls) -> dict[str, Option]:
        """Return the cell's own options, read from its ``__init__``."""
        return declared_options(cls, ("in_channels", "channels", "place", "size"))

    @classmethod
    def build(
        cls,
        in_channels: int,
        channels: int,
        place: Place,
        size: tuple[int, int] | None = None,
        **options: Any,
    ) -> RecurrentCell:
        """Construct one layer, passing its place and size only if its ``__init__`` names them."""
        return cls(in_channels, channels, **requested(cls, place=place, size=size), **options)

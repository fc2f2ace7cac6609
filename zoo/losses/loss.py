"""The contract of a training loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from zoo.config import Data, Validated

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Loss"]


class Loss(Validated):
    """A training loss: one number for each sequence, from its forecast and the truth.

    A subclass declares its options as annotated attributes with defaults, which pydantic
    validates, and implements ``__call__``. The loss of a sequence does not depend on the others
    of its batch, so that the parts of a batch add up to the whole. It is computed from the known
    pixels only: the gradient at all others is zero.

    By convention, losses are sums over the channels and pixels of a frame and means over frames.
    So their values grow with the size of the frame alike, and a weight balances two of them for
    frames of any size.

    Attributes:
        zero_at_truth: whether the loss of a perfect forecast is zero; in any case it is the
            smallest.
    """

    zero_at_truth: ClassVar[bool] = True

    @property
    def ensemble(self) -> int:
        """The number of forecasts of a sequence that the loss reads together, 1 for most."""
        return 1

    def __call__(
        self, forecast: Tensor, truth: Tensor, known: Tensor, *, data: Data, progress: float
    ) -> Tensor:
        """Compute the loss of each sequence, (B,).

        Args:
            forecast: the forecast (B, T, C, H, W), float32, scaled to [0, 1] but not clipped;
                (M, B, T, C, H, W) if `ensemble` is M > 1.
            truth: the truth (B, T, C, H, W), scaled; 0 where it is missing.
            known: whether a pixel of the truth is known, (B, T, C, H, W).
            data: the meaning of the values, for options in their unit.
            progress: the share of the training that is done, from 0 to 1.
        """
        raise NotImplementedError

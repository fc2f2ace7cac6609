"""The contract of a metric."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from zoo.config import Data, Validated

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Metric"]


class Metric(Validated):
    """A score of every forecast frame, reported next to the usual ones.

    Reports average it over sequences, then over frames. A subclass declares its options as
    annotated attributes with defaults, sets `definition`, and implements ``__call__``.

    Attributes:
        definition: the definition in one line, which is part of every report.
        higher_is_better: whether a higher value is better.
        best: the value of a perfect forecast; None if that depends on the frame.
    """

    definition: ClassVar[str]
    higher_is_better: ClassVar[bool] = False
    best: ClassVar[float | None] = 0.0

    def __call__(self, forecast: Tensor, truth: Tensor, known: Tensor, *, data: Data) -> Tensor:
        """Measure each frame of a sequence, (T,); NaN for frames without anything to measure.

        Args:
            forecast: the forecast (T, C, H, W), float64, scaled to [0, 1]; 0 where the truth is
                missing.
            truth: the truth (T, C, H, W), scaled; 0 where it is missing.
            known: whether a pixel of the truth is known, (T, C, H, W).
            data: the meaning of the values.
        """
        raise NotImplementedError

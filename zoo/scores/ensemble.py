"""Scores of ensembles: CRPS, spread and error, ranks, Brier score, reliability and spectra."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from einops import rearrange, reduce
from torch import Tensor

from zoo.config import Data
from zoo.errors import DataError
from zoo.scores.spectrum import power_spectrum
from zoo.units import to_physical

__all__ = ["DEFINITIONS", "EnsembleMetrics", "fair_crps"]

#: Definitions of the scores, which are part of every report.
DEFINITIONS = {
    "crps": "fair continuous ranked probability score in the unit of the data, mean over pixels; "
    "the absolute error for a single forecast",
    "spread_skill": "sqrt((M + 1) / M * mean variance of the M members) / rmse of their mean, both "
    "over all known pixels and frames; 1 if the spread matches the error",
    "brier": "mean (p - o)^2 over all known pixels and frames, p the share of members and o the "
    "truth at or above the threshold",
}


class EnsembleMetrics:
    """Scores of the ensembles of one model for every lead time, over any number of sequences.

    Missing pixels of the truth are not counted. Values are in the unit of the data. Ranks and
    reliability are counts, so that they do not depend on batches or processes. A single forecast
    is an ensemble of one.

    Args:
        data: the meaning of the values.
        thresholds: thresholds of events, in the unit of the data.
    """

    def __init__(self, data: Data, thresholds: Sequence[float] = ()) -> None:
        self.data, self.thresholds = data, tuple(map(float, thresholds))
        self.members = 0
        self._rows: dict[str, list[np.ndarray]] = {}  # by name, an array (T, …) per sequence
        self._ranks = np.zeros(0, np.int64)  # (T, members below, members equal)
        self._events = np.zeros(0, np.int64)  # (T, thresholds, members above, pixels and events)

    @torch.no_grad()
    def update(self, members: Tensor, truth: Tensor) -> None:
        """Add a batch.

        Args:
            members: forecasts (M, B, T, C, H, W), scaled to [0, 1].
            truth: the truth (B, T, C, H, W), scaled; NaN if missing.

        Raises:
            DataError: if shapes differ, from each other or from earlier batches.
        """
        count, _, time = members.shape[:3]
        if members.shape[1:] != truth.shape:
            raise DataError(f"members are {tuple(members.shape)}, the truth {tuple(truth.shape)}")
        if not self.members:
            self.members = count
            self._ranks = np.zeros((time, count + 1, count + 1), np.int64)
            self._events = np.zeros((time, len(self.thresholds), count + 1, 2), np.int64)
        elif (count, time) != (self.members, len(self._ranks)):
            raise DataError(
                f"got {count} members of {time} frames after {self.members} of {len(self._ranks)}"
            )
        for i in range(len(truth)):
            self._add(members[:, i].double(), truth[i].double())

    def merge(self, other: EnsembleMetrics) -> None:
        """Add the sequences that another accumulator has measured."""
        if not other.members:
            return
        if not self.members:
            self.members = other.members
            self._ranks, self._events = other._ranks * 0, other._events * 0
        self._ranks, self._events = self._ranks + other._ranks, self._events + other._events
        for name, rows in other._rows.items():
            self._rows.setdefault(name, []).extend(rows)

    def scores(self, last: int | None = None) -> dict[str, float | None]:
        """Return the scores over all frames, or over the last ones, by name."""
        chosen = slice(None) if last is None else slice(-last, None)
        scores = {"crps": self._mean("crps", chosen), "spread_skill": None}
        variance, error = self._mean("variance", chosen), self._mean("error", chosen)
        if variance is not None and error and self.members > 1:
            scores["spread_skill"] = math.sqrt((1 + 1 / self.members) * variance / error)
        for i, threshold in enumerate(self.thresholds):
            pixels, events = self._events[chosen, i].sum(axis=0).T  # (members above,) each
            p = np.arange(self.members + 1) / self.members
            total = float((pixels * p**2 - 2 * p * events + events).sum())
            count = int(pixels.sum())
            scores[f"brier@{threshold:g}"] = total / count if count else None
        return scores

    def per_frame(self) -> dict[str, list[float | None]]:
        """Return the scores of every frame by name."""
        time = len(self._ranks)
        frames = [self._of_frame(t) for t in range(time)]
        return {name: [frame[name] for frame in frames] for name in frames[0]}

    def distributions(self, last: int) -> dict[str, Any]:
        """Return what reports draw of the last frames, ready for JSON.

        Returns:
            "members"; "ranks": how often the truth had each rank among the members, ties shared;
            "spread" and "error" of the mean for each frame; "reliability" by threshold: for each
            number of members with the event, pixels and true events; "spectra" at the last frame:
            the power at each wavenumber of "truth", "members" and "mean".
        """
        below = self._ranks[-last:].sum(axis=0)  # (members below, members equal)
        ranks = np.zeros(self.members + 1)
        for low, row in enumerate(below):
            for equal, number in enumerate(row[: len(ranks) - low]):
                ranks[low : low + equal + 1] += number / (equal + 1)
        frames = range(len(self._ranks) - last, len(self._ranks))
        spread = [self._mean("variance", slice(t, t + 1)) for t in frames]
        error = [self._mean("error", slice(t, t + 1)) for t in frames]
        inflation = 1 + 1 / self.members
        return {
            "members": self.members,
            "ranks": ranks.tolist(),
            "spread": [None if v is None else math.sqrt(inflation * v) for v in spread],
            "error": [None if v is None else math.sqrt(v) for v in error],
            "reliability": {
                f"{threshold:g}": self._events[-last:, i].sum(axis=0).tolist()
                for i, threshold in enumerate(self.thresholds)
            },
            "spectra": {
                name.partition(" ")[2]: np.mean([row[-1] for row in rows], axis=0).tolist()
                for name, rows in self._rows.items()
                if name.startswith("spectrum ")
            },
        }

    def _of_frame(self, t: int) -> dict[str, float | None]:
        frame = EnsembleMetrics(self.data, self.thresholds)
        frame.members = self.members
        frame._ranks, frame._events = self._ranks[t : t + 1], self._events[t : t + 1]
        frame._rows = {name: [row[t : t + 1] for row in rows] for name, rows in self._rows.items()}
        return frame.scores()

    def _mean(self, name: str, chosen: slice) -> float | None:
        """Mean over sequences and frames of a row, without frames that have no known pixel."""
        values = [float(v) for row in self._rows.get(name, ()) for v in row[chosen] if v == v]
        return math.fsum(values) / len(values) if values else None

    def _add(self, members: Tensor, truth: Tensor) -> None:
        """Measure one sequence: members (M, T, C, H, W) and truth (T, C, H, W) of float64."""
        known = ~truth.isnan()
        complete = bool(known.all())
        truth = truth.where(known, 0)
        members = to_physical(members, self.data).where(known, 0)
        truth = to_physical(truth, self.data).where(known, 0)
        mean = members.mean(dim=0)
        rows = {
            "crps": _mean_of_known(fair_crps(members, truth), known),
            "error": _mean_of_known((mean - truth).square(), known),
        }
        if self.members > 1:
            rows["variance"] = _mean_of_known(members.var(dim=0), known)
        if complete:
            rows["spectrum truth"] = power_spectrum(truth)
            rows["spectrum members"] = torch.stack([*map(power_spectrum, members)]).mean(dim=0)
            rows["spectrum mean"] = power_spectrum(mean)
        for name, row in rows.items():
            self._rows.setdefault(name, []).append(row.cpu().numpy())
        self._count_ranks(members, truth, known)
        for i, threshold in enumerate(self.thresholds):
            self._count_events(i, threshold, members, truth, known)

    def _count_ranks(self, members: Tensor, truth: Tensor, known: Tensor) -> None:
        size = self.members + 1
        below, equal = (members < truth).sum(dim=0), (members == truth).sum(dim=0)  # (T, C, H, W)
        for t in range(len(truth)):
            cells = (below[t] * size + equal[t])[known[t]]
            counts = cells.bincount(minlength=size**2).cpu().numpy()
            self._ranks[t] += counts.reshape(size, size)

    def _count_events(
        self, i: int, threshold: float, members: Tensor, truth: Tensor, known: Tensor
    ) -> None:
        level = threshold - 1e-5 * abs(threshold)  # as rounding may have lowered a value
        above, event = (members >= level).sum(dim=0), truth >= level  # (T, C, H, W)
        for t in range(len(truth)):
            size = self.members + 1
            pixels = above[t][known[t]].bincount(minlength=size)
            events = above[t][known[t] & event[t]].bincount(minlength=size)
            self._events[t, i] += torch.stack([pixels, events], dim=1).cpu().numpy()


def fair_crps(members: Tensor, truth: Tensor) -> Tensor:
    """Return the fair CRPS at every pixel; the absolute error for a single member.

    Args:
        members: (M, …).
        truth: (…).
    """
    count = len(members)
    distance = (members - truth).abs().mean(dim=0)
    if count == 1:
        return distance
    # The sum over all pairs of |xⱼ − xₖ| by sorting: the i-th of M is larger i times.
    ranks = torch.arange(count, device=members.device, dtype=members.dtype)
    weights = rearrange(2 * ranks - count + 1, "m -> m" + " 1" * truth.ndim)
    pairs = (weights * members.sort(dim=0).values).sum(dim=0)
    return distance - pairs / (count * (count - 1))


def _mean_of_known(values: Tensor, known: Tensor) -> Tensor:
    """Mean over the known pixels of a frame, NaN if none is known: (T,)."""
    count = reduce(known.double(), "t c h w -> t", "sum")
    total = reduce(values.where(known, 0), "t c h w -> t", "sum")
    return total / count.masked_fill(count == 0, torch.nan)

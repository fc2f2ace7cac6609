"""The sequences of each step, and which of their true frames the network is fed.

Both depend only on the recipe's seeds and the step number. So a run can be resumed on any number
of processes, and every process knows the rows of the others.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler

from zoo.config import Config
from zoo.train.recipe import Recipe

__all__ = [
    "Order",
    "Share",
    "ShareSampler",
    "fed_frames",
    "generator",
    "shown_frames",
    "step_noise",
]


@dataclass(frozen=True)
class Order:
    """The order of training sequences, in batches of all processes together.

    Each epoch visits every sequence once. The last batch of an epoch may be smaller.

    Attributes:
        length: number of sequences.
        batch_size: sequences per batch.
        seed: seed of the order.
        shuffle: whether each epoch has its own random order.
    """

    length: int
    batch_size: int
    seed: int = 0
    shuffle: bool = True

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches per epoch."""
        return -(-self.length // self.batch_size)

    def batch(self, step: int) -> list[int]:
        """Return the numbers of the sequences of a step."""
        epoch, number = divmod(step, self.steps_per_epoch)
        batch = slice(number * self.batch_size, (number + 1) * self.batch_size)
        if not self.shuffle:
            return list(range(self.length)[batch])
        return _permutation(self.length, self.seed, epoch)[batch].tolist()


@functools.lru_cache(maxsize=2)
def _permutation(length: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(length, generator=generator(seed, epoch))


def generator(seed: int, number: int) -> torch.Generator:
    """Return a generator seeded by a pair of numbers (torch uses the lower 32 bits of a seed)."""
    return torch.Generator().manual_seed((seed * 0x9E3779B1 + number) % 2**32)


@dataclass(frozen=True)
class Share:
    """The rows of a batch that one process computes.

    If the number of processes does not divide the batch, some processes repeat a row with
    weight 0, so that all have batches of the same shape.

    Attributes:
        rows: positions in the batch.
        weights: the weight of each row in the mean loss, (rows,).
    """

    rows: list[int]
    weights: Tensor

    @classmethod
    def of(cls, batch: int, process: int, processes: int) -> Share:
        """Return the share of one of several processes in a batch of `batch` rows."""
        size = -(-batch // processes)
        rows = range(batch)[process * size : (process + 1) * size]
        padding = size - len(rows)
        weights = [1 / batch] * len(rows) + [0.0] * padding
        return cls([*rows, *[0] * padding], torch.tensor(weights))


class ShareSampler(Sampler[list[Any]]):
    """Batch sampler for a DataLoader: one process's share of the steps from `first` on.

    Args:
        order: the order of the sequences.
        first: the first step.
        steps: the number of steps of the run.
        process: the number of this process.
        processes: the number of processes.
        drawn: whether to yield the number of the draw with each sequence, for random crops.
    """

    def __init__(
        self,
        order: Order,
        first: int,
        steps: int,
        process: int = 0,
        processes: int = 1,
        *,
        drawn: bool = False,
    ) -> None:
        self.order, self.first, self.steps = order, first, steps
        self.process, self.processes, self.drawn = process, processes, drawn

    def __len__(self) -> int:
        """Number of batches."""
        return self.steps - self.first

    def __iter__(self) -> Iterator[list[Any]]:
        """Yield batches: sequence numbers, or pairs of them with the numbers of the draws."""
        for step in range(self.first, self.steps):
            batch = self.order.batch(step)
            share = Share.of(len(batch), self.process, self.processes)
            draws = step * self.order.batch_size
            if self.drawn:
                yield [(batch[row], draws + row) for row in share.rows]
            else:
                yield [batch[row] for row in share.rows]


def shown_frames(recipe: Recipe, step: int, steps: int) -> int:
    """Return the number of frames of a training sequence that are used at a step."""
    data, curve = recipe.data, recipe.sampling.horizon
    horizon = data.horizon if curve is None else curve.at(step, steps, data.horizon)
    return data.input_frames + horizon


def step_noise(recipe: Recipe, config: Config, step: int, members: int) -> Tensor:
    """Draw the noise of a step, (batch_size, members, T − 1, N, H, W); N is 0 for most models."""
    data, size = config.data, recipe.crop.size or config.data.size or (1, 1)
    steps = (data.input_frames or 1) + (data.horizon or 1) - 1
    height, width = size if config.noise else (1, 1)
    shape = recipe.train.batch_size, members, steps, config.noise, height, width
    return torch.randn(shape, generator=generator(recipe.train.seed + 2, step))


def fed_frames(recipe: Recipe, step: int, steps: int) -> Tensor:
    """Draw which true frames to feed at a step: bool (batch_size, T − 1).

    The first frame is always fed. The others are drawn for every sequence and frame, with the
    probability that `recipe.sampling` gives for inputs and forecast.
    """
    settings, data = recipe.train, recipe.data
    inputs, forecast = recipe.sampling.curves(steps, settings.sampling_steps)
    probability = torch.full((data.input_frames + data.horizon - 1,), forecast.at(step, steps))
    probability[: data.input_frames] = inputs.at(step, steps)
    shape = settings.batch_size, len(probability)
    fed = torch.rand(shape, generator=generator(settings.seed, step)) < probability
    fed[:, 0] = True
    return fed

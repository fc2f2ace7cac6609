"""What a step sees: which sequences, and which of their frames are fed as they are.

Both are functions of the recipe's seeds and the number of the step alone: generators that
belong to the run, at a place that the step tells. So a run that is resumed, on however many
processes, goes on where it was, and each process knows what the others see.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Sampler

from zoo.train.recipe import Recipe

__all__ = ["Order", "Share", "ShareSampler", "fed_frames", "generator"]


@dataclass(frozen=True)
class Order:
    """The order in which a data set of so many sequences is seen, in batches of all processes.

    Each epoch sees every sequence once; the last batch of an epoch is smaller where they do
    not come out even. With `shuffle` every epoch has an order of its own.
    """

    length: int
    batch_size: int
    seed: int = 0
    shuffle: bool = True

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        return -(-self.length // self.batch_size)

    def batch(self, step: int) -> list[int]:
        """The sequences of a step."""
        epoch, number = divmod(step, self.steps_per_epoch)
        here = range(self.length)[number * self.batch_size : (number + 1) * self.batch_size]
        if not self.shuffle:
            return list(here)
        order = _permutation(self.length, self.seed, epoch)
        return order[here.start : here.stop].tolist()


@functools.lru_cache(maxsize=2)
def _permutation(length: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(length, generator=generator(seed, epoch))


def generator(seed: int, number: int) -> torch.Generator:
    """A generator for each pair of numbers. Of its seed torch reads the lower 32 bits alone."""
    return torch.Generator().manual_seed((seed * 0x9E3779B1 + number) % 2**32)


@dataclass(frozen=True)
class Share:
    """One process's share of a batch: its rows, and the weight of each in the mean loss.

    Where the processes do not divide the batch, some have a row more, with a weight of 0, so
    that all run batches of one shape.
    """

    rows: list[int]
    weights: Tensor  # (rows,)

    @classmethod
    def of(cls, batch: int, process: int, processes: int) -> Share:
        """That of one of several processes, of a batch of so many rows."""
        size = -(-batch // processes)
        rows = range(batch)[process * size : (process + 1) * size]
        idle = size - len(rows)
        weights = [1 / batch] * len(rows) + [0.0] * idle
        return cls([*rows, *[0] * idle], torch.tensor(weights))


class ShareSampler(Sampler[list[int]]):
    """For a DataLoader: the sequences of one process's share of the steps from `first` on."""

    def __init__(
        self, order: Order, first: int, steps: int, process: int = 0, processes: int = 1
    ) -> None:
        self.order, self.first, self.steps = order, first, steps
        self.process, self.processes = process, processes

    def __len__(self) -> int:
        """Number of batches."""
        return self.steps - self.first

    def __iter__(self) -> Iterator[list[int]]:
        """The batches, each a list of the numbers of sequences."""
        for step in range(self.first, self.steps):
            batch = self.order.batch(step)
            share = Share.of(len(batch), self.process, self.processes)
            yield [batch[row] for row in share.rows]


def fed_frames(recipe: Recipe, step: int, steps: int) -> Tensor:
    """Which true frames to feed at a step of `steps`: (batch_size, T − 1) of bool.

    Each frame but the first is fed with the probability that `recipe.sampling` gives its half,
    drawn for every sequence and frame.
    """
    settings, data = recipe.train, recipe.data
    inputs, forecast = recipe.sampling.curves(steps, settings.sampling_steps)
    probability = torch.full((data.input_frames + data.horizon - 1,), forecast.at(step, steps))
    probability[: data.input_frames] = inputs.at(step, steps)
    drawn = torch.rand(
        settings.batch_size, len(probability), generator=generator(settings.seed, step)
    )
    fed = drawn < probability
    fed[:, 0] = True
    return fed

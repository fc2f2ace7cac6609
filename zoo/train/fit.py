"""Find into how many parts a batch must be split to fit into memory."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils.memory import should_reduce_batch_size

from zoo.errors import ConfigError
from zoo.train.objective import Objective

__all__ = ["find_parts"]


def find_parts(
    objective: Objective, sequence: torch.Tensor, rows: int, parts: int, accelerator: Accelerator
) -> int:
    """Return the smallest number of parts that fits into memory on every process.

    Args:
        objective: the training objective, without data-parallel wrapper.
        sequence: a training sequence (T, C, H, W).
        rows: the rows of the batch on one process.
        parts: the number of parts to start with; it is doubled until the batch fits.
        accelerator: Defines the device and the precision.

    Raises:
        ConfigError: if not even one sequence fits.
    """
    sequences = torch.stack([sequence] * rows)
    steps = len(sequence) - 1
    fed = torch.ones(rows, steps, dtype=torch.bool)
    config, size = objective.model.config, sequence.shape[-2:]
    known = torch.zeros(rows, steps, config.known_channels - config.noise, *size)
    noise = torch.zeros(rows, objective.members, steps, config.noise, *size)
    batch = sequences, fed, known, noise
    # Reserve what the optimizer adds in its first step: Adam's two moments.
    moments: list[Any] = [torch.empty_like(weight) for weight in [*objective.parameters()] * 2]
    while not _fits(objective, [tensor.chunk(parts) for tensor in batch], accelerator):
        if parts >= rows:
            raise ConfigError(
                "a batch of one sequence does not fit into memory; set memory.checkpoint_every "
                "or make the model smaller"
            )
        parts = min(2 * parts, rows)
    del moments
    every = accelerator.gather(torch.tensor([parts], device=accelerator.device))
    return int(every.max())


def _fits(
    objective: Objective,
    chunks: list[tuple[torch.Tensor, ...]],
    accelerator: Accelerator,
) -> bool:
    try:
        for part in zip(*chunks, strict=True):
            frames, feeding, inputs, drawn = (tensor.to(accelerator.device) for tensor in part)
            with accelerator.autocast():
                loss = objective(frames, feeding, known=inputs, noise=drawn).sum()
            loss.backward()
    except RuntimeError as error:
        if not should_reduce_batch_size(error):
            raise
        return False
    finally:
        objective.zero_grad()
    return True

"""How good a model is on a data set, beside the forecast that nothing moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Subset

from zoo.data import open_dataset
from zoo.data.mmnist import TEST_SHA256
from zoo.errors import ZooError
from zoo.forecast import Forecaster
from zoo.metrics import FrameMetrics, persistence
from zoo.progress import progress_bar

__all__ = ["evaluate"]

SEED, SEQUENCES = 0, 10_000  # of the fixed test set


def evaluate(
    model: Forecaster,
    *,
    dataset: str | None = None,
    sequences: int | None = None,
    input_frames: int | None = None,
    horizon: int | None = None,
    batch_size: int = 32,
    root: Path | None = None,
) -> dict[str, Any]:
    """Measure a model on the fixed test set of a data set, on the device it is on.

    Args:
        model: the model.
        dataset: a data set's name; by default the one the model was trained on.
        sequences: only the first so many of the test set, for a quick look.
        input_frames, horizon: by default those of the training.
        batch_size: sequences at a time; it does not change the figures.
        root: the folder of the data sets.

    Returns what --json prints: under "forecast" the means over the forecast frames, under
    "all-steps" those over all T − 1 one-step predictions, the warm-up included (the habit of
    the MS-LSTM paper's tables), under "per_frame" every one of these; each for "model" and
    "persistence". Metrics are those of :class:`zoo.metrics.FrameMetrics`.

    Raises ZooError where the data are absent or do not fit the model.
    """
    data = model.config.data
    name = dataset or data.name
    if name is None:
        raise ZooError("the model names no data set; say which to evaluate on: --data mmnist")
    given, horizon = input_frames or data.input_frames or 10, horizon or data.horizon or 10
    test: Any = open_dataset(
        name, "test", root=root, frames=given + horizon, sequences=SEQUENCES, seed=SEED
    )
    count = min(sequences or SEQUENCES, SEQUENCES)
    # The published checksum is that of 20 frames a sequence.
    known = count == SEQUENCES and given + horizon == 20
    if known and test.checksum() != TEST_SHA256:
        raise ZooError(
            f"the test set made from {test.root} has not the checksum {TEST_SHA256[:12]}…; "
            "fetch the files of MNIST again"
        )
    device = next(model.parameters()).device
    metrics = {"model": FrameMetrics(), "persistence": FrameMetrics()}
    model.eval()
    with torch.no_grad(), progress_bar("evaluating", count) as bar:
        for number, batch in enumerate(DataLoader(Subset(test, range(count)), batch_size), 1):
            frames = batch.to(device)
            past, truth = frames[:, :given], frames[:, 1:]
            metrics["model"].update(model(past, horizon), truth)
            metrics["persistence"].update(persistence(past, horizon), truth)
            bar(min(number * batch_size, count), "")
    per_frame = {who: metric.compute()["per_frame"] for who, metric in metrics.items()}
    return {
        "data": {
            "name": name,
            "split": "test",
            "sequences": count,
            "sha256": TEST_SHA256 if known else None,
            "input_frames": given,
            "horizon": horizon,
        },
        "forecast": {who: _means(frames, horizon) for who, frames in per_frame.items()},
        "all-steps": {who: _means(frames, None) for who, frames in per_frame.items()},
        "per_frame": per_frame,
    }


def _means(per_frame: dict[str, list[float]], last: int | None) -> dict[str, float]:
    """The mean of every metric over the last frames, or all."""
    chosen = {name: values[-last:] if last else values for name, values in per_frame.items()}
    return {name: sum(values) / len(values) for name, values in chosen.items()}

"""Compare networks trained on KTH at 64 × 64 and at 128 × 128 pixels, and print a table.

    zoo train docs/sizes-kth.toml -o runs/size-64
    zoo train docs/sizes-kth.toml -o runs/size-128 --set model.patch=8 \\
        --set 'data.options={"folder": "kth-128-valid", "train_stride": 2}'
    python docs/compare_sizes.py runs/size-64 runs/size-128

Forecasts are compared on the validation persons at both sizes: those of one network are resized to
the size of the other, by bilinear interpolation or the mean of 2 × 2 pixels.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

import zoo
from zoo.baselines import persistence
from zoo.data import open_dataset

SIZES = (64, 128)
HORIZON = 10


@torch.no_grad()
def main(runs: list[Path]) -> None:
    """Print the mean squared error of ten forecast frames, per pixel and times 1,000."""
    models = [zoo.load(f"local-dir:{run}") for run in runs]
    batches = [
        DataLoader(open_dataset("kth", "valid", frames=20, folder=f"kth-{size}-valid"), 8)
        for size in SIZES
    ]
    sums, count = torch.zeros(3, len(SIZES), dtype=torch.float64), 0
    for frames in zip(*batches, strict=True):
        past = [each[:, :-HORIZON] for each in frames]
        forecasts = [model(x, HORIZON)[:, -HORIZON:] for model, x in zip(models, past, strict=True)]
        for column, (size, truth) in enumerate(zip(SIZES, frames, strict=True)):
            repeated = persistence(past[column], HORIZON)[:, -HORIZON:]
            for row, forecast in enumerate((repeated, *forecasts)):
                error = _resize(forecast, size) - truth[:, -HORIZON:]
                sums[row, column] += error.double().square().mean() * len(truth)
        count += len(frames[0])
    print("| forecast by | measured at 64 × 64 | measured at 128 × 128 |\n|---|---|---|")
    for name, errors in zip(("persistence", "64 × 64", "128 × 128"), sums / count, strict=True):
        print(f"| {name} | " + " | ".join(f"{1000 * error:.2f}" for error in errors) + " |")


def _resize(frames: Tensor, size: int) -> Tensor:
    """Resize frames, (B, T, C, H, W)."""
    flat = frames.flatten(0, 1)  # (B·T, C, H, W)
    if size < flat.shape[-1]:
        flat = F.avg_pool2d(flat, flat.shape[-1] // size)
    elif size > flat.shape[-1]:
        flat = F.interpolate(flat, (size, size), mode="bilinear")
    return flat.unflatten(0, frames.shape[:2])


if __name__ == "__main__":
    main([Path(run) for run in sys.argv[1:3]])

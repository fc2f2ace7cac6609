"""Train every head at one small budget and print the tables of docs/heads.md.

    python docs/compare_heads.py kth runs/heads
    python docs/compare_heads.py mmnist runs/heads

Needs the data sets in ZOO_DATA: KTH prepared as ``kth-64-valid`` (docs/heads-kth.toml says how), or
the files of MNIST. Runs that are finished are not repeated. Figures are those of validation data:
persons 15 and 16 of KTH, and for Moving MNIST sequences with another seed than the training's.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

import zoo
from zoo.baselines import persistence
from zoo.data import open_dataset
from zoo.metrics import FrameMetrics
from zoo.registry import heads
from zoo.train.engine import train

RECIPE = """
[model]
name = "mslstm"
hidden = 16
patch = 4
head = "{head}"

[data]
name = "{data}"
options = {options}

[train]
steps = 200
batch_size = 8
lr = 3e-3
schedule = "cosine"
warmup_steps = 50
clip_norm = 100
sampling_steps = 50
channels_last = true
"""

#: Options of the training part, and how the validation part is opened.
DATA = {
    "kth": ('{ folder = "kth-64-valid", train_stride = 2 }', "valid", {"folder": "kth-64-valid"}),
    "mmnist": ("{}", "train", {"seed": 1, "sequences": 256}),
}


def main(data: str, folder: Path) -> None:
    """Train and measure every head on a data set, and print a Markdown table."""
    options, split, chosen = DATA[data]
    dataset = open_dataset(data, split, frames=20, **chosen)
    batches = list(DataLoader(dataset, 32))
    rows = {"persistence": _measure(batches, lambda x: persistence(x, 10))}
    for head in heads():
        run = folder / f"{data}-{head}"
        folder.mkdir(parents=True, exist_ok=True)
        recipe = folder / f"{data}-{head}.toml"
        recipe.write_text(RECIPE.format(head=head, data=data, options=options))
        train(recipe, run, resume=run.exists())
        model = zoo.load(f"local-dir:{run}")
        rows[head] = _measure(batches, lambda x, model=model: model(x, 10))
        (folder / f"{data}.json").write_text(json.dumps(rows, indent=2) + "\n")
    print("| head | MSE | MSE, 10th frame | SSIM | sharpness, 10th frame |\n|---|---|---|---|---|")
    for name, row in rows.items():
        print(
            f"| {name} | {row['mse']:.2f} | {row['mse 10']:.2f} | {row['ssim']:.3f} "
            f"| {row['sharpness 10']:.2f} |"
        )


@torch.no_grad()
def _measure(batches: list[Tensor], forecast) -> dict[str, float]:
    """Scores of ten forecast frames; sharpness is the mean gradient as a share of the truth's."""
    metrics, forecasts, truths = FrameMetrics(), 0.0, 0.0
    for frames in batches:
        frames_ahead = forecast(frames[:, :10])[:, -10:].clamp(0, 1)
        metrics.update(frames_ahead, frames[:, 10:])
        forecasts += float(_gradient(frames_ahead[:, -1]))
        truths += float(_gradient(frames[:, -1]))
    scores = metrics.compute()
    return {
        "mse": scores["mse"],
        "mse 10": scores["per_frame"]["mse"][-1],
        "ssim": scores["ssim"],
        "sharpness 10": forecasts / truths,
    }


def _gradient(frames: Tensor) -> Tensor:
    """Sum of absolute differences of neighboring pixels of (B, C, H, W)."""
    return frames.diff(dim=-1).abs().sum() + frames.diff(dim=-2).abs().sum()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

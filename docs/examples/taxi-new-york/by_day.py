"""Print the errors of the taxi forecasts for each day of the test week, in pick-ups.

    python docs/examples/taxi-new-york/by_day.py mslstm-taxinyc

Next to the model are persistence, the same time last week, and a rule: last week's pick-ups times
the ratio of all pick-ups now to those of a week before.
"""

import sys

import numpy as np
import torch

import zoo
from zoo.baselines import earlier_frames
from zoo.data.dataset import times_of
from zoo.evaluate import forecast_all, open_data
from zoo.units import to_physical

WEEK = "seasonal 7d"

model = zoo.load(sys.argv[1])
test = open_data(model)
indices = range(test.sequences)
frames = torch.stack([test.dataset[i] for i in indices])  # (B, T, C, H, W)
times = times_of(test.dataset, indices)
assert times is not None
earlier = earlier_frames(test.dataset, indices, [WEEK], test.horizon)
forecasts = {
    name: to_physical(made[0, :, -test.horizon :], test.data)
    for name, made in forecast_all(
        {"network": model},
        ["persistence", WEEK],
        frames,
        test.input_frames,
        test.data,
        times,
        earlier=earlier,
    ).items()
}
now = test.input_frames - 1  # the last frame that the model reads
last = to_physical(frames[:, now, 0], test.data)  # (B, H, W)
week_ago = to_physical(earlier[WEEK][:, now, 0], test.data)
ratio = (last.sum((1, 2)) + 10) / (week_ago.sum((1, 2)) + 10)  # 10: for nights without taxis
forecasts["ratio"] = forecasts[WEEK] * ratio[:, None, None, None, None]

truth = to_physical(frames[:, -test.horizon :, :1], test.data)
days = times[:, test.input_frames].astype("datetime64[D]")  # of the first forecast frame
print("| day |", " | ".join(f"RMSE {name} | MAE {name}" for name in forecasts), "|")
for day in (*np.unique(days), None):
    chosen = torch.from_numpy(np.ones(len(days), bool) if day is None else days == day)
    cells = []
    for forecast in forecasts.values():
        error = (forecast - truth)[chosen]
        cells += [f"{error.square().mean().sqrt():.1f}", f"{error.abs().mean():.2f}"]
    print("|", "all" if day is None else day, "|", " | ".join(cells), "|")

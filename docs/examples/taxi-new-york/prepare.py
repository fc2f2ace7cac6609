"""Add what is known in advance to the taxi pick-ups of New York: those of a week before.

    python docs/examples/taxi-new-york/prepare.py data/traffic

reads taxi_nyc_2015-01.npz in that folder and writes taxi_nyc_weekly.npz next to it. Frames begin on
8 January at 0:30 and have three channels: the pick-ups, those a week before, and how these changed
within the half hour. The last two are inputs only; they are enlarged, so that they have about the
range of the first.
"""

import sys
from pathlib import Path

import numpy as np

WEEK = 7 * 48  # half hours

source = Path(sys.argv[1])
target = Path(sys.argv[-1])  # the same folder unless a second one is given
now = np.load(source / "taxi_nyc_2015-01.npz")["pickups"]  # (T, H, W), from 1 January on
top = now[: 17 * 48].max()  # of the training part
week_ago, before = now[1:-WEEK], now[: -WEEK - 1]
level = np.minimum(4 * week_ago, top)
change = np.clip(top / 2 + 8 * (week_ago - before), 0, top)
frames = np.stack([now[WEEK + 1 :], level, change], axis=1)  # (T, 3, H, W)
np.savez_compressed(target / "taxi_nyc_weekly.npz", pickups=frames)

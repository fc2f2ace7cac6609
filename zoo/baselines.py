"""Forecasts without a network: what a model has to beat.

A baseline is a function of scaled frames (B, T, C, H, W), a horizon and what the numbers mean,
and gives what a model gives, (B, T − 1 + horizon, C, H, W). Missing values may come in as NaN.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from zoo.config import Data
from zoo.errors import ZooError
from zoo.metrics import persistence

__all__ = ["BASELINES", "check_baseline", "optical_flow"]

Baseline = Callable[[Tensor, int, Data], Tensor]


def optical_flow(frames: Tensor, horizon: int, data: Data) -> Tensor:
    """The last frame carried on along the motion of those before it, by pysteps.

    The motion is Lucas and Kanade's, the extrapolation semi-Lagrangian (Pulkkinen et al. 2019),
    on the scaled values, which of a rain rate are its reflectivity. Where nothing is known of
    what comes in from outside, the last frame stays. The first frame has no motion before it
    and stays as it is.

    Raises ZooError where pysteps is not installed.
    """
    check_baseline("optical flow")
    from pysteps import extrapolation, motion

    lucas_kanade, carry = motion.get_method("LK"), extrapolation.get_method("semilagrangian")
    stay = persistence(frames, horizon)
    filled = persistence(frames, 1)  # the frames themselves, without anything missing
    made = stay.clone()
    series = rearrange(filled, "b t c h w -> b c t h w").cpu().numpy().astype(np.float64)
    for b, c in np.ndindex(series.shape[:2]):
        past = series[b, c]
        for t in range(1, len(past)):
            steps = horizon if t == len(past) - 1 else 1
            field = past[max(0, t - 2) : t + 1]  # the two steps before it, or the one there is
            with contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
                velocity = lucas_kanade(field, verbose=False) if np.ptp(field) > 0 else None
                if velocity is None:
                    continue
                ahead = carry(past[t], velocity, steps)  # (steps, H, W), NaN from outside
            known = torch.from_numpy(ahead).to(made)
            place = made[b, t : t + steps, c]
            made[b, t : t + steps, c] = known.where(~known.isnan(), place)
    return made


BASELINES: dict[str, Baseline] = {
    "persistence": lambda frames, horizon, _: persistence(frames, horizon),
    "optical flow": optical_flow,
}


def check_baseline(name: str) -> None:
    """Raise ZooError for an unknown baseline, or one whose library is not installed."""
    if name not in BASELINES:
        raise ZooError(f"there is no baseline {name!r}; there are {', '.join(BASELINES)}")
    if name == "optical flow":
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # it greets on the output stream
                import cv2  # noqa: F401, of which pysteps has its Lucas and Kanade
                import pysteps  # noqa: F401
        except ImportError:
            raise ZooError(
                "optical flow is computed by pysteps with OpenCV, which are not both installed: "
                "pip install 'spatiotemporal-zoo[flow]'"
            ) from None

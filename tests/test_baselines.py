"""Baselines: optical flow and STEPS, on drawn and on real rain."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import zoo
from zoo.baselines import optical_flow, persistence, steps
from zoo.config import Data
from zoo.errors import DataError
from zoo.evaluate import evaluate

REAL = Path(os.environ.get("ZOO_DATA", "data"))


RADAR = Data(unit="mm/h", reflectivity={}, grid_step=2000, time_step=300, missing=True)


@pytest.fixture(scope="module")
def showers() -> Tensor:
    """Two sequences of 7 frames of rain that moves and changes, (2, 7, 1, 64, 64), some missing."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    centers = rng.uniform(0, 64, (2, 40, 2))
    frames = np.zeros((2, 7, 1, 64, 64), np.float32)
    for b, t in np.ndindex(2, 7):
        for cy, cx in centers[b]:
            distance = (y - cy - t) ** 2 + (x - cx - 2 * t) ** 2
            frames[b, t, 0] += rng.uniform(0.1, 0.4) * np.exp(-distance / 30)
    frames[1, :, :, :8] = np.nan
    return torch.from_numpy(frames.clip(0, 1))


@pytest.fixture
def pysteps() -> None:
    for library in ("pysteps", "cv2"):
        pytest.importorskip(library, reason="pip install 'spatiotemporal-zoo[flow]'")


@pytest.mark.slow
@pytest.mark.usefixtures("pysteps")
def test_optical_flow_beats_persistence_on_a_moving_shower() -> None:
    y, x = np.mgrid[:64, :64]
    moving = [np.exp(-((y - 32) ** 2 + (x - 20 - 3 * t) ** 2) / 60) for t in range(7)]
    frames = torch.from_numpy(np.stack(moving)).float()[None, :, None]
    forecasts = optical_flow(frames[:, :4], 3, Data()), persistence(frames[:, :4], 3)
    assert forecasts[0].shape == forecasts[1].shape
    error = [float((f - frames[:, 1:]).abs()[:, -3:].sum()) for f in forecasts]
    assert error[0] < 0.3 * error[1]


@pytest.mark.slow
@pytest.mark.usefixtures("pysteps")
def test_members_of_steps_differ_and_depend_on_their_number_alone(showers: Tensor) -> None:
    np.random.seed(3)
    state = np.random.get_state()[1]
    members = steps(showers[:, :4], 3, RADAR, members=4, numbers=(5, 6))
    assert members.shape == (4, 2, 6, 1, 64, 64)
    assert members.isfinite().all()
    assert members.min() >= 0
    assert members[:, :, -3:].std(dim=0).amax(dim=(1, 2, 3, 4)).min() > 0.01
    assert torch.equal(members[0, :, :3], members[3, :, :3])  # the warm-up has no noise
    alone = steps(showers[1:, :4], 3, RADAR, members=4, numbers=(6,))
    assert torch.equal(alone[:, 0], members[:, 1])
    assert np.array_equal(np.random.get_state()[1], state)


@pytest.mark.slow
@pytest.mark.usefixtures("pysteps")
def test_steps_repeats_optical_flow_where_it_is_dry(showers: Tensor) -> None:
    frames = 0.2 * showers  # at most 4 dBZ
    members = steps(frames[:, :4], 2, RADAR, members=2, numbers=(0, 1))
    assert torch.equal(members[1], optical_flow(frames[:, :4], 2, RADAR))


@pytest.mark.parametrize(
    ("frames", "data"),
    [
        (torch.rand(1, 4, 1, 32, 32), Data()),
        (torch.rand(1, 4, 1, 32, 32), RADAR.model_copy(update={"grid_step": None})),
        (torch.rand(1, 2, 1, 32, 32), RADAR),
        (torch.rand(1, 4, 2, 32, 32), RADAR),
    ],
)
@pytest.mark.usefixtures("pysteps")
def test_steps_needs_three_frames_of_radar(frames: Tensor, data: Data) -> None:
    with pytest.raises(DataError):
        steps(frames, 2, data, members=2, numbers=(0,))


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not (REAL / "radar/knmi").is_dir(), reason="ZOO_DATA has no radar/knmi")
@pytest.mark.usefixtures("pysteps")
def test_steps_has_a_better_crps_than_optical_flow_on_radar() -> None:
    data = {"name": "knmi", "input_frames": 4, "horizon": 4, "unit": "mm/h", "reflectivity": {}}
    data |= {"grid_step": 10000, "time_step": 300, "missing": True}
    model = zoo.create("convlstm", hidden=2, layers=2, patch=4, data=data)
    options = {"crop": (260, 200, 320, 320), "pool": 10, "test_share": 0.3}
    report = evaluate(
        model, root=REAL, options=options, baselines=("optical flow", "STEPS"), sequences=8
    )
    crps = {name: scores["crps"] for name, scores in report["forecast"].items()}
    assert crps["STEPS"] < crps["optical flow"]
    assert report["ensemble"]["STEPS"]["members"] == 10

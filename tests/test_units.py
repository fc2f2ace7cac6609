"""Physical units: rain and reflectivity, spellings, time steps, labelled frames."""

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import zoo
from zoo.cli import zoo as command
from zoo.config import Data
from zoo.errors import ZooError
from zoo.labelled import read_labelled
from zoo.units import check_data, is_same_unit, seconds, to_physical, to_unit_interval

RAIN: dict[str, Any] = {
    "name": "radar",
    "variable": "rain_rate",
    "unit": "mm/h",
    "reflectivity": {},
    "missing": True,
    "time_step": 300.0,
    "grid_step": 1000.0,
    "horizon": 3,
}


@pytest.fixture(scope="module")
def model() -> zoo.Forecaster:
    torch.manual_seed(0)
    return zoo.create("convlstm", hidden=4, layers=2, data=RAIN)


@given(rate=st.floats(0.01, 300), a=st.floats(50, 500), b=st.floats(1.1, 2))
def test_rain_to_the_model_and_back(rate: float, a: float, b: float) -> None:
    data = Data.parse({**RAIN, "reflectivity": {"a": a, "b": b, "low": -60, "high": 90}}, source="")
    x = to_unit_interval(torch.tensor(rate, dtype=torch.float64), data)
    assert float(x) == pytest.approx((10 * np.log10(a * rate**b) + 60) / 150)
    assert float(to_physical(x, data)) == pytest.approx(rate)


def test_no_rain_stays_no_rain_and_nan_stays_nan() -> None:
    data = Data.parse(RAIN, source="")
    rain = torch.tensor([0.0, 1e-6, 1.0, 500.0, torch.nan])
    back = to_physical(to_unit_interval(rain, data), data)
    assert back[:2].tolist() == [0, 0]
    assert float(back[2]) == pytest.approx(1, rel=1e-5)
    assert float(back[3]) == pytest.approx(data.limits[1], rel=1e-5)
    assert back[4].isnan()
    # (dBZ + 10) / 70 of 10·log₁₀(256·R^1.42), as published
    assert float(to_unit_interval(torch.tensor(1.0), data)) == pytest.approx(
        (10 * np.log10(256) + 10) / 70
    )


@pytest.mark.parametrize(("unit", "beyond"), [("m", [-0.5, 1.5]), ("dBZ", [0, 1])])
def test_what_is_beyond_the_range_stays_so_but_of_reflectivity(
    unit: str, beyond: list[float]
) -> None:
    data = Data(unit=unit, low=0, high=40)
    assert to_unit_interval(torch.tensor([-20.0, 60.0]), data).tolist() == beyond


def test_a_record_of_rain_is_in_mm_per_hour() -> None:
    for wrong in ({"unit": "dBZ"}, {"high": 5.0}):
        with pytest.raises(ZooError, match="stands in place of low and high"):
            Data.parse({**RAIN, **wrong}, source="data")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("mm/h", "mm h-1", True),
        ("mm/h", "mm hr^-1", True),
        ("mm/h", "mm h**-1", True),
        ("mm/h", "MM/H", True),
        ("dBZ", "dbz", True),
        ("1", "", True),
        ("mm/h", "km/h", False),
        ("mm/h", "mm", False),
        ("K", "degC", False),
    ],
)
def test_spellings_of_units(one: str, other: str, same: bool) -> None:
    assert is_same_unit(one, other) == same


@pytest.mark.parametrize(
    "step",
    [
        *("5min", "5 min", "300s", "300", "5 minutes", "0.0833333333h", 300, 300.0),
        datetime.timedelta(minutes=5),
        np.timedelta64(5, "m"),
    ],
)
def test_time_steps(step: object) -> None:
    assert seconds(step) == pytest.approx(300)


@pytest.mark.parametrize("step", ["soon", "5 furlongs", "", "min", "1.2.3s"])
def test_what_is_no_time_step(step: str) -> None:
    with pytest.raises(ZooError, match="is no time step"):
        seconds(step)


def test_other_units_and_steps_are_refused(model: zoo.Forecaster) -> None:
    past = np.ones((4, 8, 8), np.float32)
    model.predict(past, unit="mm h-1", time_step="5min")
    with pytest.raises(ZooError, match="in 'km/h'; this model takes rain_rate in 'mm/h'"):
        model.predict(past, unit="km/h")
    with pytest.raises(ZooError, match=r"frames 30 min apart are asked for.*steps of 5 min"):
        model.predict(past, time_step="30min")
    check_data(Data(), unit="1", time_step=5)  # it leaves its time step open


def labelled(**changes: Any) -> xarray.DataArray:
    rain = np.random.default_rng(0).gamma(1, 2, size=(4, 8, 6)).astype(np.float32)
    start, step = np.datetime64("2020-01-01", "ns"), np.timedelta64(changes.pop("minutes", 5), "m")
    return xarray.DataArray(
        rain,
        {
            "time": start + np.arange(4) * step,
            "y": np.arange(8) * 1000.0,
            "x": np.arange(6) * 1000.0,
            "lat": (("y", "x"), np.ones((8, 6))),
        },
        ("time", "y", "x"),
        "rain",
        {"units": "mm h-1", "standard_name": "rainfall_rate"} | changes,
    )


def test_a_labelled_forecast(model: zoo.Forecaster) -> None:
    past = labelled()
    future = model.predict(past)
    assert future.dims == past.dims
    assert future.shape == (3, 8, 6)
    assert future.name == "rain"
    assert future.attrs == {**past.attrs, "long_name": "rain_rate"}
    minutes = np.arange(5, 20, 5) * np.timedelta64(1, "m")
    assert (future["time"].values == past["time"].values[-1] + minutes).all()
    assert (future["lead_time"].values == minutes).all()
    assert future["reference_time"].values == past["time"].values[-1]
    xarray.testing.assert_equal(future["lat"].drop_vars("reference_time"), past["lat"])
    assert np.allclose(future.values, model.predict(past.values))


@pytest.mark.parametrize("dims", [("y", "time", "x"), ("step", "y", "x"), ("time", "a", "y", "x")])
def test_labels_that_are_not_known(model: zoo.Forecaster, dims: tuple[str, ...]) -> None:
    with pytest.raises(ZooError, match="rename or transpose it"):
        model.predict(xarray.DataArray(np.ones((3,) * len(dims), np.float32), dims=dims))


def test_labelled_channels_and_batches(model: zoo.Forecaster) -> None:
    values = labelled().values
    both = xarray.DataArray(values[:, None, None], dims=("time", "sample", "channel", "y", "x"))
    future = model.predict(both, 2)
    assert future.dims == both.dims
    assert future.shape == (2, 1, 1, 8, 6)
    assert np.allclose(future.values[:, 0, 0], model.predict(values, 2))
    alone = xarray.DataArray(values[None], dims=("sample", "time", "y", "x"))
    assert model.predict(alone, 2).shape == (1, 2, 8, 6)


def test_labels_that_do_not_fit_the_model(model: zoo.Forecaster) -> None:
    with pytest.raises(ZooError, match="in 'dBZ'; this model takes"):
        model.predict(labelled(units="dBZ"))
    with pytest.raises(ZooError, match="30 min apart"):
        model.predict(labelled(minutes=30))
    uneven = labelled()[[0, 1, 3]]
    with pytest.raises(ZooError, match="evenly spaced"):
        model.predict(uneven)


def test_durations_are_times_as_well(model: zoo.Forecaster) -> None:
    past = labelled()
    past = past.assign_coords(time=past["time"] - past["time"][0])
    future = model.predict(past)
    assert (future["time"].values == np.arange(20, 35, 5) * np.timedelta64(1, "m")).all()
    with pytest.raises(ZooError, match="30 min apart"):
        model.predict(past.assign_coords(time=past["time"] * 6))


def test_dates_of_other_calendars(model: zoo.Forecaster) -> None:
    cftime = pytest.importorskip("cftime", reason="pip install cftime")
    start = cftime.DatetimeNoLeap(2020, 2, 28, 23, 45)
    past = labelled().assign_coords(
        time=[start + k * datetime.timedelta(minutes=5) for k in range(4)]
    )
    times = model.predict(past)["time"].values
    assert times[0] == cftime.DatetimeNoLeap(2020, 3, 1, 0, 5)


@pytest.mark.parametrize("times", [[0.0, 5.0, 10.0, 15.0], [0, 1, 2, 3], list("abcd")])
def test_numbers_and_words_are_no_times(model: zoo.Forecaster, times: list[Any]) -> None:
    with pytest.raises(ZooError, match=r"neither dates nor durations.*minutes since"):
        model.predict(labelled().assign_coords(time=times))
    model.predict(labelled().drop_vars("time"), time_step="5min")


def test_what_is_told_may_not_contradict_the_labels(model: zoo.Forecaster) -> None:
    with pytest.raises(ZooError, match="told to be in 'mm/h', and the DataArray says 'mm'"):
        model.predict(labelled(units="mm"), unit="mm/h")
    with pytest.raises(ZooError, match=r"told to be 5 min apart, and the times .* are 10 min"):
        model.predict(labelled(minutes=10), time_step="5min")
    past = labelled()
    assert model.predict(past, unit="mm/hr", time_step=300).attrs["units"] == "mm h-1"
    del past.attrs["units"]
    assert model.predict(past, unit="mm/hr").attrs["units"] == "mm/hr"


def test_a_grid_without_coordinates_gets_them_in_metres(model: zoo.Forecaster) -> None:
    bare = labelled().drop_vars(["y", "x", "lat"])
    future = model.predict(bare)
    assert future["y"].values.tolist() == [1000.0 * i for i in range(8)]
    assert future["x"].attrs["units"] == "m"
    kept = model.predict(bare.assign_coords(lat=(("y", "x"), np.ones((8, 6)))))
    assert not {"y", "x"} & {*kept.coords}  # it has coordinates of its own


def test_a_frame_that_is_missing_whole_is_refused_by_its_time(model: zoo.Forecaster) -> None:
    past = labelled()
    past[2] = np.nan
    with pytest.raises(ZooError, match=r"frame 2 \(2020-01-01T00:10:00\) is missing whole"):
        model.predict(past)
    with pytest.raises(ZooError, match="frame 2 is missing whole"):
        model.predict(past.values)


def test_a_store_without_names_of_dimensions(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    for version in (2, 3):
        file = tmp_path / f"{version}.zarr"
        zarr.open_group(file, mode="w", zarr_format=version).create_array(
            "rain", shape=(4, 8, 8), dtype="f4"
        )
        with pytest.raises(ZooError, match="the store names no dimensions"):
            read_labelled(file)


def test_missing_values(model: zoo.Forecaster) -> None:
    past = np.ones((4, 8, 8), np.float32)
    past[:, 0, 0] = np.nan  # never seen
    past[2, 5, 5] = np.nan
    future = model.predict(past, 2)
    assert np.isnan(future[:, 0, 0]).all()
    assert np.isnan(future).sum() == 2
    zeros = np.nan_to_num(past)
    kept = ~np.isnan(future)
    assert np.array_equal(future[kept], model.predict(zeros, 2)[kept])
    assert len([*model.stream(past)]) == 4
    with pytest.raises(ZooError, match="all values of a sequence are missing"):
        model.predict(past * np.nan)
    with pytest.raises(ZooError, match="infinite"):
        model.predict(past + np.inf)
    pictures = zoo.create("convlstm", hidden=4, layers=2)
    frames = np.ones((3, 8, 8), np.float32)
    frames[1, 0, :2] = np.nan
    with pytest.raises(ZooError, match="2 NaN or infinite values, the first in frame 1"):
        pictures.predict(frames, 1)


@pytest.mark.parametrize("ending", [".nc", ".zarr"])
def test_the_command_forecasts_a_labelled_file(tmp_path: Path, ending: str) -> None:
    pytest.importorskip("zarr" if ending == ".zarr" else "h5netcdf")
    zoo.save(zoo.create("convlstm", hidden=4, layers=2, data=RAIN), tmp_path / "model")
    labelled().to_dataset().to_netcdf(tmp_path / "past.nc", engine="h5netcdf")
    arguments = ["predict", f"local-dir:{tmp_path / 'model'}", str(tmp_path / "past.nc")]
    output = tmp_path / f"future{ending}"
    result = CliRunner().invoke(command, [*arguments, "-o", str(output), "--horizon", "2"])
    assert result.exit_code == 0, result.output
    future = read_labelled(output)
    assert future.shape == (2, 8, 6)
    assert future.attrs["units"] == "mm h-1"
    assert future["time"].values[0] == np.datetime64("2020-01-01T00:20")
    for more, told in (
        (["--time-step", "30min"], "30 min apart"),
        (["--unit", "dBZ"], "in 'dBZ'"),
        (["--variable", "snow"], "no variable 'snow'"),
    ):
        result = CliRunner().invoke(command, [*arguments, "-o", str(output), *more])
        assert (result.exit_code, told in result.output) == (2, True), result.output
    result = CliRunner().invoke(command, [*arguments, "-o", str(tmp_path / "a.npy")])
    assert result.exit_code == 2
    assert "gives one; write" in result.output

"""Physical units: rain and reflectivity, spellings, time steps, labeled frames."""

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray
from conftest import Cli
from hypothesis import given
from hypothesis import strategies as st

import zoo
from zoo.config import Data
from zoo.errors import ConfigError, DataError, ZooError
from zoo.labeled import read_labeled
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


@pytest.mark.parametrize("shape", [(2, 4, 4), (3, 2, 4, 4), (1, 3, 2, 4, 4)])
def test_standardized_values_round_trip_by_channel(shape: tuple[int, ...]) -> None:
    data = Data(unit="K", standardization={"mean": (280.0, 0.0), "std": (20.0, 4.0)})
    x = torch.full(shape, 300.0)
    scaled = to_unit_interval(x, data)
    assert scaled.select(-3, 0).unique().tolist() == [1]
    assert scaled.select(-3, 1).unique().tolist() == [75]
    assert torch.equal(to_physical(scaled, data), x)


def test_standardized_frames_and_forecasts_are_not_clipped() -> None:
    torch.manual_seed(0)
    kelvin = {"unit": "K", "standardization": {"mean": [280.0], "std": [20.0]}}
    model = zoo.create("convlstm", hidden=4, layers=2, data=kelvin).double()
    frames = 280 + 60 * torch.randn(1, 3, 1, 8, 8, dtype=torch.float64)
    forecast = model.predict(frames, 2)
    expected = model((frames - 280) / 20, 2)[:, -2:] * 20 + 280
    torch.testing.assert_close(forecast, expected)
    for parameter in model.network.head.parameters():
        parameter.data.neg_()
    assert ((forecast > 280).all(), (model.predict(frames, 2) < 280).all()) == (True, True)


@given(rate=st.floats(0.01, 300), a=st.floats(50, 500), b=st.floats(1.1, 2))
def test_rain_round_trip(rate: float, a: float, b: float) -> None:
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
def test_only_reflectivity_is_clipped_to_the_range(unit: str, beyond: list[float]) -> None:
    data = Data(unit=unit, low=0, high=40)
    assert to_unit_interval(torch.tensor([-20.0, 60.0]), data).tolist() == beyond


def test_reflectivity_of_rain_needs_mm_per_hour_without_a_range() -> None:
    for wrong in ({"unit": "dBZ"}, {"high": 5.0}):
        with pytest.raises(ZooError, match="reflectivity"):
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
def test_units_are_compared_in_any_spelling(one: str, other: str, same: bool) -> None:
    assert is_same_unit(one, other) == same


@pytest.mark.parametrize(
    "step",
    [
        *("5min", "5 min", "300s", "300", "5 minutes", "0.0833333333h", 300, 300.0),
        datetime.timedelta(minutes=5),
        np.timedelta64(5, "m"),
    ],
)
def test_time_steps_are_seconds(step: object) -> None:
    assert seconds(step) == pytest.approx(300)


@pytest.mark.parametrize("step", ["soon", "5 furlongs", "", "min", "1.2.3s"])
def test_invalid_time_steps_are_rejected(step: str) -> None:
    with pytest.raises(ConfigError, match=repr(step)):
        seconds(step)


def test_other_units_and_steps_are_rejected(model: zoo.Forecaster) -> None:
    past = np.ones((4, 8, 8), np.float32)
    model.predict(past, unit="mm h-1", time_step="5min")
    with pytest.raises(DataError, match=r"'km/h'.*rain_rate in 'mm/h'"):
        model.predict(past, unit="km/h")
    with pytest.raises(DataError, match=r"30 min.* 5 min"):
        model.predict(past, time_step="30min")
    check_data(Data(), unit="1", time_step=5)  # its time step is open


def labeled(**changes: Any) -> xarray.DataArray:
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


def test_a_labeled_forecast_continues_the_labels(model: zoo.Forecaster) -> None:
    past = labeled()
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
def test_unknown_dimensions_are_rejected(model: zoo.Forecaster, dims: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=f"'{dims[1]}'.*'time'"):
        model.predict(xarray.DataArray(np.ones((3,) * len(dims), np.float32), dims=dims))


def test_labeled_channels_and_batches_keep_their_order(model: zoo.Forecaster) -> None:
    values = labeled().values
    both = xarray.DataArray(values[:, None, None], dims=("time", "sample", "channel", "y", "x"))
    future = model.predict(both, 2)
    assert future.dims == both.dims
    assert future.shape == (2, 1, 1, 8, 6)
    assert np.allclose(future.values[:, 0, 0], model.predict(values, 2))
    alone = xarray.DataArray(values[None], dims=("sample", "time", "y", "x"))
    assert model.predict(alone, 2).shape == (1, 2, 8, 6)


def test_labels_of_another_unit_or_step_are_rejected(model: zoo.Forecaster) -> None:
    with pytest.raises(DataError, match=r"'dBZ'.*'mm/h'"):
        model.predict(labeled(units="dBZ"))
    with pytest.raises(DataError, match="30 min"):
        model.predict(labeled(minutes=30))
    uneven = labeled()[[0, 1, 3]]
    with pytest.raises(DataError, match="300 to 600 s"):
        model.predict(uneven)


def test_durations_are_accepted_as_times(model: zoo.Forecaster) -> None:
    past = labeled()
    past = past.assign_coords(time=past["time"] - past["time"][0])
    future = model.predict(past)
    assert (future["time"].values == np.arange(20, 35, 5) * np.timedelta64(1, "m")).all()
    with pytest.raises(DataError, match="30 min"):
        model.predict(past.assign_coords(time=past["time"] * 6))


def test_dates_of_other_calendars_continue(model: zoo.Forecaster) -> None:
    cftime = pytest.importorskip("cftime", reason="pip install cftime")
    start = cftime.DatetimeNoLeap(2020, 2, 28, 23, 45)
    past = labeled().assign_coords(
        time=[start + k * datetime.timedelta(minutes=5) for k in range(4)]
    )
    times = model.predict(past)["time"].values
    assert times[0] == cftime.DatetimeNoLeap(2020, 3, 1, 0, 5)


@pytest.mark.parametrize("times", [[0.0, 5.0, 10.0, 15.0], [0, 1, 2, 3], list("abcd")])
def test_numbers_and_words_are_rejected_as_times(model: zoo.Forecaster, times: list[Any]) -> None:
    with pytest.raises(DataError, match=r"'time'.*minutes since"):
        model.predict(labeled().assign_coords(time=times))
    model.predict(labeled().drop_vars("time"), time_step="5min")


def test_arguments_must_not_contradict_the_labels(model: zoo.Forecaster) -> None:
    with pytest.raises(DataError, match=r"'mm/h'.*'mm'"):
        model.predict(labeled(units="mm"), unit="mm/h")
    with pytest.raises(DataError, match=r"5 min.*10 min"):
        model.predict(labeled(minutes=10), time_step="5min")
    past = labeled()
    assert model.predict(past, unit="mm/hr", time_step=300).attrs["units"] == "mm h-1"
    del past.attrs["units"]
    assert model.predict(past, unit="mm/hr").attrs["units"] == "mm/hr"


def test_a_grid_without_coordinates_gets_them_in_metres(model: zoo.Forecaster) -> None:
    bare = labeled().drop_vars(["y", "x", "lat"])
    future = model.predict(bare)
    assert future["y"].values.tolist() == [1000.0 * i for i in range(8)]
    assert future["x"].attrs["units"] == "m"
    kept = model.predict(bare.assign_coords(lat=(("y", "x"), np.ones((8, 6)))))
    assert not {"y", "x"} & {*kept.coords}  # it has coordinates of its own


def test_a_frame_without_values_is_named_by_its_time(model: zoo.Forecaster) -> None:
    past = labeled()
    past[2] = np.nan
    with pytest.raises(DataError, match=r"frame 2 \(2020-01-01T00:10:00\)"):
        model.predict(past)
    with pytest.raises(DataError, match="frame 2 "):
        model.predict(past.values)


def test_a_store_without_named_dimensions_is_rejected(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    for version in (2, 3):
        file = tmp_path / f"{version}.zarr"
        zarr.open_group(file, mode="w", zarr_format=version).create_array(
            "rain", shape=(4, 8, 8), dtype="f4"
        )
        with pytest.raises(DataError, match=r"\.zarr.*option dims"):
            read_labeled(file)


def test_missing_values_stay_missing_and_infinity_is_rejected(model: zoo.Forecaster) -> None:
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
    with pytest.raises(DataError, match="sequence"):
        model.predict(past * np.nan)
    with pytest.raises(DataError, match="infinite"):
        model.predict(past + np.inf)
    pictures = zoo.create("convlstm", hidden=4, layers=2)
    frames = np.ones((3, 8, 8), np.float32)
    frames[1, 0, :2] = np.nan
    with pytest.raises(DataError, match=r" 2 NaN .* frame 1"):
        pictures.predict(frames, 1)


@pytest.mark.parametrize("ending", [".nc", ".zarr"])
def test_predict_writes_a_labeled_forecast_of_a_labeled_file(
    tmp_path: Path, ending: str, cli: Cli
) -> None:
    pytest.importorskip("zarr" if ending == ".zarr" else "h5netcdf")
    zoo.save(zoo.create("convlstm", hidden=4, layers=2, data=RAIN), tmp_path / "model")
    labeled().to_dataset().to_netcdf(tmp_path / "past.nc", engine="h5netcdf")
    arguments = ["predict", f"local-dir:{tmp_path / 'model'}", str(tmp_path / "past.nc")]
    output = tmp_path / f"future{ending}"
    cli.succeed(*arguments, "-o", output, "--horizon", "2")
    future = read_labeled(output)
    assert future.shape == (2, 8, 6)
    assert future.attrs["units"] == "mm h-1"
    assert future["time"].values[0] == np.datetime64("2020-01-01T00:20")
    for options, named in (
        (["--time-step", "30min"], "30 min"),
        (["--unit", "dBZ"], "'dBZ'"),
        (["--variable", "snow"], "'snow'"),
    ):
        assert named in cli.fail(*arguments, "-o", output, *options)
    assert ".nc" in cli.fail(*arguments, "-o", tmp_path / "a.npy")

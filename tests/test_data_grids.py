"""Grids in NetCDF and GRIB, one time a file, written here as weather services write them."""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
from conftest import Cli

import zoo
from zoo.data.arrays import Arrays
from zoo.data.radar import FMI, Grids
from zoo.errors import ConfigError, DataError
from zoo.units import to_physical

REAL = Path(os.environ.get("ZOO_DATA", "data")) / "radar"
skip_without_files = pytest.mark.skipif(not REAL.is_dir(), reason="ZOO_DATA has no radar/")

SIZE = (6, 8)


def real(test: Any) -> Any:
    """Mark a test of real files, and skip it without them."""
    return pytest.mark.data(skip_without_files(test))


def write_nc(folder: Path, minute: int, rain: float = 0.5, **changes: Any) -> Path:
    """Write an accumulation of 10 minutes in mm, packed, with a projection, as Rainfields does."""
    options: dict[str, Any] = {"units": "kg m-2", "step": 0.5, "longitude": 153.0} | changes
    end = np.datetime64("2020-10-31T00:00", "ns") + np.timedelta64(minute, "m")
    values = np.full(SIZE, rain)
    values[0, 0], values[0, 1] = np.nan, 0
    y, x = (np.arange(n) * options["step"] for n in SIZE)
    dataset = xarray.Dataset(
        {
            "precipitation": (("y", "x"), values, {"units": options["units"]}),
            "valid_time": ((), end, {"standard_name": "time"}),
            "start_time": ((), end - np.timedelta64(10, "m")),
            "proj": ((), np.int8(0), {"longitude_of_central_meridian": options["longitude"]}),
        },
        {"y": ("y", y[::-1], {"units": "km"}), "x": ("x", x, {"units": "km"})},
    )
    dataset["precipitation"].attrs["grid_mapping"] = "proj"
    packed = {"dtype": "int16", "scale_factor": 0.05, "add_offset": 0.0, "_FillValue": -1}
    path = folder / f"66_{minute:03}.nc"
    dataset.to_netcdf(path, engine="h5netcdf", encoding={"precipitation": packed})
    return path


@pytest.fixture
def hours(tmp_path: Path) -> Path:
    """Seven times, of which the fourth is absent."""
    folder = tmp_path / "rain"
    folder.mkdir()
    for minute in (60, 0, 10, 20, 40, 50):
        write_nc(folder, minute)
    return folder


def test_files_of_one_time_are_one_recording_with_gaps(hours: Path) -> None:
    dataset = Grids(hours, frames=2, test_share=0)
    data = dataset.data
    assert (data.variable, data.unit, data.missing) == ("rain_rate", "mm/h", True)
    assert (data.time_step, data.grid_step) == (600, 500)
    assert data.reflectivity is not None
    assert dataset.describe()["gaps in time"] == "1"
    assert len(dataset) == 2 + 2
    assert str(dataset.when(0)[0]) == "2020-10-31T00:00:00"  # type: ignore[index]
    rain = to_physical(dataset[0], data)[0, 0]
    assert rain.shape == SIZE
    assert rain[0, 0].isnan()
    assert rain[0, 1] == 0
    assert rain[3, 3] == pytest.approx(0.5 * 6, rel=1e-5)  # mm in 10 minutes to mm/h


def test_arrays_in_several_netcdf_files_lead_to_grids(hours: Path) -> None:
    with pytest.raises(DataError, match="grids"):
        Arrays(hours, frames=2)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"units": "K"}, "'K'"),
        ({"step": 1.0}, "1000.*500"),
        ({"longitude": 144.0}, "longitude_of_central_meridian=144"),
    ],
)
def test_an_odd_file_is_named(hours: Path, changes: dict[str, Any], named: str) -> None:
    path = write_nc(hours, 30, **changes)
    with pytest.raises(DataError, match=named) as caught:
        Grids(hours, frames=2)
    assert str(path) in str(caught.value)


def test_a_file_of_another_time_step_leaves_a_gap(hours: Path) -> None:
    write_nc(hours, 66)
    dataset = Grids(hours, frames=3, test_share=0)
    assert dataset.data.time_step == 600
    assert len(dataset) == 1 + 1


def test_damaged_netcdf_is_named(hours: Path) -> None:
    path = sorted(hours.iterdir())[2]
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DataError, match=path.name):
        Grids(hours, frames=2)


def test_netcdf_of_several_times_is_flipped_to_north_up(tmp_path: Path) -> None:
    times = np.datetime64("2020-01-01", "ns") + np.arange(4) * np.timedelta64(1, "h")
    values = np.arange(4 * 6 * 8, dtype=np.float32).reshape(4, 1, 6, 8)
    array = xarray.DataArray(
        values,
        {"time": times, "lat": np.arange(6.0), "lon": np.arange(8.0)},
        ("time", "height", "lat", "lon"),
        "t2m",
        {"units": "K", "standard_name": "air_temperature"},
    )
    array.to_dataset().to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    dataset = Grids(tmp_path, frames=4, test_share=0)
    assert (dataset.data.variable, dataset.data.unit) == ("air_temperature", "K")
    assert (dataset.data.low, dataset.data.high) == (0, 191)
    assert (dataset.data.time_step, dataset.data.grid_step) == (3600, None)
    np.testing.assert_allclose(dataset[0][:, 0] * 191, values[:, 0, ::-1], rtol=1e-6)


def test_transposed_netcdf_is_read_with_rows_first(tmp_path: Path) -> None:
    array = xarray.DataArray(
        np.arange(48.0).reshape(8, 6),
        {"x": np.arange(8.0), "y": np.arange(6.0)[::-1], "time": np.datetime64("2020-01-01", "ns")},
        ("x", "y"),
        "value",
    )
    array.to_dataset().to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    grid = Grids(tmp_path, frames=1, low=0, high=1, test_share=0)[0][0, 0]
    np.testing.assert_array_equal(grid, array.values.T)


def test_rain_with_bounds_of_the_time_is_a_rate(tmp_path: Path) -> None:
    times = np.datetime64("2020-01-01", "ns") + np.arange(2) * np.timedelta64(1, "h")
    bounds = np.stack([times - np.timedelta64(30, "m"), times + np.timedelta64(30, "m")], 1)
    dataset = xarray.Dataset(
        {
            "tp": (("time", "y", "x"), np.full((2, 4, 4), 3.0), {"units": "mm"}),
            "time_bnds": (("time", "bnds"), bounds),
        },
        {"time": ("time", times, {"bounds": "time_bnds"})},
    )
    units = {"time": {"units": "minutes since 2020-01-01"}}
    dataset.to_netcdf(tmp_path / "a.nc", engine="h5netcdf", encoding=units)
    opened = Grids(tmp_path, frames=1, test_share=0, low_dbz=-20)
    assert opened.data.unit == "mm/h"
    assert float(to_physical(opened[0], opened.data)[0, 0, 0, 0]) == pytest.approx(3, rel=1e-5)
    assert str(opened.when(0)[0]) == "2020-01-01T00:30:00"  # type: ignore[index]


def test_variable_is_chosen_by_name(tmp_path: Path) -> None:
    path = write_nc(tmp_path, 0)
    dataset = xarray.load_dataset(path, engine="h5netcdf", decode_cf=False)
    dataset["quality"] = dataset["precipitation"] * 2
    dataset.to_netcdf(path, engine="h5netcdf")
    with pytest.raises(ConfigError, match="precipitation, quality"):
        Grids(tmp_path, frames=1)
    assert Grids(tmp_path, frames=1, test_share=0, variable="precipitation").data.unit == "mm/h"
    with pytest.raises(ConfigError, match="'snow'"):
        Grids(tmp_path, frames=1, variable="snow")


def test_netcdf_without_a_time_is_an_error(tmp_path: Path) -> None:
    array = xarray.DataArray(np.zeros((4, 4)), dims=("y", "x"), name="rain")
    array.to_dataset().to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with pytest.raises(DataError, match=r"a\.nc.*time"):
        Grids(tmp_path, frames=1)


def test_reflectivity_is_read_as_rain_on_request(tmp_path: Path) -> None:
    pixels = np.array([[124, 255], [0, 44]], np.uint8)  # 30 dBZ, missing, −32 and −10 dBZ
    head = b"P5\n# obstime 201609281445\n# param X\n# metersperpixel_x 999.5\n2 2\n255\n"
    (tmp_path / "a.pgm").write_bytes(head + pixels.tobytes())
    dataset = FMI(tmp_path, frames=1, test_share=0, rain=True)
    assert (dataset.data.variable, dataset.data.unit) == ("rain_rate", "mm/h")
    assert dataset.data.grid_step == 999.5
    rain = dataset.series[0].read(0, 1)[0, 0]
    assert rain[0, 0] == pytest.approx((1000 / 256) ** (1 / 1.42), rel=1e-5)
    assert np.isnan(rain[0, 1])
    assert rain[1].tolist() == [0, 0]
    echo = FMI(tmp_path, frames=1, test_share=0)
    np.testing.assert_allclose(dataset[0], echo[0], rtol=1e-5)  # the same scale


# GRIB


def grib(minute: int = 0, rain: float = 2.0, **keys: Any) -> bytes:
    """A message of a rain rate in mm/h, as MRMS writes it: 0.5 more in every row to the south."""
    eccodes = pytest.importorskip("eccodes", reason="pip install eccodes")
    handle = eccodes.codes_grib_new_from_samples("regular_ll_sfc_grib2")
    settings = {
        **{"Ni": SIZE[1], "Nj": SIZE[0], "discipline": 209},
        **{"parameterCategory": 6, "parameterNumber": 1},
        **{"dataDate": 20190610, "dataTime": 0, "minute": minute, "bitsPerValue": 16},
    }
    for key, value in (settings | keys).items():
        eccodes.codes_set(handle, key, value)
    values = np.full(SIZE, rain) + 0.5 * np.arange(SIZE[0])[:, None]
    values[0, 0] = -3  # no coverage
    eccodes.codes_set_values(handle, values.ravel())
    content: bytes = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    return content


@pytest.fixture
def mrms(tmp_path: Path) -> Path:
    import gzip

    folder = tmp_path / "mrms"
    folder.mkdir()
    (folder / "b.grib2").write_bytes(grib(2))
    (folder / "a.grib2.gz").write_bytes(gzip.compress(grib(4)))
    (folder / "c.grib2").write_bytes(grib(0) + grib(6))
    return folder


def test_grib_files_are_one_recording(mrms: Path) -> None:
    dataset = Grids(mrms, frames=4, test_share=0)
    assert (dataset.data.variable, dataset.data.unit) == ("rain_rate", "mm/h")
    assert (dataset.data.time_step, dataset.data.grid_step) == (120, None)
    assert str(dataset.when(0)[0]) == "2019-06-10T00:00:00"  # type: ignore[index]
    assert str(dataset.when(0)[-1]) == "2019-06-10T00:06:00"  # type: ignore[index]
    rain = to_physical(dataset[0], dataset.data)
    assert rain.shape == (4, 1, *SIZE)
    assert rain[:, 0, 0, 0].isnan().all()
    np.testing.assert_allclose(rain[:, 0, :, 3], [2 + 0.5 * np.arange(6)] * 4, atol=0.01)


def test_grib_from_south_to_north_is_flipped(tmp_path: Path) -> None:
    keys = {"jScansPositively": 1, "discipline": 0, "parameterCategory": 0, "parameterNumber": 0}
    (tmp_path / "a.grib2").write_bytes(grib(rain=280.0, **keys))
    dataset = Grids(tmp_path, frames=1, low=0, high=1, test_share=0)
    assert (dataset.data.variable, dataset.data.unit) == ("t", "K")
    np.testing.assert_allclose(dataset[0][0, 0, :, 3], 282.5 - 0.5 * np.arange(6), atol=0.01)
    assert dataset[0][0, 0, -1, 0] == pytest.approx(-3, abs=0.01)  # only rain is missing below 0


def test_accumulation_in_grib_is_a_rate(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"discipline": 0, "parameterCategory": 1, "parameterNumber": 8}
    keys |= {"centre": "kwbc", "productDefinitionTemplateNumber": 8}
    keys |= {"typeOfStatisticalProcessing": 1, "stepUnits": "m", "stepRange": "0-15"}
    (tmp_path / "a.grib2").write_bytes(grib(**keys))
    dataset = Grids(tmp_path, frames=1, test_share=0)
    assert dataset.data.unit == "mm/h"
    assert str(dataset.when(0)[0]) == "2019-06-10T00:15:00"  # type: ignore[index]
    assert dataset.series[0].read(0, 1)[0, 0, 2, 3] == pytest.approx(4 * (2 + 1), rel=1e-3)


def test_missing_cells_of_grib_are_nan(tmp_path: Path) -> None:
    keys = {"discipline": 0, "parameterCategory": 0, "parameterNumber": 0}
    (tmp_path / "a.grib2").write_bytes(grib(bitmapPresent=1, missingValue=-3, **keys))
    dataset = Grids(tmp_path, frames=1, test_share=0, low=0, high=1)
    assert dataset[0][0, 0, 0, 0].isnan()
    assert dataset[0].isnan().sum() == 1


def test_grib_of_several_quantities_needs_a_variable(tmp_path: Path) -> None:
    other = {"discipline": 0, "parameterCategory": 0, "parameterNumber": 0}
    (tmp_path / "a.grib2").write_bytes(grib() + grib(**other))
    with pytest.raises(DataError, match="variable"):
        Grids(tmp_path, frames=1)
    assert Grids(tmp_path, frames=1, variable="t", test_share=0).data.unit == "K"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda content: content[:-20], "download it again"),
        (lambda content: content[:152] + b"\xff\xff" + content[154:], "a.grib2"),  # the packing
        (lambda content: b"nothing", "no composites"),
    ],
)
def test_damaged_grib_is_named(tmp_path: Path, change: Any, named: str) -> None:
    (tmp_path / "a.grib2").write_bytes(change(grib()))
    with pytest.raises(DataError, match=named) as caught:
        list(Grids(tmp_path, frames=1, test_share=0, low=0, high=1).scan())
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_damaged_one_of_many_grib_files_is_named(mrms: Path) -> None:
    (mrms / "d.grib2").write_bytes(grib(8)[:-20])
    with pytest.raises(DataError, match=r"d\.grib2"):
        Grids(mrms, frames=1)


def test_a_crash_of_the_decoder_is_an_error_of_one_line(
    mrms: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zoo.data import grib as module

    monkeypatch.setattr(module, "DECODER", "import os{path!r:.0}; os.abort()")
    with pytest.raises(DataError, match=r"a\.grib2\.gz.*status -6"):
        Grids(mrms, frames=1)


def test_grib_without_its_extra_names_it(mrms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "eccodes", None)
    with pytest.raises(ConfigError, match=r"spatiotemporal-zoo\[grib\]"):
        Grids(mrms, frames=1)


@pytest.mark.slow
def test_predict_reads_a_grib_file(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "past.grib2").write_bytes(b"".join(grib(minute) for minute in (0, 2, 4)))
    data = {"name": "knmi", "variable": "rain_rate", "unit": "mm/h", "missing": True}
    data |= {"reflectivity": {}, "input_frames": 3, "time_step": 120}
    zoo.save(zoo.create("convlstm", hidden=2, layers=2, data=data), tmp_path / "model")
    out = tmp_path / "future.nc"
    arguments = ("predict", f"local-dir:{tmp_path / 'model'}", tmp_path / "past.grib2", "-o", out)
    cli.succeed(*arguments, "--horizon", "2")
    with xarray.open_dataarray(out, engine="h5netcdf") as future:
        assert future.shape == (2, *SIZE)
        assert future["time"].values[0] == np.datetime64("2019-06-10T00:06")
    assert "newest 3 frames" in cli.fail(*arguments, "--input-frames", "4")


@pytest.mark.slow
@real
def test_real_netcdf_of_one_time_a_file(tmp_path: Path) -> None:
    for place, step, start, count in (
        ("brisbane", 600, "2020-10-31T00:00", 144),
        ("melbourne", 360, "2018-06-16T10:00", 61),
    ):
        dataset = Grids(REAL / "bom" / place, frames=2, test_share=0)
        assert len(dataset) == count - 1
        assert (dataset.data.time_step, dataset.data.grid_step) == (step, 500)
        assert dataset.when(0)[0] == np.datetime64(start)  # type: ignore[index]
        (path, *_) = sorted((REAL / "bom" / place).iterdir())
        with xarray.open_dataset(path, engine="h5netcdf") as file:
            expected = file["precipitation"].values * (3600 / step)
        np.testing.assert_allclose(dataset.series[0].read(0, 1)[0, 0], expected, rtol=1e-6)
        (tmp_path / path.name).symlink_to(path)
    with pytest.raises(DataError, match="another grid"):
        Grids(tmp_path, frames=1)


@pytest.mark.slow
@real
def test_real_grib_of_the_us_radar() -> None:
    dataset = Grids(REAL / "mrms", frames=2, test_share=0, pool=10, every=5)
    assert (dataset.data.unit, dataset.data.time_step) == ("mm/h", 600)
    assert len(dataset.series[0].times) == 3
    assert dataset[0].shape == (2, 1, 350, 700)
    assert 0.3 < float(dataset[0].isnan().float().mean()) < 0.4
    assert 0.7 < float(dataset[0].nan_to_num().max()) <= 1

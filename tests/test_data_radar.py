"""Radar: composites of five services, written here byte by byte, and real ones."""

import gzip
import os
import pickle
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray
from conftest import Cli

import zoo
from zoo.data.meteonet import read_dates
from zoo.data.npz import LazyArray
from zoo.data.radar import DWD, FMI, KNMI, ODIM, MeteoNet
from zoo.data.radolan import read_radolan
from zoo.errors import DataError, NoWindowError

REAL = Path(os.environ.get("ZOO_DATA", "data")) / "radar"
skip_without_files = pytest.mark.skipif(not REAL.is_dir(), reason="ZOO_DATA has no radar/")


def real(test: Any) -> Any:
    """Mark a test of real files, and skip it without them."""
    return pytest.mark.data(skip_without_files(test))


def radolan(values: np.ndarray, minute: int, product: str = "RY", precision: int = -2) -> bytes:
    height, width = values.shape
    header = (
        f"{product}0112{minute:02}100000120BY{2 * values.size:7}VS 3SW   2.21.0PR E{precision:03}"
        f"INT   5GP{height:4}x{width:4}MS 10<asb,boo>"
    )
    return header.encode() + b"\x03" + values.astype("<u2")[::-1].tobytes()  # south first


@pytest.fixture
def dwd(tmp_path: Path) -> Path:
    for minute in (0, 5, 10, 15, 25, 30):  # 20 is absent
        values = np.full((6, 8), 25 + minute)
        values[0, 0] = 0x2000 | 2500  # no data
        values[0, 1] = 0x8000 | 7  # clutter
        values[0, 2] = 0x1000 | 50  # filled in from elsewhere
        path = tmp_path / f"raa01-ry_10000-20010112{minute:02}-dwd---bin.gz"
        path.write_bytes(gzip.compress(radolan(values, minute)))
    return tmp_path


def test_radolan_header_and_values(dwd: Path) -> None:
    header, rain = read_radolan(sorted(dwd.iterdir())[0])
    assert header["product"] == "RY"
    assert header["time"] == datetime(2020, 1, 1, 12, 0)
    assert (header["minutes"], header["shape"]) == (5, (6, 8))
    assert np.isnan(rain[0, :2]).all()
    assert rain[0, 2] == pytest.approx(0.5)
    assert rain[5, 7] == pytest.approx(0.25)  # mm in five minutes


def test_dwd_is_a_rain_rate_with_gaps(dwd: Path) -> None:
    dataset = DWD(dwd, frames=2, test_share=0)
    record = dataset.data
    assert (record.variable, record.unit, record.missing) == ("rain_rate", "mm/h", True)
    assert (record.grid_step, record.time_step) == (1000, 300)
    assert record.reflectivity is not None
    assert record.reflectivity.model_dump() == {"a": 256, "b": 1.42, "low": -10, "high": 60}
    assert dataset.describe()["gaps in time"] == "1"
    assert len(dataset) == 3 + 1
    expected = (10 * np.log10(256 * (0.25 * 12) ** 1.42) + 10) / 70
    assert dataset[0][0, 0, 5, 7] == pytest.approx(expected, abs=1e-6)
    assert dataset[0][0, 0, 0].isnan().tolist() == [True, True] + [False] * 6
    assert str(dataset.when(3)[0]) == "2020-01-01T12:25:00"  # type: ignore[index]


def test_conversion_of_rain_can_be_set_or_linear(dwd: Path) -> None:
    marshall = DWD(dwd, frames=1, test_share=0, a=200, b=1.6, low_dbz=0, high_dbz=50)
    expected = 10 * np.log10(200 * 3**1.6) / 50
    assert marshall[0][0, 0, 5, 7] == pytest.approx(expected, abs=1e-6)
    linear = DWD(dwd, frames=1, test_share=0, low=0, high=30)
    assert linear[0][0, 0, 5, 7] == pytest.approx(0.1)
    assert linear.data.reflectivity is None


def test_products_are_not_mixed(dwd: Path) -> None:
    other = dwd / "raa01-yw_10000-2001011235-dwd---bin"
    other.write_bytes(radolan(np.zeros((6, 8)), 35, "YW"))
    with pytest.raises(DataError, match=r"RY \(6\), YW \(1\).*product = 'RY'") as caught:
        DWD(dwd, frames=2)
    assert str(other) in str(caught.value)
    assert len(DWD(dwd, frames=2, test_share=0, product="RY")) == 4
    with pytest.raises(DataError, match="product = 'RY'"):
        DWD(dwd, frames=2, product="RW")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"RX011200100000120 something else\x03", "RX0112.*RY, YW or RW"),
        (radolan(np.zeros((6, 8)), 0)[:-5], "91 bytes.* 96 "),
        (b"", "RADOLAN"),
    ],
)
def test_corrupt_radolan_is_named(tmp_path: Path, content: bytes, named: str) -> None:
    path = tmp_path / "raa01-ry_10000-2001011200-dwd---bin"
    path.write_bytes(content)
    with pytest.raises(DataError, match=named) as caught:
        list(DWD(tmp_path, frames=1, test_share=0).scan())
    assert str(path) in str(caught.value)


def test_truncated_gzip_is_named(dwd: Path) -> None:
    path = sorted(dwd.iterdir())[2]
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(DataError) as caught:
        list(DWD(dwd, frames=1, test_share=0).scan())
    assert str(path) in str(caught.value)


def test_a_repeated_time_is_rejected(dwd: Path) -> None:
    path = sorted(dwd.iterdir())[2]
    (dwd / "raa01-ry_10000-copy").write_bytes(gzip.decompress(path.read_bytes()))
    with pytest.raises(DataError, match=r"copy.*2020-01-01T12:10:00, equals"):
        DWD(dwd, frames=2)


def test_grids_of_two_sizes_are_rejected(dwd: Path) -> None:
    path = dwd / "raa01-ry_10000-2001011235-dwd---bin"
    path.write_bytes(radolan(np.zeros((6, 7)), 35))
    with pytest.raises(DataError, match=r"6×7.*6×8"):
        list(DWD(dwd, frames=2, test_share=0).scan())


def test_rydl_tests_on_2015(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "RYDL.hdf5", "w") as file:
        for year in (2013, 2014, 2015):
            for minute in range(0, 30, 5):
                rain = np.full((4, 4), 0.1 * (year - 2012), np.float32)
                rain[0, 0] = np.nan
                file[f"{year}06011{2}{minute:02}"] = rain
    train, test = (DWD(tmp_path, split=split, frames=3) for split in ("train", "test"))
    assert (len(train), len(test)) == (8, 4)  # 2015 is tested, as in the papers
    assert test.when(0)[0] == np.datetime64("2015-06-01T12:00")  # type: ignore[index]
    (tmp_path / "out").mkdir()
    list(train.prepare(tmp_path / "out"))
    assert len(DWD(tmp_path / "out", split="test", frames=3)) == 4
    assert len(DWD(tmp_path, split="test", frames=3, test_share=0.5)) == 4 + 1
    rate = DWD(tmp_path, frames=1, low=0, high=12)[0][0, 0]
    assert rate[1, 1] == pytest.approx(0.1)
    assert rate[0, 0].isnan()


def write_odim(path: Path, quantity: str, minute: int, values: np.ndarray, **what: float) -> None:
    with h5py.File(path, "w") as file:
        group = file.create_group("what")
        group.attrs.update(date=b"20200101", time=f"12{minute:02}00".encode())
        file.create_group("where").attrs["xscale"] = 2000.0
        end = datetime(2020, 1, 1, 12, minute)
        start = end - timedelta(minutes=15)
        file.create_group("dataset1/what").attrs.update(
            startdate=start.strftime("%Y%m%d"),
            starttime=start.strftime("%H%M%S"),
            enddate=end.strftime("%Y%m%d"),
            endtime=end.strftime("%H%M%S"),
        )
        inner = file.create_group("dataset1/data1/what")
        inner.attrs.update(quantity=quantity, nodata=255.0, undetect=0.0, **what)
        file["dataset1/data1/data"] = values.astype(np.uint8)


@pytest.mark.parametrize(
    ("quantity", "unit", "expected", "nothing"),
    [("RATE", "mm/h", 5.0, 0.0), ("ACRR", "mm/h", 20.0, 0.0), ("DBZH", "dBZ", 5.0, -10.0)],
)
def test_odim_quantities(
    tmp_path: Path, quantity: str, unit: str, expected: float, nothing: float
) -> None:
    values = np.full((4, 5), 12)
    values[0, 0], values[0, 1] = 255, 0
    for minute in (0, 15, 30):
        write_odim(tmp_path / f"{minute}.h5", quantity, minute, values, gain=0.5, offset=-1.0)
    dataset = ODIM(tmp_path, frames=3, test_share=0)
    record = dataset.data
    assert (record.unit, record.grid_step, record.time_step) == (unit, 2000, 900)
    from zoo.units import to_physical

    got = to_physical(dataset[0], record)[0, 0]
    assert got[0, 0].isnan()
    assert got[0, 1] == pytest.approx(nothing)
    assert got[2, 2] == pytest.approx(expected, rel=1e-5)


def test_corrupt_and_foreign_hdf5_is_named(tmp_path: Path) -> None:
    write_odim(tmp_path / "a.h5", "RATE", 0, np.zeros((64, 64)), gain=1.0, offset=0.0)
    content = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "a.h5").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"a\.h5.*truncated"):
        ODIM(tmp_path, frames=1)
    (tmp_path / "a.h5").unlink()
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["something"] = 1
    with pytest.raises(DataError, match=r"b\.h5.*something.*dataset1.*image1"):
        ODIM(tmp_path, frames=1)


@pytest.mark.parametrize("absent", ["date", "time"])
def test_odim_without_a_time_is_rejected(tmp_path: Path, absent: str) -> None:
    write_odim(tmp_path / "a.h5", "RATE", 0, np.zeros((4, 4)), gain=1.0, offset=0.0)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        for where, names in (("what", ("",)), ("dataset1/what", ("start", "end"))):
            for name in names:
                del file[where].attrs[name + absent]
    with pytest.raises(DataError, match=rf"a\.h5.*end{absent} in .* {absent} in what"):
        ODIM(tmp_path, frames=1)


def test_fmi_pixels_are_dbz(tmp_path: Path) -> None:
    pixels = np.full((3, 4), 124, np.uint8)
    pixels[0, 0] = 255
    head = b"P5\n# obstime 2016092814%02d\n# param X\n# metersperpixel_x 999.5\n4 3\n255\n"
    for minute in (45, 50):
        path = tmp_path / f"{minute}.pgm.gz"
        path.write_bytes(gzip.compress(head % minute + pixels.tobytes()))
    dataset = FMI(tmp_path, frames=2, test_share=0)
    assert dataset.data.grid_step == 999.5
    assert dataset[0][0, 0, 1, 1] == pytest.approx((30 + 10) / 70)  # (124 − 64) / 2 dBZ
    assert dataset[0][0, 0, 0, 0].isnan()
    (tmp_path / "45.pgm.gz").write_bytes(gzip.compress(head % 45 + pixels.tobytes()[:-1]))
    with pytest.raises(DataError, match=r"11 pixels.* 12 "):
        list(FMI(tmp_path, frames=2, test_share=0).scan())


def write_meteonet(path: Path, minutes: list[int], dates: Any = None) -> None:
    start = datetime(2016, 8, 21)
    times = np.array([start + timedelta(minutes=m) for m in minutes], dtype=object)
    data = np.arange(len(minutes) * 6, dtype=np.int16).reshape(-1, 2, 3)
    data[:, 0, 0] = -1
    np.savez_compressed(path, data=data, dates=times if dates is None else dates)


def test_meteonet_reads_one_region_over_several_files(tmp_path: Path) -> None:
    write_meteonet(tmp_path / "rainfall_NW_2016_08.3.npz", [30, 35, 40])
    write_meteonet(tmp_path / "rainfall_NW_2016_08.1.npz", [0, 5, 20, 25])
    dataset = MeteoNet(tmp_path, frames=2, test_share=0, low=0, high=10)
    assert len(dataset) == 1 + 4  # 0 5, then 20 … 40 over two files
    assert dataset[0][0, 0, 0, 0].isnan()
    assert dataset[0][0, 0, 1, 2] * 10 == pytest.approx(5 * 0.12)  # hundredths in 5 min
    write_meteonet(tmp_path / "rainfall_SE_2016_08.1.npz", [0, 5])
    with pytest.raises(DataError, match=r"NW \(7\), SE \(2\).*region = 'NW'"):
        MeteoNet(tmp_path, frames=2)
    assert len(MeteoNet(tmp_path, frames=2, region="SE", test_share=0)) == 1


class Bomb:
    def __reduce__(self) -> Any:
        return os.system, ("touch exploded",)


def test_reading_dates_executes_no_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    dates = np.array([Bomb(), datetime(2016, 1, 1)], dtype=object)
    write_meteonet(tmp_path / "rainfall_NW_2016_08.1.npz", [0, 5], dates)
    with pytest.raises(DataError, match=r"dates.*system"):
        MeteoNet(tmp_path, frames=1)
    assert not (tmp_path / "exploded").exists()
    assert pickle.loads(pickle.dumps(1)) == 1  # the ordinary unpickler is unchanged


def test_lazy_array_reads_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "rainfall_NW_2016_08.1.npz"
    write_meteonet(path, [0, 5, 10])
    assert read_dates(path)[2] == np.datetime64("2016-08-21T00:10")
    file = LazyArray(path, "data")
    expected = np.load(path)["data"]
    for start, stop in ((2, 3), (0, 2), (1, 3)):  # backwards too
        assert np.array_equal(file.read(start, stop), expected[start:stop])
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=path.name):
        LazyArray(path, "data")


@pytest.mark.slow
@real
def test_real_composites_have_their_size_time_and_rain() -> None:
    sets: list[Any] = [
        (KNMI, "knmi", {}, (1, 765, 700), "2010-08-26T00:00"),
        (DWD, "dwd", {"product": "RY"}, (1, 900, 900), "2020-01-01T15:00"),
        (DWD, "dwd", {"product": "YW"}, (1, 1100, 900), "2017-08-16T00:55"),
        (FMI, "fmi", {}, (1, 1226, 760), "2016-09-28T14:45"),
        (MeteoNet, "meteonet", {"region": "NW"}, (1, 565, 784), "2016-08-21T00:10"),
        (MeteoNet, "meteonet", {"region": "SE"}, (1, 515, 784), "2016-08-21T00:10"),
    ]
    for kind, folder, options, shape, start in sets:
        dataset = kind(REAL / folder, frames=2, test_share=0, **options)
        assert dataset[0].shape == (2, *shape)
        assert dataset.series[0].times[0] == np.datetime64(start)
        missing = float(dataset[0].isnan().float().mean())
        assert 0 < missing < 0.8
        assert 0.3 < float(dataset[0].nan_to_num().max()) <= 1  # it rains somewhere


@pytest.mark.slow
@real
def test_real_composites_equal_those_of_pysteps(tmp_path: Path) -> None:
    importers = pytest.importorskip("pysteps.io.importers", reason="pip install pysteps")
    pytest.importorskip("pyproj", reason="pip install pyproj")
    knmi = sorted((REAL / "knmi").glob("*.h5"))[7]
    fmi = sorted((REAL / "fmi").glob("*.pgm.gz"))[7]
    dwd = sorted((REAL / "dwd").glob("*yw*"))[7]
    plain = tmp_path / "yw"
    plain.write_bytes(gzip.decompress(dwd.read_bytes()))
    # pysteps keeps the rows of RADOLAN from the south, reads no rain as −0.01 mm, and clutter as
    # rain.
    south_up = importers.import_dwd_radolan(str(plain), "YW")[0]
    pairs: list[Any] = [
        (KNMI(knmi, frames=1, test_share=0), importers.import_knmi_hdf5(str(knmi))[0] * 12),
        (FMI(fmi, frames=1, test_share=0), importers.import_fmi_pgm(str(fmi), gzipped=True)[0]),
        (DWD(dwd, frames=1, test_share=0), (south_up[::-1] + 0.01) * 12),
    ]
    for dataset, theirs in pairs:
        ours = dataset.series[0].read(0, 1)[0, 0]
        theirs = np.ma.filled(np.ma.masked_invalid(theirs), np.nan)
        assert ours.shape == theirs.shape
        both = ~np.isnan(ours) & ~np.isnan(theirs)
        assert both.mean() > 0.2
        assert (np.isnan(ours) == np.isnan(theirs)).mean() > 0.995
        np.testing.assert_allclose(ours[both], theirs[both], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_predict_continues_a_folder_of_radar_files(dwd: Path, cli: Cli) -> None:
    data = DWD(dwd, frames=2, test_share=0.5).data.model_dump() | {"name": "dwd", "input_frames": 2}
    model = zoo.create("convlstm", hidden=2, layers=2, data=data)
    zoo.save(model, dwd.parent / "model")
    ref, out = f"local-dir:{dwd.parent / 'model'}", dwd.parent / "future.nc"
    arguments = ["predict", ref, str(dwd), "--data", "dwd", "-o", str(out), "--horizon", "3"]
    cli.succeed(*arguments)
    with xarray.open_dataarray(out, engine="h5netcdf") as future:
        assert future.shape == (3, 6, 8)
        assert future.attrs["units"] == "mm/h"
        assert future["time"].values[0] == np.datetime64("2020-01-01T12:35")
        assert future["y"].values.tolist() == [1000.0 * i for i in range(6)]
        last = read_radolan(sorted(dwd.glob("*.gz"))[-1])[1] * 12  # mm in 5 minutes to mm/h
        before = read_radolan(sorted(dwd.glob("*.gz"))[-2])[1] * 12
        past = np.stack([before, last]).astype(np.float32)
        np.testing.assert_allclose(future.values, model.predict(past, 3), rtol=1e-5, atol=1e-6)
    for change, named in (
        (["--input-frames", "5"], "newest 2 frames"),
        (["--data", "mmnist"], "mmnist"),
        (["--data", "knmi"], "*.h5"),
        (["--time-step", "1h"], "1 h"),
    ):
        assert named in cli.fail(*arguments, *change)


@pytest.mark.slow
def test_thinned_input_ends_with_the_newest_file(dwd: Path) -> None:
    model = zoo.create(
        "convlstm", hidden=2, layers=2, data={"name": "dwd", "options": {"every": 2}}
    )
    from zoo.data.newest import newest_frames

    (dwd / "raa01-ry_10000-2001011235-dwd---bin").write_bytes(radolan(np.ones((6, 8)), 35))
    times = newest_frames(model.config.data, "dwd", dwd, 2)["time"].values
    assert [str(t)[11:16] for t in times] == ["12:25", "12:35"]
    with pytest.raises(NoWindowError, match=r"12:25:00 to .*12:35:00.*12:15:00.* 5 "):
        newest_frames(model.config.data, "dwd", dwd, 3)
    (dwd.parent / "prepared").mkdir()
    list(DWD(dwd, frames=2, every=2, test_share=0).prepare(dwd.parent / "prepared"))
    times = newest_frames(model.config.data, "dwd", dwd.parent / "prepared", 2)["time"].values
    assert [str(t)[11:16] for t in times] == ["12:25", "12:35"]


def test_grid_of_the_newest_frames_is_that_of_the_model(dwd: Path, cli: Cli) -> None:
    data = {"name": "mixed", "unit": "mm/h", "reflectivity": {}, "missing": True}
    config = {**data, "grid_step": 2000.0, "time_step": 300.0, "input_frames": 2, "horizon": 1}
    zoo.save(zoo.create("convlstm", hidden=2, layers=2, data=config), dwd.parent / "model")
    out = dwd.parent / "future.npy"
    arguments = ("predict", f"local-dir:{dwd.parent / 'model'}", dwd, "-o", out)
    assert "grid step" in cli.fail(*arguments, "--data", "dwd")
    cli.succeed(*arguments, "--data", "dwd", "--set", "pool=2")
    assert np.load(out).shape == (1, 1, 3, 4)
    assert "pool" in cli.fail(*arguments, "--data", "dwd", "--set", "pool=two")
    assert "--data" in cli.fail(*arguments[:2], out, "-o", out, "--set", "pool=2")

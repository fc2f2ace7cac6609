"""Videos, KTH, TaxiBJ and arrays: files written here, and real ones."""

import os
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import xarray

from zoo.data import open_dataset
from zoo.data.arrays import Arrays
from zoo.data.clip import Clip
from zoo.data.files import write_frames
from zoo.data.traffic import TaxiBJ
from zoo.data.video import KTH, Video
from zoo.errors import ConfigError, DataError, NoWindowError, ZooError

ROOT = Path(os.environ.get("ZOO_DATA", "data"))


def ramp(length: int, size: int = 16) -> np.ndarray:
    """Return frames (T, 1, H, W) of one gray level each: 5, 10, 15 …"""
    return np.ones((length, 1, size, size), np.float32) * (5 * (1 + np.arange(length)) / 255)[
        :, None, None, None
    ].astype(np.float32)


def levels(item: torch.Tensor) -> list[int]:
    """Return which frames of a ramp these are; codecs change the levels a little."""
    return [round(float(frame.mean()) * 255 / 5) - 1 for frame in item]


def test_a_clip_reads_any_part_at_any_rate(tmp_path: Path) -> None:
    write_frames(tmp_path / "a.mp4", ramp(12), fps=10)
    clip = Clip(tmp_path / "a.mp4")
    assert (clip.length, clip.rate) == (12, 10)
    for start, stop in ((3, 6), (8, 12), (0, 2), (5, 6)):
        got = torch.from_numpy(clip.read(start, stop)) / 255
        assert levels(got) == [*range(start, stop)]
    slow = Clip(tmp_path / "a.mp4", fps=5, size=(8, 10))
    assert slow.length == 6
    assert slow.read(0, 6).shape == (6, 1, 8, 10)
    assert levels(torch.from_numpy(slow.read(1, 4)) / 255) == [2, 4, 6]
    with pytest.raises(ConfigError, match=r"20.*10"):
        Clip(tmp_path / "a.mp4", fps=20)


def test_videos_are_split_by_folders_or_by_order(tmp_path: Path) -> None:
    for part in ("Training", "test"):
        (tmp_path / part).mkdir()
        write_frames(tmp_path / part / "1.mp4", ramp(9), fps=10)
    train, test = (Video(tmp_path, split=split, frames=4) for split in ("train", "test"))
    assert (len(train), len(test)) == (6, 6)
    assert levels(train[2]) == [2, 3, 4, 5]
    assert train.data.time_step == pytest.approx(0.1)
    assert train.data.is_picture
    other = tmp_path / "others"
    other.mkdir()
    for number in (2, 10, 1):
        write_frames(other / f"{number}.mp4", ramp(5 + number), fps=10)
    parts = {split: Video(other, split=split, frames=6) for split in ("train", "test")}
    assert (len(parts["train"]), len(parts["test"])) == (1 + 2, 10)  # the last is 10


def test_valid_clips_are_moved_from_training(tmp_path: Path) -> None:
    for clip in ("train/a.mp4", "train/b.mp4", "test/a.mp4"):
        (tmp_path / clip).parent.mkdir(exist_ok=True)
        write_frames(tmp_path / clip, ramp(5), fps=10)
    options: dict[str, Any] = {"frames": 4, "valid_clips": ["train/b.mp4"]}
    for split, clip in (("train", "train/a.mp4"), ("valid", "train/b.mp4"), ("test", "test/a.mp4")):
        dataset = Video(tmp_path, split=split, **options)
        used = {dataset.series[number].name for number, _ in dataset.windows}
        assert used == {str(tmp_path / clip)}
    with pytest.raises(ConfigError, match=r"'train/c\.mp4'"):
        Video(tmp_path, frames=4, valid_clips=["train/c.mp4"])


def test_folders_of_color_pictures_are_recordings(tmp_path: Path) -> None:
    from PIL import Image

    for i in range(12):
        Image.new("RGB", (6, 4), (10 * i, 0, 255)).save(tmp_path / f"{i}.png")
    got = Video(tmp_path, frames=3, color=True, test_share=0)
    assert got[9].shape == (3, 3, 4, 6)
    torch.testing.assert_close(got[9][:, 0, 0, 0] * 255, torch.tensor([90.0, 100, 110]))
    Image.new("RGB", (7, 4)).save(tmp_path / "12.png")
    with pytest.raises(DataError, match=r"12\.png.*4 × 7.*4 × 6"):
        list(Video(tmp_path, frames=3, test_share=0).scan())


def test_videos_of_two_sizes_need_the_option_size(tmp_path: Path) -> None:
    for name, size in (("1", 16), ("2", 32)):
        write_frames(tmp_path / f"{name}.mp4", ramp(9, size), fps=10)
    with pytest.raises(DataError, match=r"2\.mp4.*32×32.*1\.mp4.*16×16.*option size"):
        Video(tmp_path, frames=2)
    assert len(Video(tmp_path, frames=2, size=8)) == len(
        Video(tmp_path, frames=2, crop=[0, 0, 8, 8])
    )


def test_a_video_that_changes_size_needs_the_option_size(tmp_path: Path) -> None:
    import io
    from fractions import Fraction

    import av
    from PIL import Image

    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuvj420p"
        for k in range(12):
            content = io.BytesIO()
            Image.new("RGB", (64, 64) if k < 6 else (80, 48)).save(content, "JPEG")
            packet = av.Packet(content.getvalue())
            packet.stream, packet.time_base = stream, Fraction(1, 1000)
            packet.pts = packet.dts = 100 * k
            container.mux(packet)
    with pytest.raises(DataError, match=r"a\.mkv: frame 6.*48×80.*64×64.*option size"):
        list(Video(tmp_path, frames=2).scan())
    list(Video(tmp_path, frames=2, size=32).scan())


def test_a_single_video_is_cut_into_parts(tmp_path: Path) -> None:
    write_frames(tmp_path / "a.mp4", ramp(20), fps=10)
    train, test = (
        Video(tmp_path, split=split, frames=2, test_share=0.2) for split in ("train", "test")
    )
    assert (len(train), len(test)) == (15, 3)
    assert levels(test[0]) == [16, 17]


def test_corrupt_videos_and_invalid_options_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    path.write_bytes(b"RIFF no video at all")
    with pytest.raises(DataError, match=r"a\.avi"):
        Video(tmp_path, frames=2)
    path.unlink()
    write_frames(tmp_path / "a.mp4", ramp(5), fps=10)
    write_frames(tmp_path / "b.mp4", ramp(5), fps=20)
    with pytest.raises(DataError, match=r"a\.mp4.*10.*b\.mp4.*20.*fps = 10"):
        Video(tmp_path, frames=2)
    with pytest.raises(ConfigError, match="size is 'big'"):
        Video(tmp_path, frames=2, fps=10, size="big")


@pytest.fixture
def kth(tmp_path: Path) -> Path:
    """Two people in a folder and one in a zip file; the list counts one clip as too long."""
    lines = []
    for person, action, length in ((1, "walking", 45), (17, "running", 30), (16, "jogging", 31)):
        name = f"person{person:02}_{action}_d1"
        source = tmp_path / f"{name}.mp4"
        write_frames(source, ramp(length), fps=25)
        if person == 16:
            with zipfile.ZipFile(tmp_path / "jogging.zip", "w") as archive:
                archive.write(source, f"{name}_uncomp.avi")
            source.unlink()
        else:
            source.rename(tmp_path / f"{name}_uncomp.avi")
        ranges = "1-24, 25-50" if person == 1 else f"3-{length}"
        lines.append(f"{name}\t\tframes\t{ranges}\n")
    (tmp_path / "00sequences.txt").write_text("".join(lines))
    return tmp_path


def test_kth_windows_follow_the_list_of_sequences(kth: Path) -> None:
    train = KTH(kth, frames=20, size=32)
    test = KTH(kth, split="test", frames=20, size=32)
    # Walking 24 and 21 frames, jogging 29: a window every 10; running 28: every 3.
    assert (len(train), len(test)) == (1 + 1 + 1, 3)
    firsts = sorted(levels(train[i])[0] for i in range(3))
    assert firsts == [0, 2, 24]
    assert [levels(test[i])[0] for i in range(3)] == [2, 5, 8]
    assert train[0].shape == (20, 1, 32, 32)
    (kth / "00sequences.txt").unlink()
    with pytest.raises(DataError, match=r"00sequences\.txt"):
        KTH(kth)
    assert len(KTH(kth, whole=True)) == 3 + 2
    with pytest.raises(ConfigError, match="'flying'"):
        KTH(kth, actions=["flying"])


def test_valid_persons_of_kth_are_moved_from_training(kth: Path) -> None:
    options: dict[str, Any] = {"frames": 20, "size": 32}
    with pytest.raises(NoWindowError, match="valid"):
        KTH(kth, split="valid", **options)
    parts = {
        split: KTH(kth, split=split, valid_persons=[16], **options)
        for split in ("train", "valid", "test")
    }
    assert {split: len(part) for split, part in parts.items()} == {
        "train": 2,  # person 1
        "valid": 1,  # person 16
        "test": 3,
    }
    assert "person16" in parts["valid"].series[parts["valid"].windows[0][0]].name
    assert parts["valid"].data.options["valid_persons"] == [16]
    with pytest.raises(ConfigError, match=r"valid_persons.* 17"):
        KTH(kth, valid_persons=[17], **options)


def needs(*files: str) -> Any:
    """Mark a test of real files of KTH, and skip it without them."""
    missing = [file for file in files if not (ROOT / "kth" / file).exists()]
    skip = pytest.mark.skipif(bool(missing), reason=f"ZOO_DATA has no kth/{missing}")
    return lambda test: pytest.mark.data(skip(test))


@pytest.mark.slow
@needs("person15_handwaving_d1_uncomp.avi")
def test_a_real_clip_of_kth_shows_motion(tmp_path: Path) -> None:
    name = "person15_handwaving_d1_uncomp.avi"
    (tmp_path / name).symlink_to((ROOT / "kth" / name).absolute())
    clip = KTH(tmp_path, actions=["handwaving"], whole=True)
    assert len(clip) == (581 - 20) // 10 + 1
    item = clip[20]
    assert item.shape == (20, 1, 128, 128)
    assert 0.1 < float(item.mean()) < 0.9
    assert float((item[0] - item[10]).abs().max()) > 0.2  # the person waves


@pytest.mark.slow
@needs("00sequences.txt", "person10_walking_d1_uncomp.avi", "person25_boxing_d4_uncomp.avi")
def test_real_files_of_kth_give_known_numbers_of_windows() -> None:
    files = [*(ROOT / "kth").rglob("*.avi"), *(ROOT / "kth").rglob("*.zip")]
    if len(files) != 43:
        pytest.skip(f"the numbers are those of 43 clips, ZOO_DATA has {len(files)} files")
    train = KTH(ROOT / "kth", actions=KTH.ACTIONS)
    assert len(train) == 1247
    assert len(train.cut_windows("test")) == 161


def write_taxibj(folder: Path, days: list[str], slots: int = 48, year: int = 13) -> None:
    dates = [f"{day}{slot:02}".encode() for day in days for slot in range(1, slots + 1)]
    flow = np.zeros((len(dates), 2, 4, 4), np.float32)
    flow[:, 0] = np.arange(len(dates))[:, None, None]
    flow[:, 1] = 2 * flow[:, 0]
    flow[0, 0, 0, 0] = -1
    with h5py.File(folder / f"BJ{year}_M32x32_T30_InOut.h5", "w") as file:
        file["data"], file["date"] = flow, np.array(dates)


def test_taxibj_parts_and_range_are_those_of_the_papers(tmp_path: Path) -> None:
    days = [str(d).replace("-", "") for d in np.arange("2015-01-01", "2015-02-10", dtype="M8[D]")]
    del days[3]
    write_taxibj(tmp_path, days)
    train, test = (TaxiBJ(tmp_path, split=split, frames=8) for split in ("train", "test"))
    assert len(test) == 1344
    assert len(train) == (3 * 48 - 7) + (36 * 48 - 7 - 1344)  # no window crosses the dropped day
    assert train.data.limits == (0, 2 * (39 * 48 - 1344 - 1))  # of both flows, to train
    assert train[0].shape == (8, 1, 4, 4)
    assert train[0].min() == 0
    assert str(test.when(0)[-1]) == "2015-01-13T00:00:00"  # type: ignore[index]
    (tmp_path / "prepared").mkdir()
    list(test.prepare(tmp_path / "prepared"))
    assert len(TaxiBJ(tmp_path / "prepared", split="test", frames=8)) == 1344
    # A validation part leaves the test part as is, and the range is that of the training part.
    shares: dict[str, Any] = {"frames": 8, "valid_share": 0.1}
    parts = {s: TaxiBJ(tmp_path, split=s, **shares) for s in ("train", "valid", "test")}
    valid = round(0.1 * 39 * 48)
    assert (len(parts["valid"]), len(parts["test"])) == (valid - 7, 1344)
    assert {part.data.limits for part in parts.values()} == {(0, 2 * (39 * 48 - 1344 - valid - 1))}
    early = TaxiBJ(tmp_path, frames=8, test_from="2015-01-03")
    assert early.data.limits == (0, 2 * (2 * 48 - 1))
    assert TaxiBJ(tmp_path / "prepared", frames=8, **{"test_from": "2015-01-03"}).data == early.data
    assert TaxiBJ(tmp_path, frames=8, flow="both")[0].shape == (8, 2, 4, 4)
    write_taxibj(tmp_path, ["20160101"], slots=47, year=16)  # dropped
    assert len(TaxiBJ(tmp_path, frames=8)) == len(train)
    newest = TaxiBJ(tmp_path, frames=8).newest(2)
    assert (newest["time"].values == test.when(len(test) - 1)[-2:]).all()  # type: ignore[index]
    with h5py.File(tmp_path / "BJ16_M32x32_T30_InOut.h5", "w") as file:
        file["data"], file["date"] = np.zeros((1, 2, 4, 4)), np.array([b"2016010149"])
    with pytest.raises(DataError, match=r"BJ16.*'2016010149'"):
        TaxiBJ(tmp_path, frames=8)


FRAMES = np.random.default_rng(0).normal(size=(10, 2, 4, 5)).astype(np.float32)  # T C H W


@pytest.mark.parametrize("ending", ["npy", "npz", "h5", "nc", "zarr"])
def test_arrays_of_every_format(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    array = np.ascontiguousarray(FRAMES.transpose(0, 2, 3, 1))  # channels last
    options: dict[str, Any] = {"dims": "time y x channel"}
    if ending == "npy":
        np.save(path, array)
    elif ending == "npz":
        np.savez_compressed(path, frames=array)
    elif ending == "h5":
        with h5py.File(path, "w") as file:
            file["group/frames"] = array
    else:
        pytest.importorskip("zarr" if ending == "zarr" else "h5netcdf")
        options = {}
        labeled = xarray.DataArray(
            array,
            {"time": np.datetime64("2020-01-01", "ns") + np.arange(10) * np.timedelta64(1, "h")},
            ("time", "y", "x", "channel"),
            "t2m",
            {"units": "K"},
        )
        if ending == "nc":
            labeled.to_dataset().to_netcdf(path, engine="h5netcdf")
        else:
            labeled.to_dataset().to_zarr(path)
    dataset = Arrays(tmp_path, frames=3, low=-5, high=5, test_share=0, **options)
    assert len(dataset) == 8
    torch.testing.assert_close(dataset[4] * 10 - 5, torch.from_numpy(FRAMES[4:7]))
    if not options:
        assert (dataset.data.variable, dataset.data.unit) == ("t2m", "K")
        assert dataset.data.time_step == 3600
    chosen = Arrays(tmp_path, frames=3, low=-5, high=5, channels=[1], test_share=0, **options)
    torch.testing.assert_close(chosen[0], dataset[0][:, 1:])


def test_arrays_of_an_npz_are_recordings(tmp_path: Path) -> None:
    clips = {f"person_{i}": np.full((6, 4, 4), 10 * i, np.uint8) for i in (1, 2, 3, 10, 20)}
    np.savez(tmp_path / "clips.npz", **clips)
    train, test = (Arrays(tmp_path, split=split, frames=4) for split in ("train", "test"))
    assert (len(train), len(test)) == (12, 3)
    assert float(test[0].max()) * 255 == pytest.approx(200)
    assert train.data.is_picture
    one = Arrays(tmp_path, frames=4, variable="person_2", test_share=0)
    assert float(one[0].max()) * 255 == pytest.approx(20)


def test_times_of_arrays_are_set_by_start_and_time_step(tmp_path: Path) -> None:
    np.savez(tmp_path / "taxi.npz", pickups=np.arange(96 * 6.0).reshape(96, 2, 3))
    options: dict[str, Any] = {
        "start": "2015-01-01",
        "time_step": "30min",
        "test_from": "2015-01-02",
        "unit": "1/30min",
    }
    test = open_dataset("arrays", "test", root=tmp_path, folder=".", frames=8, **options)
    assert len(test) == 41
    assert test.data.limits == (0, 48 * 6 - 1)  # of the first day
    assert test.data.time_step == 1800
    assert test.data.options["start"] == "2015-01-01"


def test_unreadable_and_ambiguous_arrays_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\.npy.*none.*path"):
        Arrays(tmp_path, frames=2)
    np.save(tmp_path / "a.npy", np.zeros((5, 4)))
    with pytest.raises(DataError, match="option dims"):
        Arrays(tmp_path, frames=2)
    with pytest.raises(DataError, match="time y x"):
        Arrays(tmp_path, frames=2, dims="time y")
    (tmp_path / "a.npy").write_bytes(b"no array")
    with pytest.raises(DataError, match=r"a\.npy"):
        Arrays(tmp_path, frames=2)
    (tmp_path / "a.npy").unlink()
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["one"], file["two"] = np.zeros((5, 4, 4)), np.zeros((5, 4, 4))
    with pytest.raises(ConfigError, match="variable: one, two"):
        Arrays(tmp_path, frames=2)
    with pytest.raises(ConfigError, match=r"'three'.*one, two"):
        Arrays(tmp_path, frames=2, variable="three")
    content = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "a.h5").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"a\.h5"):
        Arrays(tmp_path, frames=2, variable="one")


def test_a_store_without_a_time_dimension_needs_the_option_dims(tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    array = xarray.DataArray(np.zeros((5, 4, 4)), dims=("step", "y", "x"), name="rain")
    array.to_dataset().to_zarr(tmp_path / "a.zarr")
    with pytest.raises(DataError, match="option dims"):
        Arrays(tmp_path, frames=2)
    assert len(Arrays(tmp_path, frames=2, dims="time y x", test_share=0, low=0, high=1)) == 4


@pytest.mark.parametrize("form", [2, 3])
@pytest.mark.parametrize("name", ["r", None])
def test_a_store_without_named_dimensions_needs_the_option_dims(
    tmp_path: Path, form: Any, name: str | None
) -> None:
    zarr = pytest.importorskip("zarr")
    chosen: dict[str, Any] = {"shape": (10, 4, 5), "dtype": "f4", "chunks": (2, 4, 5)}
    if name is None:
        array = zarr.create_array(tmp_path / "a.zarr", zarr_format=form, **chosen)
    else:
        group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=form)
        array = group.create_array(name, **chosen)
    array[:] = FRAMES[:, 0]
    with pytest.raises(DataError, match=r"a\.zarr.*option dims"):
        Arrays(tmp_path, frames=2)
    dataset = Arrays(tmp_path, frames=2, dims="time y x", test_share=0, low=-5, high=5)
    torch.testing.assert_close(dataset[3][:, 0] * 10 - 5, torch.from_numpy(FRAMES[3:5, 0]))


@pytest.mark.parametrize(
    ("array", "named"),
    [
        (np.zeros((9, 16, 8, 2)), "moveaxis.*option dims"),
        (np.zeros((2, 9, 16, 8, 3)), "moveaxis"),
        (np.zeros((9, 4, 4), complex), "complex128"),
    ],
)
def test_channels_last_and_complex_arrays_are_rejected(
    tmp_path: Path, array: np.ndarray, named: str
) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataError, match=named):
        Arrays(tmp_path, frames=2, low=0, high=1)
    if array.ndim == 4:
        for dims, shape in (
            ("time y x channel", (2, 2, 16, 8)),
            ("time channel y x", (2, 16, 8, 2)),
        ):
            got = Arrays(tmp_path, frames=2, low=0, high=1, dims=dims, test_share=0)
            assert got[0].shape == shape


def test_bytes_with_a_unit_are_not_pictures(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.full((9, 4, 4), 30, np.uint8))
    dataset = Arrays(tmp_path, frames=2, unit="dBZ", low=0, high=60, test_share=0)
    assert float(dataset[0].mean()) == 0.5


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("arrays", {"crop": 3}, "crop.* 3"),
        ("arrays", {"low": "a"}, "low.*'a'"),
        ("arrays", {"test_share": "a"}, "test_share.*'a'"),
        ("arrays", {"channels": 2}, "channels.* 2"),
        ("arrays", {"channels": [0, "b"]}, r"channels.*\[0, 'b'\]"),
        ("arrays", {"dims": 5}, "dims.* 5"),
        ("arrays", {"grid_step": "a"}, "grid_step.*'a'"),
        ("arrays", {"path": 5}, "path.* 5"),
        ("arrays", {"path": Path}, "path.*JSON"),
        ("video", {"size": 1.5}, "size.* 1.5"),
        ("video", {"fps": "abc"}, "fps.*'abc'"),
        ("kth", {"actions": "handwaving"}, "actions.*'handwaving'"),
        ("mmnist", {"sequences": "a"}, "sequences.*'a'"),
    ],
)
def test_options_of_another_type_are_rejected(
    tmp_path: Path, name: str, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(ZooError, match=f"{name}.*{named}"):
        open_dataset(name, "train", root=tmp_path, folder=".", **options)


def test_options_of_a_compatible_type_are_accepted(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((9, 2, 4, 4)))
    for options in ({"low": 0, "high": 1, "crop": (0, 0, 2, 2)}, {"channels": [1], "low": -1}):
        options |= {"high": 1, "dims": ["time", "channel", "y", "x"]}  # type: ignore[dict-item]
        assert len(open_dataset("arrays", "train", root=tmp_path, folder=".", frames=2, **options))


def test_unknown_options_and_data_sets_get_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"'pol' \(did you mean pool\?\)"):
        open_dataset("knmi", "train", root=tmp_path, pol=2)
    with pytest.raises(ZooError, match=r"'knm'.*did you mean.*knmi"):
        open_dataset("knm", "train", root=tmp_path)

"""Hostile files: they run nothing, read no other file, and neither hang nor fill the memory."""

import gzip
import os
import socket
import struct
import subprocess
import sys
import zipfile
import zlib
from functools import partial
from pathlib import Path

import alarm
import fuzz_files
import h5py
import numpy as np
import pytest
import torch
import xarray
from PIL import Image
from test_data_grids import grib

import zoo
from zoo.convert.checkpoint import read_tensors
from zoo.data import open_dataset
from zoo.data.clip import Clip
from zoo.data.files import check_writable, read_frames, write_frames
from zoo.data.radolan import read_radolan
from zoo.errors import ConfigError, DataError, ZooError
from zoo.inputs import check_bytes, input_limit
from zoo.labeled import open_labeled, read_first, read_labeled, read_values
from zoo.stores import check_zarr

no_hang = partial(alarm.no_hang, seconds=20)

FRAMES = np.random.default_rng(0).random((6, 1, 8, 8)).astype(np.float32)
DATASETS = [name for name, (_, place, _) in fuzz_files.FORMATS.items() if place != "model"]


def scan(name, folder, **options):
    """Read all files of a data set."""
    options |= {"root": folder, "folder": ".", "frames": 1, "test_share": 0}
    list(open_dataset(name, "train", **options).scan())


# What files refer to


def test_text_of_postscript_does_not_run_ghostscript(tmp_path, monkeypatch):
    binary = tmp_path / "bin" / "gs"
    binary.parent.mkdir()
    binary.write_text(f"#!/bin/sh\ntouch {tmp_path}/executed\n")
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", str(binary.parent), prepend=os.pathsep)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "0.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    )
    with pytest.raises(DataError, match=r"0\.png"):
        read_frames(tmp_path / "in", channels=1)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "playlist",
    [
        "ffconcat version 1.0\nfile second.mp4\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecond.mp4\n#EXT-X-ENDLIST\n",
        "<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011'></MPD>",
    ],
    ids=["concat", "hls", "dash"],
)
@pytest.mark.parametrize("suffix", ["mp4", "gif", "mkv"])
def test_playlist_does_not_read_another_file(tmp_path, playlist, suffix):
    write_frames(tmp_path / "second.mp4", FRAMES)
    path = tmp_path / f"first.{suffix}"
    path.write_text(playlist)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(path, path.name)
    with pytest.raises(DataError, match="first"):
        read_frames(path, channels=1)
    with pytest.raises(DataError, match="first"):
        Clip(path)
    with pytest.raises(DataError, match="first"):
        Clip(tmp_path / "a.zip", inside=path.name)


def test_name_of_a_video_is_not_a_protocol(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_frames("a.mp4", FRAMES)
    Path("a.mp4").rename("concat:b.mp4")
    assert read_frames("concat:b.mp4", channels=1).shape == (6, 1, 8, 8)


def link_h5(path, other):
    with h5py.File(path, "w") as file:
        file["frames"] = h5py.ExternalLink(other.name, "frames")


def link_deep_h5(path, other):
    with h5py.File(path, "w") as file:
        file["frames"] = np.zeros((6, 8, 8))
        file.create_group("group")["frames"] = h5py.ExternalLink(other.name, "frames")


def store_outside(path, other):
    with h5py.File(path, "w") as file:
        file.create_dataset("frames", (6, 8, 8), "u1", external=[(str(other), 0, 384)])


def store_virtually(path, other):
    layout = h5py.VirtualLayout((6, 8, 8), "f4")
    layout[:] = h5py.VirtualSource(str(other), "frames", (6, 8, 8))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("frames", layout)


@pytest.mark.parametrize("make", [link_h5, link_deep_h5, store_outside, store_virtually])
@pytest.mark.parametrize("suffix", ["h5", "nc"])
def test_hdf5_does_not_read_another_file(tmp_path, make, suffix):
    folder = tmp_path / "in"
    folder.mkdir()
    other = folder / "other.bin"
    with h5py.File(other, "w") as file:
        file["frames"] = FRAMES[:, 0]
    make(folder / f"a.{suffix}", other)
    with pytest.raises(DataError, match="another file"):
        scan("arrays", folder)
    if suffix == "nc":
        with pytest.raises(DataError, match="another file"):
            open_labeled(folder / "a.nc")
        with pytest.raises(DataError, match="another file"):
            scan("grids", folder)


# What files announce


def huge_gif(path, side=16000, frames=30):
    """Frames of 1 × 1 on a huge canvas: 23 bytes each."""
    delay = b"\x21\xf9\x04\x00\x0a\x00\x00\x00"
    picture = delay + b"\x2c" + struct.pack("<4HB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    head = b"GIF89a" + struct.pack("<2H", side, side) + b"\x80\x00\x00" + bytes(6)
    path.write_bytes(head + picture * frames + b"\x3b")


def huge_npy(path):
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000, 64, 64)}\n"
    with path.open("wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
        file.truncate(10**9 * 64 * 64 + 200)  # of nothing


def huge_npz(path):
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000, 64, 64)}\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "a.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(4096)
        )


def huge_h5(path, shape=(4, 10**6, 10**6), **options):
    with h5py.File(path, "w") as file:
        file.create_dataset("rain", shape, "f4", chunks=(1, 64, 64))


def long_h5(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("rain", (10**10, 4, 4), "f4", chunks=(1000, 4, 4))


def huge_chunks_h5(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("rain", (4, 20000, 10000), "u1", chunks=(1, 20000, 10000))


def many_chunks_h5(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("rain", (4, 5000, 5000), "u1", chunks=(1, 1, 1))


def huge_nc(path):
    with h5py.File(path, "w") as file:
        for name, size in (("time", 4), ("y", 10**6), ("x", 10**6)):
            file.create_dataset(name, (size,), "f4").make_scale(name)
        rain = file.create_dataset("rain", (4, 10**6, 10**6), "f4", chunks=(1, 64, 64))
        for axis, name in enumerate(("time", "y", "x")):
            rain.dims[axis].attach_scale(file[name])


def huge_grid_nc(path):
    huge_nc(path)
    with h5py.File(path, "a") as file:
        file["time"][:] = np.arange(4)
        file["time"].attrs["units"] = "minutes since 2020-01-01"


def long_nc(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("time", (10**10,), "f8", chunks=(1000,)).make_scale("time")


def huge_zarr(path, shape=(4, 10**6, 10**6), chunks=(1, 64, 64)):
    import zarr

    names = ("time", "y", "x")
    group = zarr.open_group(path, mode="w")
    group.create_array("rain", shape=shape, chunks=chunks, dtype="f4", dimension_names=names)


def huge_png(path):
    path.mkdir()
    Image.new("1", (9000, 9000)).save(path / "0.png")


def huge_pgm(path):
    path.mkdir()
    (path / "0.pgm").write_bytes(b"P5\n90000 90000\n255\n" + bytes(100))


def with_suffix(folder, suffix, make):
    path = folder / f"a{suffix}"
    make(path)
    return path


@pytest.mark.parametrize(
    ("suffix", "make"),
    [
        (".gif", huge_gif),
        (".npy", huge_npy),
        (".npz", huge_npz),
        ("", huge_png),
        ("", huge_pgm),
    ],
)
@pytest.mark.parametrize("size", [None, (64, 64)])
def test_announced_frames_are_not_read(tmp_path, suffix, make, size):
    path = with_suffix(tmp_path, suffix, make)
    with no_hang(), pytest.raises(DataError, match=r"ZOO_INPUT_LIMIT|decompression bomb"):
        read_frames(path, channels=1, size=size)


def test_gif_is_small(tmp_path):
    assert with_suffix(tmp_path, ".gif", huge_gif).stat().st_size < 800


def test_huge_frame_in_a_small_video_is_not_decoded(tmp_path):
    huge_gif(tmp_path / "a.gif")
    with no_hang(), pytest.raises(DataError, match="ZOO_INPUT_LIMIT"):
        Clip(tmp_path / "a.gif", size=(64, 64))
    huge_gif(tmp_path / "a.gif", side=100)
    assert Clip(tmp_path / "a.gif").read(0, 3).shape == (3, 1, 100, 100)


@pytest.mark.parametrize(
    ("suffix", "make"),
    [
        (".npz", huge_npz),
        (".h5", huge_h5),
        (".h5", long_h5),
        (".h5", huge_chunks_h5),
        (".h5", many_chunks_h5),
        (".nc", huge_nc),
        (".nc", long_nc),
        (".zarr", huge_zarr),
        (".zarr", lambda path: huge_zarr(path, (10**10, 4, 4), (1000, 4, 4))),
        (".zarr", lambda path: huge_zarr(path, (4, 5000, 5000), (1, 1, 1))),
    ],
)
def test_announced_arrays_are_not_allocated(tmp_path, suffix, make):
    with_suffix(tmp_path, suffix, make)
    with no_hang(), pytest.raises(DataError, match="ZOO_INPUT_LIMIT"):
        scan("arrays", tmp_path)


@pytest.mark.parametrize("make", [huge_grid_nc, long_nc])
def test_announced_grids_are_not_allocated(tmp_path, make):
    make(tmp_path / "a.nc")
    with no_hang(), pytest.raises(DataError, match="ZOO_INPUT_LIMIT"):
        scan("grids", tmp_path, low=0.0, high=1.0)


@pytest.mark.parametrize(("side", "named"), [(40000, "ZOO_INPUT_LIMIT"), (4000, "a.grib2")])
def test_announced_grib_is_not_allocated(tmp_path, side, named):
    """A message of 48 values that announces more in each of its sections."""
    content = bytearray(grib())
    for place, value in ((43, side**2), (67, side), (71, side), (148, side**2)):
        assert int.from_bytes(content[place : place + 4], "big") in (6, 8, 48)
        content[place : place + 4] = struct.pack(">I", value)
    (tmp_path / "a.grib2").write_bytes(content)
    with no_hang(), pytest.raises(DataError, match=named) as caught:
        scan("grids", tmp_path, low=0.0, high=1.0)
    assert "\n" not in str(caught.value)


def test_grib_that_unpacks_to_more_than_the_limit_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "a.grib2.gz").write_bytes(gzip.compress(bytes(2**26)))
    monkeypatch.setenv("ZOO_INPUT_LIMIT", "1MiB")
    with no_hang(), pytest.raises(DataError, match="ZOO_INPUT_LIMIT"):
        scan("grids", tmp_path)


@pytest.mark.parametrize(("suffix", "make"), [(".nc", huge_nc), (".zarr", huge_zarr)])
def test_stores_larger_than_memory_are_not_predicted(tmp_path, suffix, make):
    path = with_suffix(tmp_path, suffix, make)
    model = zoo.create("convlstm", hidden=2, layers=2)
    array = read_labeled(path)
    with no_hang(), pytest.raises(DataError, match="ZOO_INPUT_LIMIT"):
        model.predict(array)
    part = array.isel(y=slice(8), x=slice(8))
    assert read_values(part).shape == (4, 8, 8)


@pytest.mark.parametrize("form", [2, 3])
def test_zarr_with_chunks_of_size_0_is_an_error(tmp_path, form):
    import zarr

    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=form)
    group.create_array("rain", shape=(4, 8, 8), chunks=(1, 8, 8), dtype="f4")
    name = "zarr.json" if form == 3 else ".zarray"
    for path in (tmp_path / "a.zarr").rglob(name):
        text = path.read_text().replace("\n", "").replace(" ", "")
        path.write_text(text.replace("[1,8,8]", "[0,8,8]"))
    with pytest.raises(DataError, match=r"a\.zarr"):
        scan("arrays", tmp_path)
    with pytest.raises(DataError, match=r"a\.zarr"):
        open_labeled(tmp_path / "a.zarr")


@pytest.mark.parametrize("suffix", ["h5", "nc"])
def test_chunk_that_unpacks_to_more_than_its_size_is_an_error(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"a.{suffix}"
    monkeypatch.setenv("ZOO_INPUT_LIMIT", "16MiB")
    with h5py.File(path, "w") as file:
        sizes = {"time": 4, "y": 100, "x": 100}
        rain = file.create_dataset(
            "rain", (4, 100, 100), "u1", chunks=(1, 100, 100), compression="gzip"
        )
        rain[:] = 1
        for axis, (name, size) in enumerate(sizes.items()):
            file.create_dataset(name, (size,), "f4").make_scale(name)
            rain.dims[axis].attach_scale(file[name])
    scan("arrays", tmp_path)
    with h5py.File(path, "a") as file:
        file["rain"].id.write_direct_chunk((3, 0, 0), zlib.compress(bytes(2**23), 9))
    with pytest.raises(DataError, match="10,000 bytes"):
        scan("arrays", tmp_path)
    if suffix == "nc":
        with pytest.raises(DataError, match="10,000 bytes"):
            read_first(path, None, None)
        assert read_values(read_first(path, None, 3)).shape == (3, 100, 100)


def test_radar_that_unpacks_to_gigabytes_is_an_error(tmp_path):
    zeros = gzip.compress(bytes(2**26))
    bomb = zeros * 48  # 3 GiB in 3 MB
    head = b"RX011200100000120BY 129600VS 3SW 2.21.0PR E-02INT   5GP 900x 900MS 0<>\x03"
    (tmp_path / "raa01-rx.gz").write_bytes(gzip.compress(head) + bomb)
    with no_hang(), pytest.raises(DataError, match=r"over 1,620,000 bytes"):
        read_radolan(tmp_path / "raa01-rx.gz")
    (tmp_path / "raa01-rx.gz").write_bytes(
        gzip.compress(head.replace(b" 900x 900", b"90000x90000")) + bomb
    )
    with no_hang(), pytest.raises(DataError, match="ZOO_INPUT_LIMIT"):
        read_radolan(tmp_path / "raa01-rx.gz")
    pgm = b"P5\n# obstime 202001010000\n%s\n255\n"
    (tmp_path / "a.pgm.gz").write_bytes(gzip.compress(pgm % b"8 8") + bomb)
    with no_hang(), pytest.raises(DataError, match="over 64 pixels"):
        scan("fmi", tmp_path)
    (tmp_path / "a.pgm.gz").write_bytes(gzip.compress(pgm % b"50000 50000") + bomb)
    with no_hang(), pytest.raises(DataError, match="ZOO_INPUT_LIMIT"):
        scan("fmi", tmp_path)
    name = "train-images-idx3-ubyte.gz"
    for count, named in ((9, "has more bytes"), (2**31, "ZOO_INPUT_LIMIT")):
        idx = struct.pack(">4I", 0x803, count, 28, 28)
        (tmp_path / name).write_bytes(gzip.compress(idx) + bomb)
        with no_hang(), pytest.raises(DataError, match=named):
            open_dataset("mmnist", "train", root=tmp_path, folder=".")


def test_limit_is_set_by_the_environment(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", FRAMES)
    assert input_limit() == 2**30
    monkeypatch.setenv("ZOO_INPUT_LIMIT", "1 KiB")
    with pytest.raises(DataError, match=r"a\.npy.*3 KiB.*1 KiB"):
        read_frames(tmp_path / "a.npy", channels=1)
    monkeypatch.setenv("ZOO_INPUT_LIMIT", "5G")
    check_bytes("a", 5 * 2**30)
    monkeypatch.setenv("ZOO_INPUT_LIMIT", "a lot")
    with pytest.raises(ConfigError, match="a lot"):
        input_limit()


def test_large_frames_are_read_in_small_blocks(tmp_path, monkeypatch):
    frames = np.zeros((40, 300, 300), np.uint8)
    np.save(tmp_path / "a.npy", frames)
    monkeypatch.setattr("zoo.data.reader.CACHE", 2**21)
    dataset = open_dataset("arrays", "train", root=tmp_path, folder=".", frames=4, test_share=0)
    blocks = []
    read = dataset.series[0].read
    object.__setattr__(dataset.series[0], "read", lambda *part: blocks.append(part) or read(*part))
    list(dataset.scan())
    assert max(stop - start for start, stop in blocks) == 2  # of 720 kB


# What is not a file


def pipe(path):
    os.mkfifo(path)


def unix_socket(path):
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(path))


def device(path):
    path.symlink_to("/dev/zero")


def dangling(path):
    path.symlink_to("nowhere")


def loop(path):
    path.symlink_to(path.name)


SPECIAL = [pipe, unix_socket, device, dangling, loop]


@pytest.mark.parametrize("make", SPECIAL)
@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.mp4", "a.gif", "a.nc", "a.zarr", "in/3.png"])
def test_special_file_is_not_predicted(tmp_path, cli, monkeypatch, make, name):
    monkeypatch.chdir(tmp_path)
    zoo.save(zoo.create("convlstm", hidden=2, layers=2), tmp_path / "model")
    path = Path(name)
    source = path if path.parent == Path() else path.parent
    path.parent.mkdir(exist_ok=True)
    if source != path:
        Image.new("L", (8, 8)).save(source / "0.png")
    make(path)
    suffix = path.suffix if path.suffix in (".nc", ".zarr") else ".npy"
    with no_hang():
        assert name in cli.fail("predict", "local-dir:model", source, "-o", f"out{suffix}")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["model", path.parts[0]])


@pytest.mark.slow
@pytest.mark.parametrize("make", [pipe, dangling])
@pytest.mark.parametrize("name", DATASETS)
def test_special_file_in_a_data_set_is_an_error(tmp_path, make, name):
    """Whichever file it replaces, nothing hangs, and only files that are not needed are ignored."""
    write, _, commands = fuzz_files.FORMATS[name]
    (tmp_path / "in").mkdir()
    write(tmp_path / "in")
    files = sorted(path for path in (tmp_path / "in").rglob("*") if path.is_file())
    path = files[0]
    path.unlink()
    make(path)
    dataset = next(command[2] for command in commands if command[0] == "data")
    with no_hang(), pytest.raises(ZooError):
        scan(dataset, tmp_path / "in")


def test_pipe_is_not_converted(tmp_path):
    for name in ("a.pth", "a.safetensors"):
        os.mkfifo(tmp_path / name)
        with no_hang(), pytest.raises(DataError, match=name):
            read_tensors(tmp_path / name)


# Data sets


def test_rydl_with_impossible_times_is_an_error(tmp_path):
    with h5py.File(tmp_path / "RYDL.hdf5", "w") as file:
        file["999999999999"] = np.zeros((4, 4))
    with pytest.raises(DataError, match="999999999999"):
        scan("dwd", tmp_path)


def test_pgm_with_an_impossible_time_is_an_error(tmp_path):
    content = b"P5\n# obstime 999999999999\n8 8\n255\n" + bytes(64)
    (tmp_path / "a.pgm").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.pgm"):
        scan("fmi", tmp_path)


@pytest.mark.parametrize("dates", [[], ["2020-01-01"] * 3, ["NaT"] * 6, [["2020-01-01"]] * 6])
def test_meteonet_with_wrong_dates_is_an_error(tmp_path, dates):
    path = tmp_path / "rainfall_NW_2020_01.1.npz"
    np.savez(path, data=FRAMES[:, 0], dates=np.array(dates, "M8[s]"))
    with pytest.raises(DataError, match="rainfall_NW"):
        scan("meteonet", tmp_path)


def test_meteonet_with_nested_dates_does_not_hang(tmp_path):
    nested = [1]
    for _ in range(40):
        nested = [nested] * 4
    dates = np.empty(6, object)
    dates[:] = [nested] * 6
    path = tmp_path / "rainfall_NW_2020_01.1.npz"
    np.savez(path, data=FRAMES[:, 0], dates=dates)
    with no_hang(), pytest.raises(DataError, match="dates"):
        scan("meteonet", tmp_path)


@pytest.mark.parametrize(
    ("data", "dates"),
    [
        (np.zeros((48, 2, 4, 4), "f4"), [f"20150101{n:02}" for n in [1, *range(1, 48)]]),
        (np.zeros((0, 2, 4, 4), "f4"), []),
        (np.full((48, 2, 4, 4), b"rain"), [f"20150101{n:02}" for n in range(1, 49)]),
        (np.zeros((48, 2, 0, 4), "f4"), [f"20150101{n:02}" for n in range(1, 49)]),
    ],
    ids=["repeated", "none", "text", "no height"],
)
def test_taxibj_with_wrong_arrays_is_an_error(tmp_path, data, dates):
    with h5py.File(tmp_path / "BJ16_M32x32_T30_InOut.h5", "w") as file:
        file["data"], file["date"] = data, np.array(dates, "S10")
    with pytest.raises(DataError):
        scan("taxibj", tmp_path)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 8, 8)),
        np.zeros((6, 0, 8)),
        np.full((6, 8, 8), "rain"),
        np.zeros((6, 8, 8), complex),
        np.zeros((6, 8, 8), "M8[s]"),
        np.zeros((6, 8, 8), [("a", "f4")]),
        np.array(3.0),
        np.full((6, 8, 8), np.inf),
        np.full((6, 8, 8), np.nan),
    ],
    ids=["no frames", "no height", "text", "complex", "dates", "fields", "scalar", "inf", "nan"],
)
@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_arrays_without_frames_are_an_error(tmp_path, array, ending):
    path = tmp_path / f"a.{ending}"
    np.save(path, array) if ending == "npy" else np.savez(path, a=array)
    with pytest.raises(ZooError):
        scan("arrays", tmp_path)


def test_longdouble_arrays_are_read(tmp_path):
    np.save(tmp_path / "a.npy", FRAMES.astype(np.longdouble))
    scan("arrays", tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"length": 6', '"length": -6'),
        ('"length": 6', '"length": "six"'),
        ('"length": 6', '"length": 1e30'),
        ('"breaks": []', '"breaks": [99]'),
        ('"breaks": []', '"breaks": [-9]'),
        ('"stride": null', '"stride": -1'),
        ('"part": null', '"part": "all"'),
        ('"times": null', '"times": ["now"]'),
        ('"times": null', '"times": [1]'),
        ('"extremes": null', '"extremes": [[0]]'),
        ('"missing": false', '"missing": "x"'),
        ('"found": {', '"found": [{'),
        ('"options": {', '"options": [{'),
        ("{", "[" * 100_000),
        ("}", ""),
    ],
)
def test_damaged_frames_json_is_an_error(tmp_path, old, new):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    np.save(tmp_path / "in" / "a.npy", FRAMES)
    dataset = open_dataset("arrays", "train", root=tmp_path / "in", folder=".", frames=1)
    list(dataset.prepare(tmp_path / "out"))
    path = tmp_path / "out" / "frames.json"
    text = path.read_text()
    assert old in text
    scan("arrays", tmp_path / "out")
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(DataError, match="out"):
        scan("arrays", tmp_path / "out")


# Arrays of Python


@pytest.mark.parametrize(
    "frames",
    [
        torch.rand(6, 8, 8).to_sparse(),
        torch.quantize_per_tensor(torch.rand(6, 8, 8), 0.1, 0, torch.quint8),
        torch.nested.nested_tensor([torch.rand(6, 8, 8), torch.rand(5, 8, 8)]),
        torch.rand(6, 8, 8, device="meta"),
        torch.rand(6, 8, 8, dtype=torch.complex64),
        xarray.DataArray(FRAMES[:, 0], dims=("time", "y", "x")).to_dataset(name="rain"),
        xarray.Variable(("time", "y", "x"), FRAMES[:, 0]),
        xarray.DataArray(FRAMES[:, 0].astype(str), dims=("time", "y", "x")),
        xarray.DataArray(FRAMES, dims=("time", "y", "x", "channel")),
        xarray.DataArray(FRAMES, dims=("time", "channel", "y", "y")),
        xarray.DataArray(FRAMES[None], dims=("batch", "time", "member", "y", "x")),
        np.ma.masked_less(FRAMES, 0.5),
        FRAMES.astype(object),
        FRAMES.astype(str),
        FRAMES.astype("M8[s]"),
        FRAMES[:0],
        FRAMES[:, :0],
        FRAMES[..., :0],
        np.full_like(FRAMES, np.inf),
        np.full_like(FRAMES, np.nan),
        [[1.0]],
        None,
    ],
    ids=lambda frames: f"{type(frames).__name__}-{getattr(frames, 'dtype', '')}",
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_other_arrays_than_frames_are_not_predicted(frames):
    model = zoo.create("convlstm", hidden=2, layers=2)
    with pytest.raises(DataError):
        model.predict(frames, horizon=1)


@pytest.mark.parametrize("dtype", ["longdouble", "float16", "uint16", "uint32", "uint64", ">f8"])
def test_every_real_dtype_is_predicted(dtype):
    model = zoo.create("convlstm", hidden=2, layers=2)
    frames = (FRAMES > 0.5).astype(dtype)
    expected = model.predict(frames.astype(np.float32), horizon=1)
    assert np.array_equal(model.predict(frames, horizon=1), expected)


# Checkpoints


def recursive():
    checkpoint = {}
    checkpoint["state_dict"] = checkpoint
    return checkpoint


def deep():
    checkpoint = {"a": torch.ones(1)}
    for _ in range(200):
        checkpoint = {"model": checkpoint}
    return checkpoint


def expanded():
    return {"a": torch.ones(1).expand(10**6, 10**6)}


@pytest.mark.parametrize("make", [recursive, deep, expanded])
def test_hostile_checkpoint_is_an_error(tmp_path, make):
    torch.save(make(), tmp_path / "a.pth")
    with no_hang(), pytest.raises(DataError, match=r"a\.pth"):
        read_tensors(tmp_path / "a.pth")


def test_checkpoint_that_unpacks_to_gigabytes_is_an_error(tmp_path):
    torch.save({"a": torch.zeros(2**20)}, tmp_path / "a.pth")
    with (
        zipfile.ZipFile(tmp_path / "a.pth") as source,
        zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert (tmp_path / "b.pth").stat().st_size < 20_000
    with no_hang(), pytest.raises(DataError, match="compressed"):
        read_tensors(tmp_path / "b.pth")


# Outputs


@pytest.mark.parametrize(
    "name", ["absent/a.npy", "a.txt", "a", "folder.npy", "file/a.npy", "pipe.npy"]
)
def test_output_is_checked_before_the_input_is_read(tmp_path, cli, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("folder.npy").mkdir()
    Path("file").write_text("")
    os.mkfifo("pipe.npy")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr("zoo.hub.load", lambda *_, **__: pytest.fail("the model was loaded"))
    with no_hang():
        assert name in cli.fail("predict", "mslstm", "frames.npy", "-o", name)
    assert sorted(tmp_path.rglob("*")) == before


def test_store_does_not_replace_a_file(tmp_path):
    (tmp_path / "a.zarr").write_text("notes")
    with pytest.raises(ConfigError, match=r"a\.zarr"):
        check_writable(tmp_path / "a.zarr", [".zarr"])
    assert (tmp_path / "a.zarr").read_text() == "notes"


@pytest.mark.parametrize("name", ["absent/out", "dangling"])
def test_output_of_prepare_is_checked_before_the_data_are_read(tmp_path, cli, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("dangling").symlink_to("elsewhere")
    np.save("a.npy", FRAMES)
    monkeypatch.setattr("zoo.data.open_dataset", lambda *_, **__: pytest.fail("data were opened"))
    assert name in cli.fail("data", "prepare", "arrays", ".", "-o", name)
    assert not Path("elsewhere").exists()


# Mutations


@pytest.mark.slow
def test_mutated_files_give_an_error_of_one_line(tmp_path):
    """ZOO_FUZZ sets the number of cases."""
    command = [sys.executable, fuzz_files.__file__, "--cases", os.environ.get("ZOO_FUZZ", "200")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


class AnySize:
    """Unpickles to a bytearray of 8 GiB."""

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return bytearray, (2**33,)


@pytest.mark.parametrize("old", [True, False])
def test_checkpoint_cannot_allocate_a_bytearray(tmp_path: Path, old: bool) -> None:
    checkpoint = {"weight": torch.zeros(2), "more": AnySize()}
    torch.save(checkpoint, tmp_path / "it.pth", _use_new_zipfile_serialization=not old)
    with pytest.raises(DataError, match="bytearray"):
        read_tensors(tmp_path / "it.pth")


CODECS = ["Zstd", "Blosc", "LZ4", "GZip", "Zlib", "BZ2", "LZMA"]


@pytest.mark.parametrize("codec", CODECS)
def test_chunk_of_zarr_cannot_unpack_to_more_than_its_size(tmp_path: Path, codec: str) -> None:
    import numcodecs
    import zarr

    compressor = getattr(numcodecs, codec)()
    store = tmp_path / "it.zarr"
    array = zarr.create_array(
        store, shape=(4, 8, 8), chunks=(2, 8, 8), dtype="f4", zarr_format=2, compressors=compressor
    )
    array[:] = np.random.default_rng(0).random((4, 8, 8))
    assert set(check_zarr(store)) == {""}
    (store / "0.0.0").write_bytes(bytes(compressor.encode(np.zeros(10**6, np.uint8))))
    with pytest.raises(DataError, match=r"0\.0\.0"):
        check_zarr(store)


def test_zarr_of_the_newest_format_is_read(tmp_path: Path) -> None:
    import zarr

    array = zarr.create_array(
        tmp_path / "it.zarr", shape=(4, 8, 8), chunks=(2, 8, 8), dtype="f4", zarr_format=3
    )
    array[:] = 1
    assert set(check_zarr(tmp_path / "it.zarr")) == {""}

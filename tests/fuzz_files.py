"""Mutated files of every format, read by the commands that read them.

Each case changes one file of a small valid input and runs a command in a process of its own. It
must succeed, or fail with one line, within seconds and 2 GiB of memory, and write nothing but its
output. ``python tests/fuzz_files.py --cases 5000`` runs more than the tests do;
``--only NAME`` runs one format, and ``--keep FOLDER`` keeps the inputs of failed cases.
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

FRAMES = np.random.default_rng(0).integers(20, 230, (12, 16, 16), dtype=np.uint8)
TIMES = [datetime(2020, 1, 1) + timedelta(minutes=5 * i) for i in range(12)]
SECONDS = 20  # of processor time
WALL = 300  # seconds, however busy the machine is
MEMORY = 2 * 2**30

Write = Callable[[Path], object]


def arrays(folder: Path) -> None:
    np.save(folder / "a.npy", FRAMES / np.float32(255))


def packed(folder: Path) -> None:
    np.savez_compressed(folder / "a.npz", frames=FRAMES / np.float32(255))


def videos(suffix: str) -> Write:
    def write(folder: Path) -> None:
        from zoo.data.files import write_frames

        path = folder / f"a.{suffix}"
        if suffix in ("gif", "mp4"):
            write_frames(path, FRAMES[:, None] / 255)
        else:
            import av

            with av.open(str(path), "w") as container:
                stream = container.add_stream("mpeg4", rate=10)
                stream.width = stream.height = 16
                stream.pix_fmt = "yuv420p"
                for frame in FRAMES:
                    picture = av.VideoFrame.from_ndarray(frame, format="gray")
                    container.mux(stream.encode(picture))
                container.mux(stream.encode())

    return write


def pictures(suffix: str) -> Write:
    def write(folder: Path) -> None:
        from PIL import Image

        for i, frame in enumerate(FRAMES[:4]):
            Image.fromarray(frame).save(folder / f"{i}.{suffix}")

    return write


def labeled(suffix: str) -> Write:
    def write(folder: Path) -> None:
        import xarray

        from zoo.labeled import write_labeled

        array = xarray.DataArray(
            FRAMES / np.float32(255),
            {"time": np.array(TIMES, "M8[ns]")},
            ("time", "y", "x"),
            "rain",
            {"units": "1"},
        )
        write_labeled(folder / f"a.{suffix}", array)

    return write


def hdf5(folder: Path) -> None:
    import h5py

    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("frames", data=FRAMES, chunks=(4, 16, 16), compression="gzip")


def dwd(folder: Path) -> None:
    for time_, frame in zip(TIMES, FRAMES, strict=True):
        header = f"RY{time_:%d%H%M}10000{time_:%m%y}BY{2 * frame.size:7}VS 3SW   2.21.0PR E-02"
        header += "INT   5GP  16x  16MS 10<asb,boo>"
        content = header.encode() + b"\x03" + frame.astype("<u2").tobytes()
        path = folder / f"raa01-ry_10000-{time_:%y%m%d%H%M}-dwd---bin"
        if time_.minute % 2:
            path = path.with_name(f"{path.name}.gz")
            content = gzip.compress(content)
        path.write_bytes(content)


def rydl(folder: Path) -> None:
    import h5py

    with h5py.File(folder / "RYDL.hdf5", "w") as file:
        for time_, frame in zip(TIMES, FRAMES, strict=True):
            file[f"2014{time_:%m%d%H%M}"] = frame / np.float32(100)


def odim(folder: Path) -> None:
    import h5py

    for time_, frame in zip(TIMES[:4], FRAMES, strict=False):
        with h5py.File(folder / f"{time_:%H%M}.h5", "w") as file:
            file.create_group("what").attrs.update(date=f"{time_:%Y%m%d}", time=f"{time_:%H%M%S}")
            file.create_group("where").attrs["xscale"] = 2000.0
            file.create_group("dataset1/what")
            inner = file.create_group("dataset1/data1/what")
            inner.attrs.update(quantity="DBZH", nodata=255.0, undetect=0.0, gain=0.5, offset=-32.0)
            file.create_dataset("dataset1/data1/data", data=frame, compression="gzip")


def knmi(folder: Path) -> None:
    import h5py

    for time_, frame in zip(TIMES[:4], FRAMES, strict=False):
        with h5py.File(folder / f"RAD_NL25_{time_:%H%M}.h5", "w") as file:
            start = time_ - timedelta(minutes=5)
            file.create_group("overview").attrs.update(
                product_datetime_start=f"{start:%d-%b-%Y;%H:%M:%S}.000",
                product_datetime_end=f"{time_:%d-%b-%Y;%H:%M:%S}.000",
            )
            file.create_group("geographic").attrs["geo_pixel_size_x"] = 1.0
            image = file.create_group("image1")
            image.attrs.update(image_geo_parameter="PRECIP_[MM]", image_product_name="RAC")
            image.create_group("calibration").attrs.update(
                calibration_formulas="GEO=0.01*PV+0.0", calibration_missing_data=255
            )
            image.create_dataset("image_data", data=frame, compression="gzip")


def fmi(folder: Path) -> None:
    for time_, frame in zip(TIMES, FRAMES, strict=True):
        head = (
            f"P5\n# obstime {time_:%Y%m%d%H%M}\n# param X\n# metersperpixel_x 999.5\n16 16\n255\n"
        )
        content = head.encode() + frame.tobytes()
        if time_.minute % 2:
            (folder / f"{time_:%H%M}.pgm.gz").write_bytes(gzip.compress(content))
        else:
            (folder / f"{time_:%H%M}.pgm").write_bytes(content)


def meteonet(folder: Path) -> None:
    times = np.array(TIMES, object)
    path = folder / "rainfall_NW_2020_01.1.npz"
    np.savez_compressed(path, data=FRAMES.astype(np.int16), dates=times)


def grids(folder: Path) -> None:
    import xarray

    for time_, frame in zip(TIMES[:4], FRAMES, strict=False):
        end = np.datetime64(time_, "ns")
        dataset = xarray.Dataset(
            {
                "rain": (("y", "x"), frame / np.float32(10), {"units": "mm"}),
                "valid_time": ((), end, {"standard_name": "time"}),
                "start_time": ((), end - np.timedelta64(5, "m")),
            },
            {axis: (axis, np.arange(16.0), {"units": "km"}) for axis in "yx"},
        )
        dataset.to_netcdf(folder / f"{time_:%H%M}.nc", engine="h5netcdf")


def grib(folder: Path) -> None:
    from test_data_grids import grib

    for minute in (0, 2, 4):
        (folder / f"{minute}.grib2").write_bytes(grib(minute))


def taxibj(folder: Path) -> None:
    import h5py

    days = np.datetime64("2015-01-01") + np.arange(30)
    dates = [f"{str(day).replace('-', '')}{n:02}".encode() for day in days for n in range(1, 49)]
    flow = np.random.default_rng(0).random((len(dates), 2, 8, 8), np.float32)
    with h5py.File(folder / "BJ16_M32x32_T30_InOut.h5", "w") as file:
        file["data"], file["date"] = flow, np.array(dates)


def kth(folder: Path) -> None:
    lines = []
    for person in (1, 17):
        videos("avi")(folder)
        name = f"person{person:02}_walking_d1"
        target = folder / f"{name}_uncomp.avi"
        (folder / "a.avi").rename(target)
        lines.append(f"{name}\t\tframes\t1-6, 7-12\n")
    with zipfile.ZipFile(folder / "walking.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(target, "person16_walking_d1_uncomp.avi")
    lines.append("person16_walking_d1\t\tframes\t2-12\n")
    (folder / "00sequences.txt").write_text("".join(lines))


def mnist(folder: Path) -> None:
    from conftest import TEST, TRAIN, idx

    digits = np.random.default_rng(0).integers(0, 255, (9, 28, 28), dtype=np.uint8)
    (folder / f"{TRAIN}.gz").write_bytes(gzip.compress(idx(digits)))
    (folder / TEST).write_bytes(idx(digits))


def prepared(folder: Path) -> None:
    from zoo.data import open_dataset

    source = folder.parent / "source"
    source.mkdir()
    arrays(source)
    dataset = open_dataset("arrays", "train", root=source, folder=".", frames=2)
    list(dataset.prepare(folder))
    shutil.rmtree(source)


def checkpoint(suffix: str) -> Write:
    def write(folder: Path) -> None:
        import torch
        from safetensors.torch import save_file
        from test_convert import publish

        tensors = {name: value.contiguous() for name, value in publish("predrnn", layers=3).items()}
        if suffix == "safetensors":
            save_file(tensors, folder / "a.safetensors")
        else:
            torch.save({"state_dict": tensors}, folder / f"a.{suffix}")

    return write


def predict(suffix: str) -> list[str]:
    return ["predict", "MODEL", f"IN/a.{suffix}", "--horizon", "1", "-o", f"OUT/a.{suffix}"]


def check(name: str) -> list[str]:
    return ["data", "check", name, "IN", "--frames", "3"]


def evaluate(name: str) -> list[str]:
    options = ["--input-frames", "2", "--horizon", "1", "--sequences", "2", "--split", "train"]
    return ["eval", "MODEL", "--data", name, *options, "--data-dir", "ROOT"]


def prepare(name: str) -> list[str]:
    return ["data", "prepare", name, "IN", "--frames", "3", "-o", "OUT/frames"]


def reads(name: str) -> list[list[str]]:
    return [check(name), check(name), prepare(name), evaluate(name)]


VIDEO = [*predict("gif")[:-1], "OUT/a.npy", "--size", "original"]
PICTURES = ["predict", "MODEL", "IN", "--horizon", "1", "-o", "OUT/a.png"]
CONVERT = ["convert", "msrnn", "IN/a.pth", "--arch", "predrnn", "-o", "OUT/model"]

#: How each format is written, the folder of its data set, and the commands that read it.
FORMATS: dict[str, tuple[Write, str, list[list[str]]]] = {
    "npy": (arrays, "arrays", [predict("npy"), *reads("arrays")]),
    "npz": (packed, "arrays", [predict("npz"), *reads("arrays")]),
    "h5": (hdf5, "arrays", reads("arrays")),
    "nc": (labeled("nc"), "arrays", [predict("nc"), predict("nc"), *reads("arrays")]),
    "zarr": (labeled("zarr"), "arrays", [predict("zarr"), predict("zarr"), *reads("arrays")]),
    "gif": (videos("gif"), "video", [VIDEO, *reads("video")]),
    **{
        name: (
            videos(name),
            "video",
            [[*VIDEO[:2], f"IN/a.{name}", *VIDEO[3:]], *reads("video")],
        )
        for name in ("mp4", "avi", "mkv")
    },
    **{
        name: (pictures(name), "video", [PICTURES, *reads("video")])
        for name in ("png", "jpg", "bmp", "tif", "pgm")
    },
    "dwd": (dwd, "radar/dwd", reads("dwd")),
    "rydl": (rydl, "radar/dwd", reads("dwd")),
    "odim": (odim, "radar/odim", reads("odim")),
    "knmi": (knmi, "radar/knmi", reads("knmi")),
    "fmi": (fmi, "radar/fmi", reads("fmi")),
    "meteonet": (meteonet, "radar/meteonet", reads("meteonet")),
    "grids": (grids, "grids", reads("grids")),
    "grib": (grib, "grids", reads("grids")),
    "taxibj": (taxibj, "taxibj", reads("taxibj")),
    "kth": (kth, "kth", reads("kth")),
    "mmnist": (mnist, "mnist", [["data", "check", "mmnist", "IN", "--set", "sequences=4"]]),
    "prepared": (prepared, "arrays", reads("arrays")),
    "pth": (checkpoint("pth"), "model", [CONVERT]),
    "safetensors": (
        checkpoint("safetensors"),
        "model",
        [["convert", "msrnn", "IN/a.safetensors", *CONVERT[3:]]],
    ),
}

#: Numbers that headers announce.
NUMBERS = [b"0", b"-1", b"1", b"3", b"65536", b"99999999", b"999999999999", b"1e309", b"NaN"]
WORDS = [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\1\0\0"]


def change_bytes(content: bytes, rng: random.Random) -> bytes:
    """Return the bytes with one change."""
    place, size = rng.randrange(len(content) + 1), rng.choice([1, 2, 4, 8, 64])
    before, after = content[:place], content[place:]
    kind = rng.choice(["cut", "bit", "bit", "set", "drop", "add", "word", "number", "head", "text"])
    if kind == "cut":
        return before
    if kind == "bit" and after:
        return before + bytes([after[0] ^ (1 << rng.randrange(8))]) + after[1:]
    if kind == "drop":
        return before + after[size:]
    if kind == "add":
        return before + rng.randbytes(size) + after
    if kind == "word":
        return before + (word := rng.choice(WORDS)) + after[len(word) :]
    if kind == "head":  # most of what is announced is at the start
        return change_bytes(content[:200], rng) + content[200:]
    numbers = list(re.finditer(rb"\d+", content[:20_000]))
    if kind == "number" and numbers:
        match = rng.choice(numbers)
        return content[: match.start()] + rng.choice(NUMBERS) + content[match.end() :]
    texts = list(re.finditer(rb"[A-Za-z_]{3,}", content[:20_000]))
    if kind == "text" and texts:
        match = rng.choice(texts)
        new = rng.choice([b"", b"x" * len(match[0]), b"null", match[0][::-1]])
        return content[: match.start()] + new + content[match.end() :]
    return before + rng.randbytes(min(size, len(after))) + after[size:]


def change_inside(path: Path, rng: random.Random) -> None:
    """Change what a compressed file contains, and compress it again."""
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(change_bytes(gzip.decompress(path.read_bytes()), rng)))
        return
    with zipfile.ZipFile(path) as archive:
        members = {info: archive.read(info) for info in archive.infolist()}
    chosen = rng.choice(list(members))
    with zipfile.ZipFile(path, "w") as archive:
        for info, content in members.items():
            changed = change_bytes(content, rng) if info is chosen else content
            archive.writestr(info.filename, changed, info.compress_type)


def odd_array(like: np.ndarray, rng: random.Random) -> np.ndarray:
    """Return an array of another shape, dtype or content."""
    kind = rng.choice(["empty", "short", "flat", "scalar", "axis", "dtype", "fill", "transpose"])
    if kind == "empty":
        return like[:0] if like.ndim else np.zeros(0)
    if kind == "short":
        return like[:1] if like.ndim else like
    if kind == "flat":
        return like.ravel()
    if kind == "scalar":
        return np.array(3.0)
    if kind == "axis":
        return like[None]
    if kind == "transpose":
        return like.T
    if kind == "dtype":
        dtype = rng.choice(["S10", "c8", "f2", "f8", "i8", "u8", "bool", ">i2", "longdouble"])
        return np.zeros(like.shape, dtype)
    value = rng.choice([np.nan, np.inf, -np.inf, -1e30, 1e300, 0.0])
    return np.full(like.shape, value)


def change_values(path: Path, rng: random.Random) -> None:
    """Replace an array or an attribute of a file."""
    if path.suffix == ".npy":
        np.save(path, odd_array(np.load(path), rng))
    elif path.suffix == ".npz":
        with np.load(path, allow_pickle=True) as archive:
            arrays = {name: archive[name] for name in archive.files}
        name = rng.choice(list(arrays))
        arrays[name] = odd_array(arrays[name], rng)
        np.savez(path, **arrays)
    else:
        change_hdf5(path, rng)


def change_hdf5(path: Path, rng: random.Random) -> None:
    """Replace or remove an array, a group or an attribute of an HDF5 file."""
    import h5py

    with h5py.File(path, "a") as file:
        items: list[str] = []
        file.visit(items.append)
        attributes = [(n, key) for n in ["/", *items] for key in file[n].attrs]
        if attributes and rng.random() < 0.5:
            name, key = rng.choice(attributes)
            odd = ["", "text", b"\xff\xfe", -1, 0, 1e308, np.nan, [], [1, 2], 10**12, None]
            value = rng.choice(odd)
            del file[name].attrs[key]
            if value is not None:
                file[name].attrs[key] = value
            return
        name = rng.choice(items)
        item = file[name]
        array = item[()] if isinstance(item, h5py.Dataset) else np.zeros((4, 4))
        del file[name]
        if rng.random() < 0.8:
            file[name] = odd_array(np.asarray(array), rng)


def replace(path: Path, rng: random.Random) -> None:
    """Put something else at the place of a file."""
    kind = rng.choice(["pipe", "folder", "dangling", "empty", "zeros", "playlist", "eps", "gone"])
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "dangling":
        path.symlink_to("nowhere")
    elif kind != "gone":
        contents = {
            "empty": b"",
            "zeros": bytes(5000),
            "playlist": b"ffconcat version 1.0\nfile /etc/hostname\n",
            "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        }
        path.write_bytes(contents[kind])


def mutate(folder: Path, rng: random.Random) -> str:
    """Change one file of a folder; return its name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = rng.choice(files)
    if rng.random() < 0.05:
        replace(path, rng)
    elif path.suffix in (".npy", ".npz", ".h5", ".hdf5", ".nc") and rng.random() < 0.5:
        change_values(path, rng)
    elif path.suffix in (".gz", ".npz", ".zip", ".pth") and rng.random() < 0.6:
        change_inside(path, rng)
    else:
        content = path.read_bytes()
        for _ in range(rng.choice([1, 1, 1, 2, 5])):
            content = change_bytes(content, rng)
        path.write_bytes(content)
    return str(path.relative_to(folder))


def run(arguments: list[str]) -> str:
    """Run a command in this process; return "" if it succeeds or fails with one line."""
    from click.testing import CliRunner

    from zoo.cli import zoo

    result = CliRunner().invoke(zoo, arguments)
    if isinstance(result.exception, SystemExit):
        lines = [line for line in result.stderr.splitlines() if not line.startswith("Warning: ")]
        errors = [line for line in lines if line.startswith("Error: ")]
        if result.exit_code == 2 and len(errors) == len(lines) == 1:
            return ""
        return f"exit code {result.exit_code}: {result.stderr[-300:]}"
    if result.exception is None:
        return ""
    assert result.exc_info is not None
    return "".join(traceback.format_exception(*result.exc_info))[-3000:]


def in_child(work: Callable[[], str]) -> tuple[str, float]:
    """Call a function in a process of its own, within limits of time and memory.

    Returns:
        The text that it returns, or why it failed, and the memory in bytes.
    """
    with tempfile.TemporaryFile() as output:
        if (child := os.fork()) == 0:
            signal.alarm(WALL)
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
            resource.setrlimit(resource.RLIMIT_AS, (24 * 2**30, 24 * 2**30))
            try:
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, 1)
                os.dup2(null, 2)
                with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                    text = work()
            except BaseException:
                text = traceback.format_exc()
            os.write(output.fileno(), text.encode(errors="replace"))
            os._exit(0)
        _, status, usage = os.wait4(child, 0)
        output.seek(0)
        text = output.read().decode(errors="replace")
    memory = usage.ru_maxrss * 1024
    if os.WIFSIGNALED(status):
        text = f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    elif memory > MEMORY:
        text = text or f"{memory / 2**30:.1f} GiB"
    return text, memory


def one_case(seeds: Path, name: str, seed: int, keep: Path | None) -> str:
    """Run a case; return "" or why it failed."""
    rng = random.Random(f"{name} {seed}")
    _, place, commands = FORMATS[name]
    with tempfile.TemporaryDirectory() as temporary:
        here = Path(temporary)
        source = here / "data" / place
        shutil.copytree(seeds / name, source)
        (here / "out").mkdir()
        if seed:  # 0 is the valid input
            mutate(source, rng)
        names = {
            "MODEL": f"local-dir:{seeds / 'model'}",
            "ROOT": str(here / "data"),
            "IN": str(source),
            "OUT": str(here / "out"),
        }
        command = rng.choice(commands)
        pattern = re.compile(r"^(MODEL|ROOT|IN|OUT)\b")
        arguments = [pattern.sub(lambda match: names[match[1]], word) for word in command]
        before = sorted(source.parent.rglob("*"))
        problem, _ = in_child(lambda: run(arguments))
        if not problem and sorted(source.parent.rglob("*")) != before:
            problem = "files were written next to the input"
        if not problem and {path.name for path in here.iterdir()} != {"data", "out"}:
            problem = "files were written outside of the output"
        if problem and keep:
            target = keep / f"{name}-{seed}"
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target, symlinks=True, copy_function=_copy_regular)
            (keep / f"{name}-{seed}.txt").write_text(f"{' '.join(arguments)}\n\n{problem}")
        return f"{name} {seed}: {' '.join(command)}\n{problem}" if problem else ""


def _copy_regular(source: str, target: str) -> None:
    if os.path.isfile(source):
        shutil.copy2(source, target)


def write_seeds(folder: Path) -> str:
    """Write the valid inputs, and a small model."""
    import zoo

    for name, (write, _, _) in FORMATS.items():
        (folder / name).mkdir()
        write(folder / name)
    zoo.save(zoo.create("ms-convlstm", hidden=2, layers=3), folder / "model")
    return ""


def fuzz(
    cases: int, start: int = 1, only: str | None = None, keep: Path | None = None
) -> list[str]:
    """Run cases of all formats in turn; return why cases failed."""
    # Each child starts with everything imported. Nothing is called before: zarr starts a thread.
    import av  # noqa: F401
    import h5netcdf  # noqa: F401
    import h5py  # noqa: F401
    import PIL.Image  # noqa: F401
    import torch
    import xarray  # noqa: F401
    import zarr  # noqa: F401

    import zoo.cli.predict
    import zoo.convert
    import zoo.data.series
    import zoo.evaluate
    import zoo.hub  # noqa: F401

    torch.set_num_threads(1)
    names = [name for name in FORMATS if only in (None, name)]
    problems = []
    with tempfile.TemporaryDirectory() as temporary:
        problem, _ = in_child(lambda: write_seeds(Path(temporary)))
        if problem:
            return [problem]
        for seed in range(start, start + -(-cases // len(names))):
            for name in names:
                if problem := one_case(Path(temporary), name, seed, keep):
                    problems.append(problem)
    return problems


def main() -> None:
    """Fuzz as the command line says; exit with 1 if a case failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--start", type=int, default=0, help="the first seed; 0 is the valid input")
    parser.add_argument("--only", choices=FORMATS)
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    started = time.monotonic()
    if arguments.keep:
        arguments.keep.mkdir(parents=True, exist_ok=True)
    problems = fuzz(arguments.cases, arguments.start, arguments.only, arguments.keep)
    for problem in problems:
        print(problem, end="\n\n")
    last = Counter(problem.rstrip().splitlines()[-1][:120] for problem in problems)
    for line, count in last.most_common():
        print(f"{count:5}  {line}")
    seconds = time.monotonic() - started
    print(f"{arguments.cases} cases, {len(problems)} failed, {seconds:.0f} s")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()

"""Frames from files and to files, and errors of every bad file."""

import contextlib
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from zoo.atomic import atomic_folder, atomic_path
from zoo.data.files import check_writable, read_frames, to_pixels, write_frames
from zoo.errors import ConfigError, DataError, ZooError


def moving(t=5, c=1, h=16, w=24):
    """Return a soft blob that moves to the right: (T, C, H, W) in 0..1."""
    y, x = np.mgrid[:h, :w]
    frames = [np.exp(-((y - h / 2) ** 2 + (x - 3 - 3 * i) ** 2) / 20) for i in range(t)]
    return np.repeat(np.stack(frames)[:, None], c, axis=1).astype(np.float32)


def as_bytes(frames):
    return np.rint(frames * 255).astype(np.uint8)


def rejected(named, kind=DataError):
    """Expect an error of one line that contains `named`."""
    return pytest.raises(kind, match=r"\A[^\n]*" + re.escape(named) + r"[^\n]*\Z")


# Arrays


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "int16", ">f4", "bool"])
@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((4, 6, 5), (4, 1, 6, 5)),
        ((4, 1, 6, 5), (4, 1, 6, 5)),
        ((2, 4, 1, 6, 5), (2, 4, 1, 6, 5)),
    ],
)
def test_arrays_keep_values_and_dtype(tmp_path, dtype, shape, expected):
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    frames = read_frames(str(tmp_path / "a.npy"), channels=1)
    assert frames.shape == expected
    assert frames.dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(frames.reshape(shape), array)


def test_npz_by_key(tmp_path):
    one, two = tmp_path / "one.npz", tmp_path / "two.npz"
    np.savez(one, clip=moving())
    np.savez(two, first=moving(3), second=moving(4))
    np.savez(tmp_path / "none.npz")
    assert len(read_frames(one, channels=1)) == 5
    assert len(read_frames(f"{one}:clip", channels=1)) == 5
    assert len(read_frames(Path(f"{two}:second"), channels=1)) == 4
    with rejected("first, second"):
        read_frames(two, channels=1)
    with rejected("first, second"):
        read_frames(f"{two}:third", channels=1)
    with rejected("none.npz"):
        read_frames(tmp_path / "none.npz", channels=1)


@pytest.mark.parametrize(
    ("array", "named"),
    [
        (np.zeros((0, 8, 8)), "(0, 8, 8)"),
        (np.zeros((3, 1, 0, 8)), "(3, 1, 0, 8)"),
        (np.zeros((8, 8)), "(8, 8)"),
        (np.zeros((1, 1, 1, 1, 8, 8)), "(B, T, C, H, W)"),
        (np.zeros((3, 2, 8, 8)), "2 channels, expected 1"),
        (np.zeros((3, 8, 8, 1)), "np.moveaxis"),
        (np.full((3, 8, 8), "x"), "<U1"),
        (np.zeros((3, 8, 8), complex), "complex128"),
        (np.zeros((3, 8, 8), "datetime64[s]"), "datetime64[s]"),
        (np.zeros((3, 8, 8), [("a", "f4")]), "('a', '<f4')"),
        (np.full((3, 8, 8), None), "Python objects"),
    ],
)
@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_bad_arrays_are_rejected(tmp_path, array, named, ending):
    path = tmp_path / f"a.{ending}"
    (np.save if ending == "npy" else np.savez)(path, array)
    with rejected(named):
        read_frames(path, channels=1)


def test_arrays_are_not_resized(tmp_path):
    np.save(tmp_path / "a.npy", moving())
    assert read_frames(tmp_path / "a.npy", channels=1, size=(16, 24)).shape == (5, 1, 16, 24)
    with rejected("8 × 8"):
        read_frames(tmp_path / "a.npy", channels=1, size=(8, 8))


# Videos


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(16, 24), (17, 23)])
def test_mp4_round_trip(tmp_path, channels, shape):
    frames = moving(5, channels, *shape)
    write_frames(tmp_path / "a.mp4", frames, fps=12.5)
    back = read_frames(tmp_path / "a.mp4", channels=channels)
    height, width = shape
    assert back.shape == (5, channels, height + height % 2, width + width % 2)
    assert back.dtype == np.uint8
    off = back[..., :height, :width].astype(int) - as_bytes(frames)
    assert np.abs(off).mean() < 4  # the codec loses a little


def test_mp4_without_h264(tmp_path, monkeypatch):
    import av

    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"libx264"})
    write_frames(tmp_path / "a.mp4", moving())
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"
    assert read_frames(tmp_path / "a.mp4", channels=1).shape == (5, 1, 16, 24)


@pytest.mark.parametrize("ending", ["avi", "mkv", "mov"])
def test_videos_in_other_containers_are_read(tmp_path, ending):
    import av

    path = tmp_path / f"a.{ending.upper()}"
    with av.open(str(path), "w", format="matroska" if ending == "mkv" else ending) as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for picture in as_bytes(moving(4, 3, 32, 32)).transpose(0, 2, 3, 1):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert read_frames(path, channels=3, size=(8, 12)).shape == (4, 3, 8, 12)


def test_bytes_are_pixels():
    values = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    assert np.array_equal(to_pixels(values, 0, 255), values)
    assert np.array_equal(to_pixels(values.astype(np.float32), 0, 255), values)
    assert np.array_equal(to_pixels(values, 0, 51), (5 * values.astype(int)).clip(max=255))


def test_gray_gif_is_lossless(tmp_path):
    write_frames(tmp_path / "a.gif", moving())
    np.testing.assert_array_equal(read_frames(tmp_path / "a.gif", channels=1), as_bytes(moving()))
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.info["loop"] == 0
        assert gif.info["duration"] == 100


def test_resizing_averages(tmp_path):
    stripes = np.zeros((3, 1, 16, 16))
    stripes[..., ::2] = 1
    stripes[1] *= 0.5
    write_frames(tmp_path / "a.gif", stripes)
    means = read_frames(tmp_path / "a.gif", channels=1, size=(4, 4))
    np.testing.assert_allclose(means[[0, 1]].mean((1, 2, 3)), [127.5, 64], atol=3)


def test_videos_with_two_channels_are_rejected(tmp_path):
    write_frames(tmp_path / "a.gif", moving())
    with rejected("expected 2"):
        read_frames(tmp_path / "a.gif", channels=2)


def test_a_file_with_only_sound_is_rejected(tmp_path):
    import av

    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        sound.rate = 8000
        container.mux(stream.encode(sound))
    with rejected("a.mkv: contains no video"):
        read_frames(tmp_path / "a.mkv", channels=1)


# Folders


def save_pictures(folder, names, mode="L", size=(8, 6)):
    folder.mkdir(exist_ok=True)
    for i, name in enumerate(names):
        Image.new(mode, size, i if mode == "L" else (i, 0, 0)).save(folder / name)


def test_pictures_are_read_in_natural_order(tmp_path):
    save_pictures(tmp_path / "f", ["f1.png", "f2.bmp", "F9.pgm", "f10.tiff", "f0100.TIF"])
    (tmp_path / "f" / "notes.txt").write_text("no picture")
    (tmp_path / "f" / "._f1.png").write_text("no picture either")
    frames = read_frames(tmp_path / "f", channels=1)
    assert frames.shape == (5, 1, 6, 8)
    assert frames[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert read_frames(tmp_path / "f", channels=3, size=(3, 4)).shape == (5, 3, 3, 4)


def test_folder_of_color_pictures(tmp_path):
    save_pictures(tmp_path / "f", ["1.png", "2.png"], mode="RGB")
    assert read_frames(tmp_path / "f", channels=3)[1, :, 0, 0].tolist() == [1, 0, 0]
    with rejected("expected 4"):
        read_frames(tmp_path / "f", channels=4)


def test_bad_folders_are_rejected(tmp_path):
    folder = tmp_path / "f"
    folder.mkdir()
    with rejected(".png"):
        read_frames(folder, channels=1)
    save_pictures(folder, ["1.png", "2.png"])
    save_pictures(folder, ["3.png"], size=(9, 6))
    with rejected("3.png: is 6 × 9, but 1.png is 6 × 8"):
        read_frames(folder, channels=1)
    Image.fromarray(np.full((6, 8), 1000, np.uint16)).save(folder / "3.png")
    with rejected("8 bits"):
        read_frames(folder, channels=1)
    (folder / "3.png").write_bytes((folder / "1.png").read_bytes()[:-30])
    with rejected("3.png"):
        read_frames(folder, channels=1)


# Missing files and files of another type


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.npz:key", "a.mp4", "a", "x" * 300, ""])
def test_missing_files_are_named(tmp_path, name):
    with rejected(name.partition(":")[0] if name else ".png"):
        read_frames(f"{tmp_path}/{name}", channels=1)


@pytest.mark.parametrize("name", ["a.txt", "a.png", "a", "a.h5"])
def test_unknown_suffixes_are_rejected(tmp_path, name):
    (tmp_path / name).write_bytes(b"what")
    with rejected("unknown suffix"):
        read_frames(tmp_path / name, channels=1)


@pytest.mark.parametrize("ending", ["npy", "npz", "mp4", "avi", "mkv", "mov", "webm", "gif"])
@pytest.mark.parametrize("content", [b"", b"nonsense " * 50, pickle.dumps({"a": 1})])
def test_nonsense_is_rejected(tmp_path, ending, content):
    path = tmp_path / f"a.{ending}"
    path.write_bytes(content)
    with rejected(f"a.{ending}") as caught:
        read_frames(path, channels=1)
    assert "unsafe" not in str(caught.value)


@pytest.mark.slow
@given(cut=st.floats(0, 0.999), flip=st.integers(0, 10**6), ending=st.sampled_from(["npy", "npz"]))
@settings(max_examples=60, deadline=None)
def test_corrupt_arrays_are_read_or_rejected(tmp_path_factory, cut, flip, ending):
    path = tmp_path_factory.mktemp("d") / f"a.{ending}"
    write_frames(path, moving(2))
    content = bytearray(path.read_bytes())
    content[flip % len(content)] ^= 0xFF
    path.write_bytes(content)
    with contextlib.suppress(ZooError):
        read_frames(path, channels=1)
    path.write_bytes(content[: int(len(content) * cut)])
    with pytest.raises(ZooError):
        read_frames(path, channels=1)


@pytest.mark.parametrize("ending", ["mp4", "gif"])
@pytest.mark.parametrize("cut", [0.1, 0.5, 0.9])
def test_truncated_videos_are_read_or_rejected(tmp_path, ending, cut):
    path = tmp_path / f"a.{ending}"
    write_frames(path, moving())
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * cut)])
    with contextlib.suppress(ZooError):
        assert 0 < len(read_frames(path, channels=1)) <= 5


# Writing


@pytest.mark.parametrize("shape", [(3, 2, 5, 4), (2, 3, 1, 5, 4)])
@pytest.mark.parametrize("ending", ["npy", "npz", "NPY"])
def test_arrays_are_written_unchanged(tmp_path, shape, ending):
    frames = np.random.default_rng(0).normal(size=shape)
    write_frames(tmp_path / f"a.{ending}", frames, low=3, high=2)
    np.testing.assert_array_equal(read_frames(tmp_path / f"a.{ending}", channels=shape[-3]), frames)
    if ending == "npz":
        assert np.load(tmp_path / "a.npz").files == ["frames"]


def test_png_shows_frames_side_by_side(tmp_path):
    frames = np.stack([np.zeros((2, 1, 4, 5)), np.ones((2, 1, 4, 5))])
    write_frames(tmp_path / "a.png", frames, scale=3)
    strip = np.asarray(Image.open(tmp_path / "a.png"))
    assert strip.shape == (2 * 12 + 2, 2 * 15 + 2)
    assert strip[0, 0] == 0
    assert strip[-1, -1] == 255
    assert (strip[:, 15:17] == 128).all()
    write_frames(tmp_path / "a.png", moving(4, 3))
    assert np.asarray(Image.open(tmp_path / "a.png")).shape == (16, 4 * 24 + 3 * 2, 3)


@pytest.mark.parametrize("ending", ["gif", "mp4"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sequences_of_a_batch_are_rows(tmp_path, ending, channels):
    batch = np.stack([moving(4, channels)] * 3)
    write_frames(tmp_path / f"a.{ending}", batch, scale=2)
    back = read_frames(tmp_path / f"a.{ending}", channels=channels)
    assert back.shape == (4, channels, 3 * 32 + 2 * 2, 48)


def test_units_are_mapped_and_clipped(tmp_path):
    values = np.array([[-50.0, 0.0, 20.0, 40.0, 99.0, np.nan, np.inf, -np.inf]])
    write_frames(tmp_path / "a.png", values[None, None], low=0, high=40)
    picture = np.asarray(Image.open(tmp_path / "a.png"))
    assert picture.tolist() == [[0, 0, 128, 255, 255, 0, 255, 0]]


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float16", "bool"])
def test_all_numeric_dtypes_are_drawn(tmp_path, dtype):
    frames = np.zeros((2, 1, 4, 4), dtype)
    frames[1] = 1
    write_frames(tmp_path / "a.gif", frames)
    assert read_frames(tmp_path / "a.gif", channels=1)[:, 0, 0, 0].tolist() == [0, 255]


@pytest.mark.parametrize("ending", ["gif", "mp4", "png"])
def test_pictures_need_one_or_three_channels(tmp_path, ending):
    with rejected("2 channels"):
        write_frames(tmp_path / f"a.{ending}", moving(3, 2))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "frames",
    [np.zeros((3, 8, 8)), np.zeros((0, 1, 8, 8)), np.full((2, 1, 4, 4), None), np.zeros(3)],
)
@pytest.mark.parametrize("ending", ["gif", "npy"])
def test_other_arrays_than_frames_are_not_written(tmp_path, frames, ending):
    with rejected("(T, C, H, W)"):
        write_frames(tmp_path / f"a.{ending}", frames)


@pytest.mark.parametrize(
    "options", [{"low": 1}, {"high": np.nan}, {"fps": 0}, {"fps": np.nan}, {"scale": 0}]
)
def test_invalid_options_are_rejected(tmp_path, options):
    with rejected("low < high", ConfigError):
        write_frames(tmp_path / "a.gif", moving(), **options)


def test_paths_that_cannot_be_written_are_rejected(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "a.npy").mkdir()
    for path, named in [
        ("a.txt", ".txt"),
        ("a", "suffix"),
        ("no/a.gif", f"mkdir -p {tmp_path}/no"),
        ("file/a.gif", "is a file"),
        ("a.npy", "is a folder"),
        ("x" * 300 + "/a.gif", "does not exist"),
    ]:
        with rejected(named, ConfigError):
            check_writable(tmp_path / path)
        with rejected(named, ConfigError):
            write_frames(tmp_path / path, moving())
    with rejected("x" * 300, ZooError):
        write_frames(tmp_path / ("x" * 300 + ".gif"), moving())
    check_writable(tmp_path / "new.gif")
    check_writable("new.gif")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npy", "file"]


def test_a_failure_keeps_the_old_file(tmp_path):
    write_frames(tmp_path / "a.gif", moving())
    before = (tmp_path / "a.gif").read_bytes()
    with rejected("a.gif"):  # wider than the format allows
        write_frames(tmp_path / "a.gif", np.zeros((2, 1, 1, 70000)))
    assert (tmp_path / "a.gif").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.gif"]


# Atomic writes


def stopped_after(_):
    raise KeyboardInterrupt


def test_atomic_path_appears_only_on_success(tmp_path):
    path = tmp_path / "a.txt"
    with atomic_path(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == ".txt"
        temporary.write_text("one")
        assert not path.exists()
    assert path.read_text() == "one"
    with pytest.raises(KeyboardInterrupt), atomic_path(path) as temporary:
        stopped_after(temporary.write_text("two"))
    with rejected("a.txt", ZooError), atomic_path(path) as temporary:
        raise OSError(28, "No space left on device")
    with rejected("a.txt", ZooError), atomic_path(path):
        pass  # nothing was written
    assert path.read_text() == "one"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    for bad in ("no/a.txt", "a.txt/b.txt"):
        with rejected("folder", ZooError), atomic_path(tmp_path / bad):
            pass


def test_atomic_path_has_the_usual_permissions_and_follows_links(tmp_path):
    (tmp_path / "plain").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with atomic_path(tmp_path / "link") as temporary:
        temporary.write_text("one")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_atomic_folder_is_replaced_only_on_success(tmp_path):
    path = tmp_path / "model"
    for content in ("one", "two"):
        with atomic_folder(path) as temporary:
            assert not list(temporary.iterdir())
            (temporary / content).write_text(content)
        assert [p.name for p in path.iterdir()] == [content]
    with pytest.raises(KeyboardInterrupt), atomic_folder(path) as temporary:
        stopped_after((temporary / "three").write_text("three"))
    with rejected("model", ZooError), atomic_folder(path) as temporary:
        temporary.rmdir()  # the old folder comes back when the new one cannot take its place
    assert [p.name for p in path.iterdir()] == ["two"]
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    with rejected("folder", ZooError), atomic_folder(path / "two"):
        pass
    with rejected("folder", ZooError), atomic_folder(tmp_path / "no" / "model"):
        pass


# Real files


def real(pattern):
    if not os.environ.get("ZOO_DATA"):
        pytest.skip("ZOO_DATA is not set")
    files = sorted(Path(os.environ["ZOO_DATA"]).glob(pattern))
    if not files:
        pytest.skip(f"ZOO_DATA has no {pattern}")
    return files


@pytest.mark.slow
@pytest.mark.data
def test_a_real_color_video_is_read():
    (file,) = real("clips/car-detection.mp4")
    frames = read_frames(file, channels=3, size=(54, 96))
    assert frames.shape[1:] == (3, 54, 96)
    assert len(frames) > 100
    assert frames[0].std() > 5


@pytest.mark.data
def test_real_videos_of_kth_are_read():
    for file in real("kth/*.avi")[:2]:
        frames = read_frames(file, channels=1)
        assert frames.shape[1:] == (1, 120, 160)
        assert frames.std() > 5


def test_importing_loads_no_heavy_library():
    code = (
        "import sys, types; zoo = types.ModuleType('zoo'); zoo.__path__ = [sys.argv[1]];"
        "data = types.ModuleType('zoo.data'); data.__path__ = [sys.argv[1] + '/data'];"
        "sys.modules.update({'zoo': zoo, 'zoo.data': data}); import zoo.data.files;"
        "assert not {'torch', 'av', 'PIL'} & set(sys.modules)"
    )
    folder = Path(sys.modules["zoo.atomic"].__file__).parent
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)

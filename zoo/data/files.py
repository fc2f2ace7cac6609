"""Frames from files and frames to files: arrays, videos, folders of pictures."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from einops import rearrange, repeat

from zoo.atomic import atomic_path
from zoo.errors import ZooError

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "ARRAYS",
    "CHANNELS_LAST",
    "PICTURES",
    "VIDEOS",
    "check_numbers",
    "check_writable",
    "decoding",
    "is_picture",
    "natural",
    "read_frames",
    "to_pixels",
    "write_frames",
]

ARRAYS = (".npy", ".npz")
VIDEOS = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".gif")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".pgm")
WRITTEN = (".npy", ".npz", ".gif", ".mp4", ".png")
CHANNELS_LAST = "the channels seem to be last: np.moveaxis(frames, -1, -3)"
GAP = 2  # pixels between the frames of one picture
GAP_GREY = 128  # seen beside black frames and beside white ones


def read_frames(
    path: str | Path,
    *,
    channels: int,
    size: tuple[int, int] | None = None,
    part: slice = slice(None),
) -> np.ndarray:
    """Read frames of `channels` channels from an array, a video or a folder of pictures.

    Arrays keep their values and dtype: (T, H, W) and (T, C, H, W) are returned as
    (T, C, H, W), (B, T, C, H, W) as it is. Of an .npz with several arrays, `file.npz:key`
    names one. Videos and pictures give uint8 (T, C, H, W), grey for 1 channel and RGB for
    3, resized to `size` (height, width) if given. The pictures of a folder are taken in the
    order of the numbers in their names; `part` of them, if given.

    Raises ZooError for a file that is missing, broken, empty or of an unknown kind, and for
    frames that do not have `channels` channels or, in an array, not the height and width `size`.
    """
    file, key = _split_key(path)
    ending, is_folder = file.suffix.lower(), os.path.isdir(file)
    if not os.path.exists(file):  # unlike Path.exists, False for a name that is too long
        raise ZooError(f"{file}: there is no such file or folder; check the path")
    if not is_folder and ending in ARRAYS:
        return _as_frames(_read_array(file, key), path, channels, size)
    if not is_folder and ending not in VIDEOS:
        raise ZooError(
            f"{file}: unknown ending {ending!r}; expected one of {', '.join(ARRAYS + VIDEOS)}, "
            "or a folder of pictures"
        )
    if channels not in (1, 3):
        raise ZooError(
            f"{file}: pictures and videos are read with 1 channel (grey) or 3 (RGB), but "
            f"{channels} are expected; give the frames as an array (.npy, .npz)"
        )
    if is_folder:
        pictures = _read_folder(file, channels, size, part)
    else:
        pictures = _read_video(file, channels, size)
    frames = np.stack(pictures)  # (T, H, W) if grey, (T, H, W, 3) if RGB
    frames = frames[..., None] if channels == 1 else frames
    return np.ascontiguousarray(rearrange(frames, "t h w c -> t c h w"))


def write_frames(
    path: str | Path,
    frames: np.ndarray,
    *,
    fps: float = 10.0,
    low: float = 0.0,
    high: float = 1.0,
    scale: int = 1,
) -> None:
    """Write frames (T, C, H, W) or (B, T, C, H, W), in the units of the data, by ending.

    `.npy` and `.npz` (key `frames`) hold the array as it is. `.gif` and `.mp4` play it at
    `fps` frames a second, `.png` shows its frames side by side; there a batch is rows under
    one another, `low` to `high` become black to white (values outside are clipped, NaN is
    black), and every pixel is enlarged to `scale` × `scale`. A gif shows equal frames in
    sequence as one frame that lasts longer. The file appears whole or not at all.

    Raises ZooError for frames, a path or options that cannot be written.
    """
    check_writable(path)
    frames = np.asarray(frames)
    if frames.ndim not in (4, 5) or 0 in frames.shape or frames.dtype.kind not in "biuf":
        raise ZooError(
            f"{path}: got frames of shape {frames.shape} and dtype {frames.dtype}; expected "
            "numbers (T, C, H, W) or (B, T, C, H, W)"
        )
    ending = Path(path).suffix.lower()
    if ending in ARRAYS:
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            if ending == ".npy":
                np.save(file, frames, allow_pickle=False)
            else:
                np.savez_compressed(file, frames=frames)
        return
    if frames.shape[-3] not in (1, 3):
        raise ZooError(
            f"{path}: got {frames.shape[-3]} channels; pictures show 1 (grey) or 3 (RGB): choose "
            "them, frames[..., :1, :, :], or write .npy"
        )
    if not low < high or not 0 < fps <= 1000 or scale < 1:
        raise ZooError(
            f"{path}: got low={low}, high={high}, fps={fps}, scale={scale}; expected low < high, "
            "0 < fps <= 1000 and scale >= 1"
        )
    batch = frames if frames.ndim == 5 else frames[None]  # (B, T, C, H, W)
    pixels = repeat(to_pixels(batch, low, high), "b t c h w -> b t c (h i) (w j)", i=scale, j=scale)
    if ending == ".png":
        pictures = [_tile(pixels)]
    else:
        pictures = [_tile(pixels[:, t : t + 1]) for t in range(pixels.shape[1])]
    with atomic_path(path) as temporary:
        if ending == ".mp4":
            _save_video(temporary, pictures, fps, path)
        else:
            _save_pictures(temporary, pictures, fps, ending, path)


def check_writable(path: str | Path) -> None:
    """Raise ZooError if `write_frames` could not write to `path`: call it before long work."""
    path = Path(path)
    if path.suffix.lower() not in WRITTEN:
        raise ZooError(
            f"{path}: unknown ending {path.suffix!r}; expected one of {', '.join(WRITTEN)}"
        )
    folder = path.parent
    if os.path.isfile(folder):
        raise ZooError(f"{path}: {folder} is a file, expected a folder; choose another path")
    if not os.path.isdir(folder):
        raise ZooError(f"{path}: the folder {folder} does not exist; mkdir -p {folder}")
    if os.path.isdir(path):
        raise ZooError(f"{path}: is a folder, expected a file; choose another name")
    if not os.access(folder, os.W_OK):
        raise ZooError(f"{path}: the folder {folder} is not writable; choose another folder")


def is_picture(file: Path) -> bool:
    """Whether a file is named as a picture, and not hidden."""
    return file.suffix.lower() in PICTURES and not file.name.startswith(".")


def to_pixels(frames: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map `low`..`high` to 0..255, uint8, clipped, in any shape; NaN becomes 0."""
    share = np.nan_to_num((frames.astype(np.float32) - low) / (high - low), nan=0.0)
    return np.rint(share.clip(0, 1) * 255).astype(np.uint8)


def check_numbers(path: str | Path, dtype: np.dtype) -> None:
    """Raise ZooError for an array that does not hold real numbers."""
    if dtype.kind not in "biuf":
        raise ZooError(f"{path}: got dtype {dtype}, expected numbers; convert with astype")


def natural(path: Path | str) -> tuple[list[str | int], str]:
    """Sort key by which number 10 comes after number 9."""
    name = str(path)
    parts = re.split(r"(\d+)", name.lower())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def _split_key(path: str | Path) -> tuple[Path, str | None]:
    match = re.fullmatch(r"(.+\.npz):([^/\\]*)", str(path), re.IGNORECASE)
    return (Path(match[1]), match[2]) if match else (Path(path), None)


@contextmanager
def decoding(path: str | Path, hint: str, verb: str = "read") -> Iterator[None]:
    """Tell what a codec says about `path` as a ZooError.

    What codecs raise for bytes that they do not like is no closed list, hence Exception.
    """
    try:
        yield
    except ZooError:
        raise
    except Exception as error:
        reason = str(getattr(error, "strerror", None) or error)
        if "pickle" in reason:  # NumPy would advise to load it the unsafe way
            reason = "it holds Python objects or is no NumPy file"
        first_line = (reason or type(error).__name__).splitlines()[0]
        raise ZooError(f"{path}: could not be {verb} ({first_line}); {hint}") from error


def _read_array(file: Path, key: str | None) -> np.ndarray:
    with decoding(file, "expected a numeric array as np.save or np.savez store it"):
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            keys = ", ".join(loaded.files) or "none"
            if key is None and len(loaded.files) == 1:
                key = loaded.files[0]
            if key is None:
                raise ZooError(
                    f"{file}: expected one array, but it holds: {keys}; name one, {file}:KEY"
                )
            if key not in loaded.files:
                raise ZooError(f"{file}: there is no array {key!r}; it holds: {keys}")
            return np.asarray(loaded[key])


def _as_frames(
    array: np.ndarray, path: str | Path, channels: int, size: tuple[int, int] | None
) -> np.ndarray:
    """Return `array` as (T, C, H, W) or (B, T, C, H, W), checked."""
    check_numbers(path, array.dtype)
    got = f"got an array of shape {array.shape}"
    if array.ndim not in (3, 4, 5):
        raise ZooError(f"{path}: {got}, expected (T, H, W), (T, C, H, W) or (B, T, C, H, W)")
    frames = array[:, None] if array.ndim == 3 else array  # (T, H, W) -> (T, 1, H, W)
    if 0 in frames.shape:
        raise ZooError(f"{path}: {got}, which holds no frames; expected at least one")
    if frames.shape[-3] != channels:
        mend = "choose or repeat channels, or another model"
        if array.ndim > 3 and array.shape[-1] == channels:
            mend = CHANNELS_LAST
        raise ZooError(
            f"{path}: {got}, which has {frames.shape[-3]} channels, expected {channels}; {mend}"
        )
    if size is not None and frames.shape[-2:] != tuple(size):
        raise ZooError(
            f"{path}: {got}, expected frames of {size[0]} × {size[1]}; arrays are not resized "
            "when they are read: resize or crop it first"
        )
    return frames.astype(frames.dtype.newbyteorder("="), copy=False)


def _read_video(file: Path, channels: int, size: tuple[int, int] | None) -> list[np.ndarray]:
    import av

    height, width = size or (None, None)
    with decoding(file, "is it complete, and a video?"), av.open(str(file)) as container:
        if not container.streams.video:
            raise ZooError(f"{file}: holds no video, expected a video stream; choose another file")
        frames = [
            frame.to_ndarray(
                format="gray" if channels == 1 else "rgb24",
                width=width,
                height=height,
                interpolation="AREA",
            )
            for frame in container.decode(video=0)
        ]
    if not frames:
        raise ZooError(f"{file}: holds no frames, expected at least one; choose another file")
    return frames


def _read_folder(
    folder: Path, channels: int, size: tuple[int, int] | None, part: slice
) -> list[np.ndarray]:
    from PIL import Image

    with decoding(folder, "choose another folder"):
        files = sorted(
            (file for file in folder.iterdir() if is_picture(file)),
            key=natural,
        )
    if not files:
        raise ZooError(f"{folder}: holds no pictures, expected {', '.join(PICTURES)}")
    frames: list[np.ndarray] = []
    first: tuple[int, int] | None = None
    for file in files[part]:
        with decoding(file, "is it complete, and a picture?"), Image.open(file) as picture:
            first = first or picture.size
            if picture.size != first:
                raise ZooError(
                    f"{file}: is {picture.height} × {picture.width}, but {files[0].name} is "
                    f"{first[1]} × {first[0]}; expected pictures of one size"
                )
            if picture.mode[0] in "IF":  # Pillow would clip their values at 255
                raise ZooError(
                    f"{file}: has more than 8 bits ({picture.mode}), expected 8; give the frames "
                    "as an array (.npy)"
                )
            converted = picture.convert("L" if channels == 1 else "RGB")
            if size is not None:
                converted = converted.resize((size[1], size[0]), Image.Resampling.BOX)
            frames.append(np.asarray(converted))
    return frames


def _tile(pixels: np.ndarray) -> np.ndarray:
    """Lay frames (rows, columns, C, H, W) out as one picture (height, width, C) with gaps."""
    gaps = ((0, 0), (0, 0), (0, 0), (0, GAP), (0, GAP))
    padded = np.pad(pixels, gaps, constant_values=GAP_GREY)
    return rearrange(padded, "r k c h w -> (r h) (k w) c")[:-GAP, :-GAP]


def _save_pictures(
    file: Path, pictures: list[np.ndarray], fps: float, ending: str, path: str | Path
) -> None:
    from PIL import Image

    images: list[Image.Image] = [
        Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)
        for picture in pictures
    ]
    # A gif counts in hundredths of a second, and viewers slow down below two of them.
    options = {"duration": max(20, round(100 / fps) * 10), "loop": 0} if ending == ".gif" else {}
    with decoding(path, "write .npy or smaller frames", "written"):
        images[0].save(
            file, ending[1:].upper(), save_all=len(images) > 1, append_images=images[1:], **options
        )


def _save_video(file: Path, pictures: list[np.ndarray], fps: float, path: str | Path) -> None:
    import av

    # yuv420p halves both sides, so they must be even: repeat the last row, the last column.
    height, width = pictures[0].shape[:2]
    even = ((0, height % 2), (0, width % 2), (0, 0))
    with (
        decoding(path, "write .gif or .npy, or frames of another size", "written"),
        av.open(str(file), "w", format="mp4") as container,
    ):
        rate = Fraction(fps).limit_denominator(1000)
        if "libx264" in av.codecs_available:
            stream = container.add_stream("libx264", rate=rate, options={"crf": "18"})
        else:
            stream = container.add_stream("mpeg4", rate=rate, bit_rate=8_000_000)
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            rgb = np.broadcast_to(np.pad(picture, even, "edge"), (stream.height, stream.width, 3))
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())

"""Frames from files and frames to files: arrays, videos, folders of pictures."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
from einops import rearrange, repeat

from zoo.atomic import atomic_path
from zoo.data.codecs import read_pictures, read_video, save_pictures, save_video
from zoo.data.decoding import decoding
from zoo.errors import ConfigError, DataError

__all__ = [
    "ARRAYS",
    "CHANNELS_LAST",
    "PICTURES",
    "VIDEOS",
    "check_numbers",
    "check_writable",
    "is_picture",
    "natural",
    "read_frames",
    "to_pixels",
    "write_frames",
]

ARRAYS = (".npy", ".npz")
VIDEOS = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".gif")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".pgm")
WRITABLE = (".npy", ".npz", ".gif", ".mp4", ".png")
CHANNELS_LAST = "the channels seem to be last: np.moveaxis(frames, -1, -3)"
GAP = 2  # pixels between the frames of one picture
GAP_GRAY = 128  # visible next to black and white frames


def read_frames(
    path: str | Path,
    *,
    channels: int,
    size: tuple[int, int] | None = None,
    part: slice = slice(None),
) -> np.ndarray:
    """Read frames from an array, a video or a folder of pictures.

    Args:
        path: The file or folder; `file.npz:key` selects one of several arrays.
        channels: Expected channels. Videos and pictures are read as gray (1) or RGB (3).
        size: (height, width) to which videos and pictures are resized, and which arrays must have.
        part: Which pictures of a folder to read, in the order of the numbers in their names.

    Returns:
        Arrays with their values and dtype, (T, H, W) as (T, 1, H, W), (T, C, H, W) and
        (B, T, C, H, W) as they are; otherwise uint8 (T, C, H, W).

    Raises:
        DataError: If the file is missing, corrupt, empty, of an unknown type, or has other
            channels or another size.
    """
    file, key = _split_key(path)
    suffix, is_folder = file.suffix.lower(), os.path.isdir(file)
    if not os.path.exists(file):  # unlike Path.exists, False for a name that is too long
        raise DataError(f"{file}: no such file or folder; check the path")
    if not is_folder and suffix in ARRAYS:
        return _as_frames(_read_array(file, key), path, channels, size)
    if not is_folder and suffix not in VIDEOS:
        raise DataError(
            f"{file}: unknown suffix {suffix!r}; expected one of {', '.join(ARRAYS + VIDEOS)}, "
            "or a folder of pictures"
        )
    if channels not in (1, 3):
        raise DataError(
            f"{file}: pictures and videos have 1 channel (gray) or 3 (RGB), expected {channels}; "
            "convert the frames to an array (.npy, .npz)"
        )
    if is_folder:
        frames = read_pictures(_list_pictures(file)[part], channels, size)
    else:
        frames = read_video(file, channels, size)
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
    """Write frames atomically, in the format of the suffix.

    `.npy` and `.npz` (key `frames`) store the array unchanged. `.gif` and `.mp4` are animations,
    and `.png` shows the frames side by side. A batch becomes rows. A gif shows equal consecutive
    frames as one frame that lasts longer.

    Args:
        path: Output file.
        frames: (T, C, H, W) or (B, T, C, H, W), in the unit of the data.
        fps: Frames a second.
        low: Value of black.
        high: Value of white. Values outside are clipped, and NaN is black.
        scale: Side of the square that every pixel is enlarged to.

    Raises:
        ConfigError: If the path or an option is invalid.
        DataError: If the frames cannot be written in this format.
    """
    check_writable(path)
    frames = np.asarray(frames)
    if frames.ndim not in (4, 5) or 0 in frames.shape or frames.dtype.kind not in "biuf":
        raise DataError(
            f"{path}: got frames of shape {frames.shape} and dtype {frames.dtype}; expected "
            "numbers (T, C, H, W) or (B, T, C, H, W)"
        )
    suffix = Path(path).suffix.lower()
    if suffix in ARRAYS:
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            if suffix == ".npy":
                np.save(file, frames, allow_pickle=False)
            else:
                np.savez_compressed(file, frames=frames)
        return
    if frames.shape[-3] not in (1, 3):
        raise DataError(
            f"{path}: got {frames.shape[-3]} channels; pictures show 1 (gray) or 3 (RGB): select "
            "them with frames[..., :1, :, :], or write .npy"
        )
    if not low < high or not 0 < fps <= 1000 or scale < 1:
        raise ConfigError(
            f"{path}: got low={low}, high={high}, fps={fps}, scale={scale}; expected low < high, "
            "0 < fps <= 1000 and scale >= 1"
        )
    batch = frames if frames.ndim == 5 else frames[None]  # (B, T, C, H, W)
    pixels = repeat(to_pixels(batch, low, high), "b t c h w -> b t c (h i) (w j)", i=scale, j=scale)
    if suffix == ".png":
        pictures = [_tile(pixels)]
    else:
        pictures = [_tile(pixels[:, t : t + 1]) for t in range(pixels.shape[1])]
    with atomic_path(path) as temporary:
        if suffix == ".mp4":
            save_video(temporary, pictures, fps, path)
        else:
            save_pictures(temporary, pictures, fps, suffix, path)


def check_writable(path: str | Path) -> None:
    """Raise ConfigError if `write_frames` cannot write to `path`: call it before long work."""
    path = Path(path)
    if path.suffix.lower() not in WRITABLE:
        raise ConfigError(
            f"{path}: unknown suffix {path.suffix!r}; expected one of {', '.join(WRITABLE)}"
        )
    folder = path.parent
    if os.path.isfile(folder):
        raise ConfigError(f"{path}: {folder} is a file, expected a folder; choose another path")
    if not os.path.isdir(folder):
        raise ConfigError(f"{path}: the folder {folder} does not exist; mkdir -p {folder}")
    if os.path.isdir(path):
        raise ConfigError(f"{path}: is a folder, expected a file; choose another name")
    if not os.access(folder, os.W_OK):
        raise ConfigError(f"{path}: the folder {folder} is not writable; choose another folder")


def is_picture(file: Path) -> bool:
    """Return whether a file has the suffix of a picture and is not hidden."""
    return file.suffix.lower() in PICTURES and not file.name.startswith(".")


def to_pixels(frames: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map `low`..`high` to 0..255, uint8, clipped, in any shape; NaN becomes 0."""
    if frames.dtype == np.uint8 and (low, high) == (0, 255):
        return frames
    share = np.nan_to_num((frames.astype(np.float32) - low) / (high - low), nan=0.0)
    return np.rint(share.clip(0, 1) * 255).astype(np.uint8)


def check_numbers(path: str | Path, dtype: np.dtype) -> None:
    """Raise DataError for an array that does not contain real numbers."""
    if dtype.kind not in "biuf":
        raise DataError(f"{path}: got dtype {dtype}, expected numbers; convert with astype")


def natural(path: Path | str) -> tuple[list[str | int], str]:
    """Return a sort key that puts number 10 after number 9."""
    name = str(path)
    parts = re.split(r"(\d+)", name.lower())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def _split_key(path: str | Path) -> tuple[Path, str | None]:
    match = re.fullmatch(r"(.+\.npz):([^/\\]*)", str(path), re.IGNORECASE)
    return (Path(match[1]), match[2]) if match else (Path(path), None)


def _read_array(file: Path, key: str | None) -> np.ndarray:
    with decoding(file, "expected a numeric array as np.save or np.savez stores it"):
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            keys = ", ".join(loaded.files) or "none"
            if key is None and len(loaded.files) == 1:
                key = loaded.files[0]
            if key is None:
                raise DataError(
                    f"{file}: contains the arrays {keys}, expected one; select it with {file}:KEY"
                )
            if key not in loaded.files:
                raise DataError(f"{file}: contains no array {key!r}; available: {keys}")
            return np.asarray(loaded[key])


def _as_frames(
    array: np.ndarray, path: str | Path, channels: int, size: tuple[int, int] | None
) -> np.ndarray:
    """Return `array` as (T, C, H, W) or (B, T, C, H, W), checked."""
    check_numbers(path, array.dtype)
    got = f"got an array of shape {array.shape}"
    if array.ndim not in (3, 4, 5):
        raise DataError(f"{path}: {got}, expected (T, H, W), (T, C, H, W) or (B, T, C, H, W)")
    frames = array[:, None] if array.ndim == 3 else array  # (T, H, W) -> (T, 1, H, W)
    if 0 in frames.shape:
        raise DataError(f"{path}: {got}, which has no frames; expected at least one")
    if frames.shape[-3] != channels:
        fix = "select or repeat channels, or use another model"
        if array.ndim > 3 and array.shape[-1] == channels:
            fix = CHANNELS_LAST
        raise DataError(
            f"{path}: {got}, which has {frames.shape[-3]} channels, expected {channels}; {fix}"
        )
    if size is not None and frames.shape[-2:] != tuple(size):
        raise DataError(
            f"{path}: {got}, expected frames of {size[0]} × {size[1]}; arrays are not resized: "
            "resize or crop it first"
        )
    return frames.astype(frames.dtype.newbyteorder("="), copy=False)


def _list_pictures(folder: Path) -> list[Path]:
    """Return the pictures of a folder in the order of the numbers in their names."""
    with decoding(folder, "choose another folder"):
        files = sorted(filter(is_picture, folder.iterdir()), key=natural)
    if not files:
        raise DataError(f"{folder}: contains no pictures, expected {', '.join(PICTURES)}")
    return files


def _tile(pixels: np.ndarray) -> np.ndarray:
    """Tile frames (rows, columns, C, H, W) into one picture (height, width, C) with gaps."""
    gaps = ((0, 0), (0, 0), (0, 0), (0, GAP), (0, GAP))
    padded = np.pad(pixels, gaps, constant_values=GAP_GRAY)
    return rearrange(padded, "r k c h w -> (r h) (k w) c")[:-GAP, :-GAP]

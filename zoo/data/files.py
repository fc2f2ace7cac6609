"""Frames from files and frames to files: arrays, videos, folders of pictures."""

from __future__ import annotations

import math
import os
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
from einops import rearrange, repeat

from zoo.atomic import atomic_path
from zoo.data.codecs import read_pictures, read_video, save_pictures, save_video
from zoo.data.npz import read_header
from zoo.errors import ConfigError, DataError
from zoo.inputs import check_file, check_values, decoding

__all__ = [
    "ARRAYS",
    "CHANNELS_LAST",
    "PICTURES",
    "VIDEOS",
    "check_numbers",
    "check_parent",
    "check_writable",
    "is_picture",
    "natural",
    "read_array",
    "read_frames",
    "to_pixels",
    "write_frames",
]

ARRAYS = (".npy", ".npz")
VIDEOS = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".gif")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".pgm")
STORES = (".zarr",)  # which are folders
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
        part: Which frames to read of a video or of a folder of pictures, whose order is that of
            the numbers in their names.

    Returns:
        Arrays with their values and dtype, (T, H, W) as (T, 1, H, W), (T, C, H, W) and
        (B, T, C, H, W) as they are; otherwise uint8 (T, C, H, W).

    Raises:
        DataError: If the file is missing, corrupt, empty, of an unknown type, or has other
            channels or another size.
    """
    file, _ = _split_key(path)
    suffix, is_folder = file.suffix.lower(), os.path.isdir(file)
    if not is_folder:
        check_file(file)
    if not is_folder and suffix in ARRAYS:
        return _as_frames(read_array(path), path, channels, size)
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
        frames = read_video(file, channels, size, part)
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


def check_writable(path: str | Path, suffixes: Sequence[str] = WRITABLE) -> None:
    """Raise ConfigError if `path` cannot be written: call it before long work.

    Args:
        path: The output.
        suffixes: Suffixes that it may have; by default those that `write_frames` can write.
    """
    path = Path(path)
    if path.suffix.lower() not in suffixes:
        raise ConfigError(
            f"{path}: unknown suffix {path.suffix!r}; expected one of {', '.join(suffixes)}"
        )
    check_parent(path)
    if not os.path.exists(path):
        return
    if path.suffix in STORES:
        if not os.path.isdir(path):
            raise ConfigError(f"{path}: is a file, expected a folder; choose another name")
    elif not os.path.isfile(path):
        kind = "a folder" if os.path.isdir(path) else "a pipe or a device"
        raise ConfigError(f"{path}: is {kind}, expected a file; choose another name")


def check_parent(path: str | Path) -> None:
    """Raise ConfigError if nothing can be written to the folder of `path`."""
    folder = Path(path).parent
    if os.path.isfile(folder):
        raise ConfigError(f"{path}: {folder} is a file, expected a folder; choose another path")
    if not os.path.isdir(folder):
        raise ConfigError(f"{path}: the folder {folder} does not exist; mkdir -p {folder}")
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
    if dtype.hasobject:
        raise DataError(f"{path}: contains Python objects, expected numbers; convert with astype")
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


def read_array(path: str | Path) -> np.ndarray:
    """Read an array of numbers from .npy, or from .npz; file.npz:KEY selects one of several.

    Raises:
        DataError: If the file is missing, is corrupt, or has no array of numbers of this name.
    """
    file, key = _split_key(path)
    check_file(file)
    with decoding(file, "expected a numeric array as np.save or np.savez stores it"):
        if not zipfile.is_zipfile(file):
            with open(file, "rb") as opened:
                _check_header(file, opened, file.stat().st_size)
            return np.asarray(np.load(file, allow_pickle=False))
        with np.load(file, allow_pickle=False) as loaded, zipfile.ZipFile(file) as archive:
            keys = ", ".join(loaded.files) or "none"
            if key is None and len(loaded.files) == 1:
                key = loaded.files[0]
            if key is None:
                raise DataError(
                    f"{file}: contains the arrays {keys}, expected one; select it with {file}:KEY"
                )
            if key not in loaded.files:
                raise DataError(f"{file}: contains no array {key!r}; available: {keys}")
            info = archive.getinfo(key if key in archive.namelist() else f"{key}.npy")
            with archive.open(info) as opened:
                _check_header(f"{file}:{key}", opened, info.file_size)
            return np.asarray(loaded[key])


def _check_header(source: str | Path, file: IO[bytes], size: int) -> None:
    """Raise DataError unless an .npy file has numbers, as many as it announces, within the limit.

    Args:
        source: Its name for messages.
        file: The file, open at its start.
        size: Its size in bytes.
    """
    shape, dtype, _ = read_header(source, file)
    check_numbers(source, dtype)
    check_values(source, *shape)
    if (needed := file.tell() + math.prod(shape) * dtype.itemsize) > size:
        raise DataError(
            f"{source}: has {size:,} bytes, expected {needed:,} for an array of shape {shape}; is "
            "it complete?"
        )


def _as_frames(
    array: np.ndarray, path: str | Path, channels: int, size: tuple[int, int] | None
) -> np.ndarray:
    """Return `array` as (T, C, H, W) or (B, T, C, H, W), checked."""
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

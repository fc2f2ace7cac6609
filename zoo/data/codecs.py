"""Videos and pictures to arrays (T, H, W, C) of uint8, and back."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from zoo.errors import DataError
from zoo.inputs import PIXEL_BYTES, check_bytes, check_file, check_values, decoding, max_pixels

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "decode_video",
    "open_video",
    "read_pictures",
    "read_video",
    "save_pictures",
    "save_video",
]

#: Containers that FFmpeg may read. Others, such as playlists, make it read other files.
CONTAINERS = ("avi", "gif", "matroska", "mov")

#: Formats that Pillow may read. Others run programs: EPS is given to Ghostscript.
FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF")


def open_video(file: str | Path | IO[bytes], source: str) -> Any:
    """Open a video as av's container with one video stream, which reads no other file.

    Args:
        file: The path, or an open file.
        source: Its name for messages.

    Raises:
        DataError: If it is not a regular file, has no video, or frames of more pixels than the
            limit.
    """
    import av

    if isinstance(file, (str, Path)):
        check_file(file)
        file = f"file:{os.path.abspath(file)}"  # FFmpeg takes concat:a.mp4 for a protocol
    pixels = str(max_pixels())
    options = {
        "format_whitelist": ",".join(CONTAINERS),
        "protocol_whitelist": "file",
        "max_pixels": pixels,  # of the first frames, which are decoded to find their format
    }
    container = av.open(file, options=options)
    if not container.streams.video:
        raise DataError(f"{source}: contains no video stream; choose another file")
    decoder = container.streams.video[0].codec_context
    if decoder.width * decoder.height == 0:
        raise DataError(
            f"{source}: its frames have no size, or more than {int(pixels):,} pixels; choose "
            "another file, or set the environment variable ZOO_INPUT_LIMIT, such as 4GiB"
        )
    decoder.options = {**decoder.options, "max_pixels": pixels}
    return container


def decode_video(
    container: Any, channels: int, size: tuple[int, int] | None
) -> Iterator[np.ndarray]:
    """Yield the frames of an open video, uint8 (H, W, C), resized by area to `size`."""
    height, width = size or (None, None)
    for frame in container.decode(video=0):
        picture = frame.to_ndarray(
            format="gray" if channels == 1 else "rgb24",
            width=width,
            height=height,
            interpolation="AREA",
        )
        yield picture[..., None] if channels == 1 else picture  # gray is (H, W)


def read_video(
    file: Path, channels: int, size: tuple[int, int] | None, part: slice = slice(None)
) -> list[np.ndarray]:
    """Return the frames of a video, or a part of them, each uint8 (H, W, C)."""
    frames: list[np.ndarray] = []
    with decoding(file, "is it complete, and a video?"), open_video(file, str(file)) as container:
        decoded = decode_video(container, channels, size)
        for frame in itertools.islice(decoded, part.start, part.stop, part.step):
            frames.append(frame)
            check_values(file, len(frames), frame.size)
    if not frames:
        raise DataError(f"{file}: contains no frames; choose another file")
    return frames


def read_pictures(
    files: Sequence[Path], channels: int, size: tuple[int, int] | None
) -> list[np.ndarray]:
    """Return pictures of one size, each uint8 (H, W, C), resized by area to `size`."""
    from PIL import Image

    frames: list[np.ndarray] = []
    first: tuple[int, int] | None = None
    for file in files:
        check_file(file)
        with (
            decoding(file, "is it complete, and a picture?"),
            Image.open(file, formats=FORMATS) as picture,
        ):
            first = first or picture.size
            check_bytes(file, math.prod(picture.size) * PIXEL_BYTES)
            check_values(files[0].parent, len(files), *(size or first), channels)
            if picture.size != first:
                raise DataError(
                    f"{file}: is {picture.height} × {picture.width}, but {files[0].name} is "
                    f"{first[1]} × {first[0]}; expected pictures of one size"
                )
            if picture.mode[0] in "IF":  # Pillow would clip their values at 255
                raise DataError(
                    f"{file}: has more than 8 bits ({picture.mode}), expected 8; convert the "
                    "frames to an array (.npy)"
                )
            converted = picture.convert("L" if channels == 1 else "RGB")
            if size is not None:
                converted = converted.resize((size[1], size[0]), Image.Resampling.BOX)
            frame = np.asarray(converted)
            frames.append(frame[..., None] if channels == 1 else frame)  # gray is (H, W)
    return frames


def save_pictures(
    file: Path, pictures: list[np.ndarray], fps: float, suffix: str, path: str | Path
) -> None:
    """Write pictures (H, W, C) as a gif or png.

    Args:
        file: The file to write.
        pictures: Several only for a gif.
        fps: Frames a second of a gif.
        suffix: ".gif" or ".png".
        path: Name of the file for messages.
    """
    from PIL import Image

    images: list[Image.Image] = [
        Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)
        for picture in pictures
    ]
    # A gif counts in hundredths of a second, and viewers slow down below two of them.
    options = {"duration": max(20, round(100 / fps) * 10), "loop": 0} if suffix == ".gif" else {}
    with decoding(path, "write .npy or smaller frames", "written"):
        images[0].save(
            file, suffix[1:].upper(), save_all=len(images) > 1, append_images=images[1:], **options
        )


def save_video(file: Path, pictures: list[np.ndarray], fps: float, path: str | Path) -> None:
    """Write pictures (H, W, C) as an mp4; `path` is its name for messages."""
    import av

    # yuv420p halves both sides, so they must be even: repeat the last row and column.
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

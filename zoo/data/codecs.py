"""Videos and pictures to arrays (T, H, W, C) of uint8, and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.data.decoding import decoding
from zoo.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["decode_video", "read_pictures", "read_video", "save_pictures", "save_video"]


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


def read_video(file: Path, channels: int, size: tuple[int, int] | None) -> list[np.ndarray]:
    """Return the frames of a video, each uint8 (H, W, C)."""
    import av

    with decoding(file, "is it complete, and a video?"), av.open(str(file)) as container:
        if not container.streams.video:
            raise DataError(f"{file}: contains no video stream; choose another file")
        frames = list(decode_video(container, channels, size))
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
        with decoding(file, "is it complete, and a picture?"), Image.open(file) as picture:
            first = first or picture.size
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

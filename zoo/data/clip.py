"""A video file, read a few frames at a time."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.codecs import decode_video, open_video
from zoo.data.recordings import format_size
from zoo.errors import ConfigError, DataError
from zoo.inputs import check_bytes, check_file, check_frames, decoding

__all__ = ["Clip"]

HINT = "is it complete, and a video?"


class Clip:
    """A video that is read a few frames at a time: ``clip.read(start, stop)`` is uint8.

    Reading forward is fast; reading backward decodes from the start again.

    Args:
        path: The file, or a zip file.
        inside: Name of the video in the zip file.
        channels: 1 for gray, 3 for RGB.
        size: (height, width) to resize to, by area.
        fps: Frames a second, at most those of the video, whose rate is assumed to be constant.
    """

    def __init__(
        self,
        path: Path,
        *,
        inside: str | None = None,
        channels: int = 1,
        size: tuple[int, int] | None = None,
        fps: float | None = None,
    ) -> None:
        self.path, self.inside, self.channels, self.size = path, inside, channels, size
        self._frames: Iterator[np.ndarray] | None = None
        self._next, self._process = 0, 0
        with decoding(str(self), HINT), self._open() as container:
            stream = container.streams.video[0]
            rate = stream.average_rate or stream.guessed_rate
            self.shape = size or (int(stream.height), int(stream.width))
            count = stream.frames or sum(p.size > 0 for p in container.demux(stream))
        if count <= 0:
            raise DataError(f"{self}: contains no frames; choose another file")
        check_frames(str(self), count)
        self.rate = float(rate) if rate else 25.0
        self.fps = self.rate if fps is None else float(fps)
        if not 0 < self.fps <= self.rate:
            raise ConfigError(
                f"{self}: fps is {self.fps:g}, the video has {self.rate:g}; choose at most that"
            )
        self.length = max(1, int(count * self.fps / self.rate + 1e-6))

    def __str__(self) -> str:
        return f"{self.path}:{self.inside}" if self.inside else str(self.path)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the decoder, which another process cannot use."""
        return {**self.__dict__, "_frames": None}

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the frames from start to stop − 1, uint8 (T, C, H, W)."""
        indices = [int(i * self.rate / self.fps + 1e-6) for i in range(start, stop)]
        if self._frames is None or indices[0] < self._next or self._process != os.getpid():
            self._frames, self._next, self._process = self._decode(), 0, os.getpid()
        frames: dict[int, np.ndarray] = {}
        with decoding(str(self), HINT):
            while self._next <= indices[-1]:
                frame = next(self._frames, None)
                if frame is None:
                    raise DataError(
                        f"{self}: is truncated after {self._next} frames, expected {self.length} "
                        f"at {self.fps:g} a second; download it again"
                    )
                if self._next in indices:
                    frames[self._next] = frame
                self._next += 1
        for i in indices:
            if frames[i].shape[1:] != self.shape:
                raise DataError(
                    f"{self}: frame {i} is {format_size(frames[i].shape)}, the video "
                    f"{format_size(self.shape)}; expected frames of one size: set the option size "
                    "to resize all"
                )
        return np.stack([frames[i] for i in indices])

    def _open(self) -> Any:
        if self.inside is None:
            return open_video(self.path, str(self))
        check_file(self.path)
        with zipfile.ZipFile(self.path) as archive:
            check_bytes(str(self), archive.getinfo(self.inside).file_size)
            return open_video(io.BytesIO(archive.read(self.inside)), str(self))

    def _decode(self) -> Iterator[np.ndarray]:
        """Yield every frame, uint8 (C, H, W)."""
        with self._open() as container:
            for frame in decode_video(container, self.channels, self.size):
                yield np.moveaxis(frame, -1, 0)  # (H, W, C) to (C, H, W)

"""Videos: any files or folders of pictures, and KTH."""

from __future__ import annotations

import functools
import io
import os
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from zoo.data.files import VIDEOS, decoding, is_picture, natural, read_frames
from zoo.data.recordings import Series
from zoo.data.series import SequenceDataset
from zoo.errors import ZooError

__all__ = ["KTH", "Clip", "Video"]

#: Names of folders by which a data set says what is for what.
PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}


class Clip:
    """A video that is read a few frames at a time: ``clip.read(start, stop)`` is uint8.

    Frames are (T, C, H, W), grey for 1 channel and RGB for 3, resized to `size` (height, width)
    by area if given, and taken at `fps` of the video's frames a second if given (the frame that
    is shown at each moment; the video's own rate is taken to be constant). Going forward is
    quick; going back decodes from the beginning again.
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
        with decoding(str(self), "is it complete, and a video?"), self._open() as container:
            if not container.streams.video:
                raise ZooError(f"{self}: holds no video, expected a video stream")
            stream = container.streams.video[0]
            rate = stream.average_rate or stream.guessed_rate
            self.shape = size or (int(stream.height), int(stream.width))
            count = stream.frames or sum(p.size > 0 for p in container.demux(stream))
        if not count:
            raise ZooError(f"{self}: holds no frames, expected at least one; choose another file")
        self.rate = float(rate) if rate else 25.0
        self.fps = self.rate if fps is None else float(fps)
        if not 0 < self.fps <= self.rate:
            raise ZooError(
                f"{self}: fps is {self.fps:g}, the video has {self.rate:g}; choose up to that many"
            )
        self.length = max(1, int(count * self.fps / self.rate + 1e-6))

    def __str__(self) -> str:
        return f"{self.path}:{self.inside}" if self.inside else str(self.path)

    def __getstate__(self) -> dict[str, Any]:
        """Without the decoder, which no other process can use."""
        return {**self.__dict__, "_frames": None}

    def read(self, start: int, stop: int) -> np.ndarray:
        """Frames start … stop − 1, uint8 (T, C, H, W); ZooError where it does not decode."""
        indices = [int(i * self.rate / self.fps + 1e-6) for i in range(start, stop)]
        if self._frames is None or indices[0] < self._next or self._process != os.getpid():
            self._frames, self._next, self._process = self._decode(), 0, os.getpid()
        taken: dict[int, np.ndarray] = {}
        with decoding(str(self), "is it complete, and a video?"):
            while self._next <= indices[-1]:
                frame = next(self._frames, None)
                if frame is None:
                    raise ZooError(
                        f"{self}: ends after {self._next} frames, {self.length} are announced at "
                        f"{self.fps:g} a second; it is cut off: fetch it again"
                    )
                if self._next in indices:
                    taken[self._next] = frame
                self._next += 1
        for i in indices:
            if taken[i].shape[1:] != self.shape:
                got, expected = ("×".join(map(str, s)) for s in (taken[i].shape[1:], self.shape))
                raise ZooError(
                    f"{self}: frame {i} is {got}, the video {expected}; expected frames of one "
                    "size: resize all by the option size"
                )
        return np.stack([taken[i] for i in indices])

    def _open(self) -> Any:
        import av

        if self.inside is None:
            return av.open(str(self.path))
        with zipfile.ZipFile(self.path) as archive:
            return av.open(io.BytesIO(archive.read(self.inside)))

    def _decode(self) -> Iterator[np.ndarray]:
        """Every frame, (C, H, W) of uint8."""
        height, width = self.size or (None, None)
        with self._open() as container:
            for frame in container.decode(video=0):
                picture = frame.to_ndarray(
                    format="gray" if self.channels == 1 else "rgb24",
                    width=width,
                    height=height,
                    interpolation="AREA",
                )
                yield picture[None] if self.channels == 1 else np.moveaxis(picture, -1, 0)


class Video(SequenceDataset):
    """Videos of any kind, and folders of pictures, each a recording.

    Options, beside those of every data set of recordings: size, (height, width) or
    one number, to which all are resized; colour, RGB in place of grey; fps, frames a second,
    for videos. Files below folders called train or training, val or valid or validation, test
    or testing are of that part; without such folders the last files, in the order of the
    numbers in their names, are the test part (test_share, 0.2), of a lone one its last frames.
    """

    title = "Videos"
    folder = "video"
    licence = "that of the videos"
    layout = "videos (.mp4, .avi, .mkv, …) or folders of pictures, in any folders"
    counts = "as they are"
    split_by = "series"
    meaning: ClassVar[dict[str, Any]] = {"low": 0.0, "high": 1.0}

    def read_series(
        self,
        size: int | str | list[int] | tuple[int, int] | None = None,
        colour: bool = False,
        fps: float | None = None,
    ) -> tuple[list[Series], dict[str, Any]]:
        """All videos and folders of pictures below the folder."""
        shape, channels = _check_size(size), 3 if colour else 1
        files = [self.root] if self.root.is_file() else sorted(self.root.rglob("*"), key=natural)
        clips = [
            Clip(path, channels=channels, size=shape, fps=fps)
            for path in files
            if path.suffix.lower() in VIDEOS and path.is_file()
        ]
        series = [
            Series(
                str(clip),
                clip.length,
                clip.read,
                part=self._part(clip.path),
                whole=True,
                size=clip.shape,
            )
            for clip in clips
        ]
        pictures = [p for p in files if is_picture(p) and p.is_file()]
        for folder in sorted({p.parent for p in pictures}, key=natural):
            read = functools.partial(_read_pictures, folder, channels, shape)
            inside = [p for p in pictures if p.parent == folder]
            series.append(
                Series(
                    str(folder),
                    len(inside),
                    read,
                    part=self._part(folder),
                    whole=True,
                    size=shape or read_frames(folder, channels=1, part=slice(1)).shape[2:],
                )
            )
        rates = {round(clip.fps, 3): clip for clip in clips}
        if len(rates) > 1:
            (one, first), (two, second) = sorted(rates.items())[:2]
            raise ZooError(
                f"{first} has {one:g} frames a second and {second} {two:g}; choose one rate for "
                f"all by the option fps = {one:g}"
            )
        return series, {"time_step": 1 / clips[0].fps} if clips else {}

    def _part(self, path: Path) -> str | None:
        names = path.relative_to(self.root).parts if path != self.root else ()
        return next((PARTS[name.lower()] for name in names if name.lower() in PARTS), None)


class KTH(SequenceDataset):
    """KTH actions (Schuldt et al. 2004): 25 people, six actions, four scenes, 25 frames a second.

    As in the papers: walking, jogging and running; persons 1–16 train, 17–25 are tested; frames
    of 160 × 120 resized to 128 × 128, grey; cut to the frames in which a person is to be seen,
    by the data set's own ``00sequences.txt``; windows start every 10 frames of walking and
    jogging, every 3 of running (and every 10 of the other actions). How many sequences that
    gives is printed by ``zoo data check``; published counts disagree.

    Options, beside those of every data set of recordings: size, (height, width) or
    one number; actions, a list of names; whole, to take whole clips, without 00sequences.txt;
    valid_persons, numbers of persons of the training part that make up the valid part instead.
    """

    title = "KTH actions"
    folder = "kth"
    licence = "for research"
    source = "www.csc.kth.se/cvap/actions"
    layout = "the six .zip files, or the .avi files in any folders, and 00sequences.txt"
    counts = (
        "599 clips (person 13's handclapping in scene 3 is absent), 2,391 sequences in "
        "00sequences.txt; no checksums are published"
    )
    split_by = "series"
    meaning: ClassVar[dict[str, Any]] = {"low": 0.0, "high": 1.0, "time_step": 1 / 25}

    ACTIONS = ("boxing", "handclapping", "handwaving", "jogging", "running", "walking")
    TRAIN = range(1, 17)  # persons

    def read_series(
        self,
        size: int | str | list[int] | tuple[int, int] | None = 128,
        actions: list[str] | tuple[str, ...] = ("walking", "jogging", "running"),
        whole: bool = False,
        valid_persons: list[int] | tuple[int, ...] = (),
    ) -> tuple[list[Series], dict[str, Any]]:
        """A recording for each line of frames in 00sequences.txt, or each clip."""
        if wrong := sorted({*actions} - {*self.ACTIONS}):
            raise ZooError(f"KTH has no action {wrong[0]!r}; there are {', '.join(self.ACTIONS)}")
        if wrong := sorted({*valid_persons} - {*self.TRAIN}):
            raise ZooError(
                f"valid_persons holds {wrong[0]}; the persons of the training part are "
                f"{min(self.TRAIN)} to {max(self.TRAIN)}"
            )
        found = [
            (match, path, inside) for match, path, inside in self._files() if match[2] in actions
        ]
        if not found:
            raise ZooError(
                f"{self.root} holds no clip of {', '.join(actions)}: {self._where_to_get()}, or "
                "choose others by the option actions"
            )
        ranges = {} if whole else self._ranges()
        series = []
        for match, path, inside in found:
            person, action, scene = int(match[1]), match[2], match[3]
            clip = Clip(path, inside=inside, size=_check_size(size))
            key = f"person{person:02}_{action}_d{scene}"
            part = "train" if person in self.TRAIN else "test"
            if person in valid_persons:
                part = "valid"
            if not whole and key not in ranges:
                raise ZooError(
                    f"{clip}: 00sequences.txt says nothing of {key}; take the clip away, or take "
                    "whole clips by the option whole = true"
                )
            for first, last in ranges.get(key, [(1, clip.length)]):
                # The list counts some clips a few frames longer than they are.
                last = min(last, clip.length)
                if first <= last:
                    series.append(
                        Series(
                            f"{clip}, frames {first}-{last}",
                            last - first + 1,
                            functools.partial(_read_from, clip, first - 1),
                            part=part,
                            whole=True,
                            stride=3 if action == "running" else 10,
                        )
                    )
        return series, {}

    def _files(self) -> Iterator[tuple[re.Match[str], Path, str | None]]:
        """The clips: what their names say, the file, and the name inside of a zip."""
        name = re.compile(r"person(\d\d)_([a-z]+)(?:_d(\d))?(?:_uncomp)?\.avi")
        for path in sorted(self.root.rglob("*"), key=natural):
            if path.suffix == ".avi" and (match := name.fullmatch(path.name)):
                yield match, path, None
            elif path.suffix == ".zip":
                with decoding(path, "is it a whole zip file?"), zipfile.ZipFile(path) as archive:
                    inner = archive.namelist()
                for inside in sorted(inner, key=natural):
                    if match := name.fullmatch(Path(inside).name):
                        yield match, path, inside

    def _ranges(self) -> dict[str, list[tuple[int, int]]]:
        """The frames of every clip in which a person is seen, counted from 1, both included."""
        path = next(iter(sorted(self.root.rglob("00sequences.txt"))), None)
        if path is None:
            raise ZooError(
                f"{self.root} holds no 00sequences.txt, which says where a person is seen: get it "
                f"from {self.source}, or take whole clips by the option whole = true"
            )
        text = path.read_text(encoding="latin-1")
        lines = re.findall(r"^\s*(person\d\d_[a-z]+_d\d)\s+frames\s+([-\d, \t]+)", text, re.M)
        if not lines:
            raise ZooError(f"{path} is no list of sequences; fetch it again from {self.source}")
        return {
            key: [(int(a), int(b)) for a, b in re.findall(r"(\d+)\s*-\s*(\d+)", frames)]
            for key, frames in lines
        }


def _read_from(clip: Clip, first: int, start: int, stop: int) -> np.ndarray:
    return clip.read(first + start, first + stop)


def _read_pictures(
    folder: Path, channels: int, size: tuple[int, int] | None, start: int, stop: int
) -> np.ndarray:
    return read_frames(folder, channels=channels, size=size, part=slice(start, stop))


def _check_size(size: int | str | Sequence[int] | None) -> tuple[int, int] | None:
    """(height, width) of a number, two numbers or "HEIGHTxWIDTH"."""
    if size is None:
        return None
    if isinstance(size, str):
        values = [int(part) for part in size.split("x") if part.isdecimal()]
    else:
        values = [size, size] if isinstance(size, int) else [*size]
    if len(values) != 2 or not all(isinstance(v, int) and 0 < v <= 4096 for v in values):
        raise ZooError(f"size is {size!r}; expected one number, or height and width")
    return values[0], values[1]

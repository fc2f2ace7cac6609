"""Videos: any files or folders of pictures, and KTH."""

from __future__ import annotations

import functools
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo.config import Data
from zoo.data.clip import Clip
from zoo.data.files import VIDEOS, is_picture, natural, read_frames
from zoo.data.recordings import Series
from zoo.data.series import SequenceDataset
from zoo.errors import ConfigError, DataError, did_you_mean
from zoo.inputs import check_file, decoding, read_text

__all__ = ["KTH", "Video"]

#: Names of folders that assign their files to a part.
PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}


class Video(SequenceDataset):
    """Videos of any kind, and folders of pictures, each a recording.

    Files in folders named train or training, val, valid or validation, and test or testing are
    of that part. Without such folders, the last files in the order of the numbers in their names
    are the test part (test_share, 0.2); of a single video, its last frames.

    size: (height, width) or one number, to resize all to.
    color: RGB instead of gray.
    fps: Frames a second, for videos.
    valid_clips: Paths of videos or folders of pictures, such as "training/13.mp4", that are the
        validation part instead of their own.
    """

    title = "Videos"
    folder = "video"
    license = "that of the videos"
    layout = "videos (.mp4, .avi, .mkv, …) or folders of pictures, in any folders"
    counts = "depend on the files"
    split_by = "series"
    data = Data(low=0.0, high=1.0)

    def read_series(
        self,
        size: int | str | list[int] | tuple[int, int] | None = None,
        color: bool = False,
        fps: float | None = None,
        valid_clips: list[str] | tuple[str, ...] = (),
    ) -> tuple[list[Series], dict[str, Any]]:
        """Return all videos and folders of pictures in the folder."""
        shape, channels = _check_size(size), 3 if color else 1
        files = [self.root] if self.root.is_file() else sorted(self.root.rglob("*"), key=natural)
        clips = [
            Clip(path, channels=channels, size=shape, fps=fps)
            for path in files
            if path.suffix.lower() in VIDEOS and not path.is_dir()
        ]
        rates = {round(clip.fps, 3): clip for clip in clips}
        if len(rates) > 1:
            (rate, clip), (other_rate, other) = sorted(rates.items())[:2]
            raise DataError(
                f"{clip} has {rate:g} frames a second and {other} {other_rate:g}; set the option "
                f"fps = {rate:g} to read all at one rate"
            )
        series = [
            Series(
                str(clip),
                clip.length,
                clip.read,
                part=self._part(clip.path, valid_clips),
                whole=True,
                size=clip.shape,
            )
            for clip in clips
        ]
        pictures = [p for p in files if is_picture(p) and not p.is_dir()]
        for folder in sorted({p.parent for p in pictures}, key=natural):
            count = sum(p.parent == folder for p in pictures)
            part = self._part(folder, valid_clips)
            series.append(_open_pictures(folder, count, channels, shape, part))
        names = {Path(recording.name).relative_to(self.root).as_posix() for recording in series}
        if wrong := sorted({*valid_clips} - names):
            raise ConfigError(
                f"valid_clips contains {wrong[0]!r}, which is not a video or a folder of pictures "
                f"in {self.root}{did_you_mean(wrong[0], names)}"
            )
        return series, {"time_step": 1 / clips[0].fps} if clips else {}

    def _part(self, path: Path, valid_clips: Sequence[str]) -> str | None:
        name = path.relative_to(self.root).as_posix()
        if name in valid_clips:
            return "valid"
        folders = name.lower().split("/")
        return next((PARTS[folder] for folder in folders if folder in PARTS), None)


class KTH(SequenceDataset):
    """KTH actions (Schuldt et al. 2004): 25 people, six actions, four scenes, 25 frames a second.

    As in the papers: walking, jogging and running; persons 1–16 for training, 17–25 for test;
    frames of 160 × 120 resized to 128 × 128, gray; cut to the frames in which a person is visible
    according to ``00sequences.txt``; windows start every 10 frames of walking and jogging, every
    3 of running (and every 10 of the other actions). ``zoo data check`` prints the resulting
    number of sequences; published numbers disagree.

    size: (height, width) or one number.
    actions: List of names.
    whole: Read whole clips, without 00sequences.txt.
    valid_persons: Persons of the training part, by number, that are the validation part instead.
    """

    title = "KTH actions"
    folder = "kth"
    license = "for research"
    source = "www.csc.kth.se/cvap/actions"
    layout = "the six .zip files, or the .avi files in any folders, and 00sequences.txt"
    counts = (
        "599 clips (person 13's handclapping in scene 3 is absent), 2,391 sequences in "
        "00sequences.txt; no checksums are published"
    )
    split_by = "series"
    data = Data(low=0.0, high=1.0, time_step=1 / 25)

    ACTIONS = ("boxing", "handclapping", "handwaving", "jogging", "running", "walking")
    TRAIN = range(1, 17)  # persons

    def read_series(
        self,
        size: int | str | list[int] | tuple[int, int] | None = 128,
        actions: list[str] | tuple[str, ...] = ("walking", "jogging", "running"),
        whole: bool = False,
        valid_persons: list[int] | tuple[int, ...] = (),
    ) -> tuple[list[Series], dict[str, Any]]:
        """Return a recording for each range of frames in 00sequences.txt, or each clip."""
        if wrong := sorted({*actions} - {*self.ACTIONS}):
            raise ConfigError(
                f"actions contains {wrong[0]!r}; expected some of {', '.join(self.ACTIONS)}"
            )
        if wrong := sorted({*valid_persons} - {*self.TRAIN}):
            raise ConfigError(
                f"valid_persons contains {wrong[0]}; the persons of the training part are "
                f"{min(self.TRAIN)} to {max(self.TRAIN)}"
            )
        files = [file for file in self._files() if file[0]["action"] in actions]
        if not files:
            raise DataError(
                f"{self.root} contains no clip of {', '.join(actions)}: {self._where_to_get}, or "
                "choose other actions"
            )
        ranges = None if whole else self._read_ranges()
        series = []
        for name, path, inside in files:
            person, action = int(name["person"]), name["action"]
            part = "train" if person in self.TRAIN else "test"
            part = "valid" if person in valid_persons else part
            clip = Clip(path, inside=inside, size=_check_size(size))
            for first, last in self._visible(clip, name, ranges):
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
        """Yield the clips: the match of the name, the file, and the name in a zip file."""
        name = re.compile(r"person(?P<person>\d\d)_(?P<action>[a-z]+)(?:_d(\d))?(?:_uncomp)?\.avi")
        for path in sorted(self.root.rglob("*"), key=natural):
            if path.suffix == ".avi" and (match := name.fullmatch(path.name)):
                yield match, path, None
            elif path.suffix == ".zip":
                check_file(path)
                with decoding(path, "is the zip file complete?"), zipfile.ZipFile(path) as archive:
                    inner = archive.namelist()
                for inside in sorted(inner, key=natural):
                    if match := name.fullmatch(Path(inside).name):
                        yield match, path, inside

    def _visible(
        self,
        clip: Clip,
        name: re.Match[str],
        ranges: dict[str, list[tuple[int, int]]] | None,
    ) -> list[tuple[int, int]]:
        """Return the ranges of frames of a clip to use, counted from 1, both ends included."""
        if ranges is None:
            return [(1, clip.length)]
        key = f"person{name['person']}_{name['action']}_d{name[3]}"
        if key not in ranges:
            raise DataError(
                f"{clip}: 00sequences.txt does not list {key}; remove the clip, or read whole "
                "clips with the option whole = true"
            )
        # The list counts some clips a few frames longer than they are.
        clipped = [(first, min(last, clip.length)) for first, last in ranges[key]]
        return [(first, last) for first, last in clipped if first <= last]

    def _read_ranges(self) -> dict[str, list[tuple[int, int]]]:
        """Return the frames of every clip in which a person is visible."""
        path = next(iter(sorted(self.root.rglob("00sequences.txt"))), None)
        if path is None:
            raise DataError(
                f"{self.root} contains no 00sequences.txt, which lists the frames with a person: "
                f"get it from {self.source}, or read whole clips with the option whole = true"
            )
        text = read_text(path, "latin-1")
        lines = re.findall(r"^\s*(person\d\d_[a-z]+_d\d)\s+frames\s+([-\d, \t]+)", text, re.M)
        if not lines:
            raise DataError(f"{path} is not a list of sequences; get it from {self.source} again")
        return {
            key: [(int(a), int(b)) for a, b in re.findall(r"(\d+)\s*-\s*(\d+)", frames)]
            for key, frames in lines
        }


def _read_from(clip: Clip, first: int, start: int, stop: int) -> np.ndarray:
    return clip.read(first + start, first + stop)


def _open_pictures(
    folder: Path, count: int, channels: int, size: tuple[int, int] | None, part: str | None
) -> Series:
    return Series(
        str(folder),
        count,
        functools.partial(_read_pictures, folder, channels, size),
        part=part,
        whole=True,
        size=size or read_frames(folder, channels=1, part=slice(1)).shape[2:],
    )


def _read_pictures(
    folder: Path, channels: int, size: tuple[int, int] | None, start: int, stop: int
) -> np.ndarray:
    return read_frames(folder, channels=channels, size=size, part=slice(start, stop))


def _check_size(size: int | str | Sequence[int] | None) -> tuple[int, int] | None:
    """Return (height, width) from a number, two numbers or "HEIGHTxWIDTH"."""
    if size is None:
        return None
    if isinstance(size, str):
        values = [int(part) for part in size.split("x") if part.isdecimal()]
    else:
        values = [size, size] if isinstance(size, int) else [*size]
    if len(values) != 2 or not all(isinstance(v, int) and 0 < v <= 4096 for v in values):
        raise ConfigError(f"size is {size!r}; expected one number, or height and width")
    return values[0], values[1]

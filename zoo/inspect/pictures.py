"""Pictures of a forecast next to the truth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from einops import rearrange

from zoo.data.files import check_writable, write_frames
from zoo.errors import ConfigError, DataError
from zoo.inspect.palettes import Palette

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

    Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

__all__ = ["comparison_gif", "comparison_strip", "evenly_spaced", "frame_time"]

Color = tuple[int, int, int]

PAPER, INK, FAINT = (250, 250, 248), (40, 42, 46), (128, 130, 136)
PAST, FUTURE = (70, 120, 180), (225, 110, 30)  # of input and forecast frames
COLUMNS = 10  # frames shown of a long sequence
MARGIN, GAP, LINE = 16, 6, 20  # pixels: around the picture, between frames, per line of text
PATCH = 14  # pixels of a color in the legend


def comparison_strip(
    past: np.ndarray,
    truth: np.ndarray,
    forecast: np.ndarray | Mapping[str, np.ndarray],
    *,
    low: float = 0.0,
    high: float = 1.0,
    names: Sequence[str] = ("input", "truth", "forecast"),
    palette: Palette | None = None,
    time_step: float | None = None,
    note: str = "",
) -> Image.Image:
    """Draw the frames of one sequence in rows: input, truth, forecast, |difference|.

    Arrays are (T, C, H, W) with 1 channel (gray) or 3 (RGB). Differences are averaged over the
    channels and go from black (none) over red and yellow to white (`high - low`). Of more than
    10 frames, 10 evenly spaced ones are shown. Above each frame is its time; `t` is the last
    frame of the input.

    Args:
        past: Input frames.
        truth: The frames that followed.
        forecast: The forecast, or several by name, with two rows each.
        low: The value shown in black.
        high: The value shown in white.
        names: Labels of the rows.
        palette: Colors for one channel, with a legend; shades of gray by default.
        time_step: Seconds between frames. Times are in minutes if it is given and at least 1,
            else in frames.
        note: Text below the rows.

    Raises:
        DataError: If the shapes do not fit together.
    """
    palette = palette or Palette(low, high)
    forecasts = _by_name(forecast, names[-1])
    _check(past, truth, forecasts, low, high)
    spread = palette.spread or high - low
    given, ahead = evenly_spaced(len(past)), evenly_spaced(len(truth))
    times = [frame_time(i - len(past) + 1, time_step) for i in given]
    rows = [_Row(names[0], PAST, palette.colors(past[given]), times)]
    times = [frame_time(i + 1, time_step) for i in ahead]
    rows.append(_Row(names[1], INK, palette.colors(truth[ahead]), times))
    for name, frames in forecasts.items():
        error = np.abs(np.subtract(truth[ahead], frames[ahead], dtype=np.float32))
        error = error.mean(1)  # (T, C, H, W) to (T, H, W)
        rows.append(_Row(name, FUTURE, palette.colors(frames[ahead])))
        rows.append(_Row("|difference|", FAINT, _heat(error / spread)))
    notes = [f"|difference|: white is {spread:.3g} or more"] if palette.legend() else []
    return _draw_strip(rows, palette, [*notes, note] if note else notes, _display_size(truth, 96))


def comparison_gif(
    path: str | Path,
    past: np.ndarray,
    truth: np.ndarray,
    forecast: np.ndarray | Mapping[str, np.ndarray],
    *,
    fps: float = 5.0,
    low: float = 0.0,
    high: float = 1.0,
    palette: Palette | None = None,
    time_step: float | None = None,
) -> None:
    """Animate one sequence, with the truth at the left and the forecasts next to it.

    Each panel first plays the input with a blue border, then the truth or the forecast with an
    orange one. The last frame is held for a second.

    Args:
        path: Output file, .gif or .mp4.
        past: Input frames, as for :func:`comparison_strip`.
        truth: The frames that followed.
        forecast: The forecast, or several by name.
        fps: Frames per second.
        low: The value shown in black.
        high: The value shown in white.
        palette: Colors for one channel; shades of gray by default.
        time_step: Seconds between frames, as for :func:`comparison_strip`.

    Raises:
        ConfigError: If the file cannot be written.
        DataError: If the shapes do not fit together.
    """
    if Path(path).suffix.lower() not in (".gif", ".mp4"):
        raise ConfigError(f"{path}: the suffix is not supported; expected .gif or .mp4")
    check_writable(path)
    forecasts = _by_name(forecast, "forecast")
    _check(past, truth, forecasts, low, high)
    palette, size = palette or Palette(low, high), _display_size(truth, 224)
    panels = {
        name: palette.colors(np.concatenate([past, future]))
        for name, future in {"truth": truth, **forecasts}.items()
    }
    captions = [("input", frame_time(i - len(past) + 1, time_step)) for i in range(len(past))]
    captions += [("forecast", frame_time(i + 1, time_step)) for i in range(len(truth))]
    shown = [_draw_panels(panels, captions, t, size) for t in range(len(captions))]
    shown += shown[-1:] * max(1, round(fps))
    frames = rearrange(np.stack(shown), "t h w c -> t c h w")
    write_frames(path, frames, fps=fps, low=0, high=255)


@dataclass(frozen=True)
class _Row:
    """A row of a strip: frames (T, H, W, 3), with their times above if there are any."""

    name: str
    color: Color
    frames: np.ndarray
    times: Sequence[str] = ()


def _draw_strip(
    rows: Sequence[_Row], palette: Palette, notes: Sequence[str], size: tuple[int, int]
) -> Image.Image:
    """Draw rows of frames of `size` (width, height), and the legend and notes below."""
    from PIL import Image, ImageDraw

    font, small = _font(15), _font(13)
    width, height = size
    times = [time for row in rows for time in row.times]
    column = max(width, *(_width(small, time) + GAP for time in times)) + GAP
    left = MARGIN + max(_width(font, row.name) for row in rows) + 2 * GAP
    right = left + max(
        column * max(len(row.frames) for row in rows) - GAP,
        _legend_width(palette, small),
        *(_width(small, note) for note in notes),
        0,
    )
    lines = sum(bool(row.times) for row in rows)
    bottom = 2 * MARGIN + len(rows) * (height + GAP) + LINE * lines
    if notes:
        bottom += GAP + LINE * (bool(palette.legend()) + len(notes))
    picture = Image.new("RGB", (right + MARGIN, bottom), PAPER)
    draw = ImageDraw.Draw(picture)

    y = MARGIN
    for row in rows:
        if row.times:
            y += GAP if y > MARGIN else 0  # more space between input and truth
            for i, time in enumerate(row.times):
                middle = left + i * column + (column - GAP) / 2
                draw.text((middle, y + LINE / 2 - 2), time, FAINT, small, anchor="mm")
            y += LINE
        draw.text((left - 2 * GAP, y + height / 2), row.name, row.color, font, anchor="rm")
        for i, frame in enumerate(row.frames):
            x = left + i * column + (column - GAP - width) // 2
            picture.paste(_resized(frame, size), (x, y))
        y += height + GAP
    y += GAP
    if palette.legend():
        _draw_legend(draw, (left, y), palette, small)
        y += LINE
    for note in notes:
        draw.text((left, y + 7), note, FAINT, small, anchor="lm")
        y += LINE
    return picture


def _draw_panels(
    panels: Mapping[str, np.ndarray],
    captions: Sequence[tuple[str, str]],
    t: int,
    size: tuple[int, int],
) -> np.ndarray:
    """Draw frame `t` of every panel; returns RGB (H, W, 3).

    Args:
        panels: Frames (T, H, W, 3) by name.
        captions: Kind ("input" or "forecast") and time of every frame.
        t: Index of the frame.
        size: (width, height) of a frame in the picture.
    """
    from PIL import Image, ImageDraw

    font, small = _font(16), _font(14)
    width, height = size
    longest = max(_width(small, f"{kind}  {time}") for kind, time in captions)
    panel = max(width, longest, *(_width(font, name) for name in panels)) + 4 * GAP
    right = 2 * MARGIN + len(panels) * panel - 4 * GAP
    picture = Image.new("RGB", (right, 2 * MARGIN + 2 * (LINE + GAP) + height), PAPER)
    draw = ImageDraw.Draw(picture)
    kind, time = captions[t]
    color = PAST if kind == "input" else FUTURE
    y = MARGIN + LINE + GAP
    for i, (name, frames) in enumerate(panels.items()):
        x = MARGIN + i * panel + (panel - 4 * GAP - width) // 2
        middle = x + width / 2
        draw.text((middle, MARGIN + LINE / 2), name, INK, font, anchor="mm")
        draw.rectangle((x - 3, y - 3, x + width + 2, y + height + 2), color)
        picture.paste(_resized(frames[t], size), (x, y))
        caption = f"{kind if kind == 'input' or i else 'truth'}  {time}"
        draw.text((middle, y + height + GAP + LINE / 2), caption, color, small, anchor="mm")
    return np.asarray(picture)


def _draw_legend(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], palette: Palette, font: Font
) -> None:
    """Draw a patch of each color with the value at which it starts, and the unit."""
    x, y = at
    for text, color in palette.legend():
        draw.rectangle((x, y, x + PATCH, y + PATCH), color, outline=FAINT)
        draw.text((x + PATCH + 4, y + PATCH / 2), text, FAINT, font, anchor="lm")
        x += _entry_width(text, font)
    draw.text((x, y + PATCH / 2), palette.unit, FAINT, font, anchor="lm")


def _legend_width(palette: Palette, font: Font) -> int:
    """Return the width that :func:`_draw_legend` takes."""
    entries = sum(_entry_width(text, font) for text, _ in palette.legend())
    return entries + _width(font, palette.unit)


def _entry_width(text: str, font: Font) -> int:
    return PATCH + 4 + _width(font, text) + 2 * GAP


def _by_name(forecast: np.ndarray | Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    return dict(forecast) if isinstance(forecast, Mapping) else {name: forecast}


def _check(
    past: np.ndarray, truth: np.ndarray, forecasts: dict[str, np.ndarray], low: float, high: float
) -> None:
    if truth.ndim != 4 or 0 in truth.shape or truth.shape[1] not in (1, 3):
        raise DataError(
            f"the truth has the shape {truth.shape}; expected (T, C, H, W) with 1 or 3 channels"
        )
    if past.ndim != 4 or len(past) == 0 or past.shape[1:] != truth.shape[1:]:
        raise DataError(
            f"the input has the shape {past.shape}; expected (T, C, H, W) with the C, H, W of the "
            f"truth, {truth.shape[1:]}"
        )
    if not forecasts:
        raise DataError("no forecast is given; expected an array, or arrays by name")
    for name, frames in forecasts.items():
        if frames.shape != truth.shape:
            raise DataError(
                f"{name} has the shape {frames.shape}; expected that of the truth, {truth.shape}"
            )
    if not low < high:
        raise ConfigError(f"low is {low} and high {high}; expected low < high")


def evenly_spaced(length: int, most: int = COLUMNS) -> np.ndarray:
    """Return the indices of at most `most` frames, including the first and the last."""
    return np.linspace(0, length - 1, min(length, most)).round().astype(int)


def frame_time(step: int, time_step: float | None = None) -> str:
    """Return the time of a frame from the last input frame, in minutes or in frames."""
    if not step:
        return "t"
    if time_step is None or time_step < 1:
        return f"t{step:+}"
    return f"t{step * time_step / 60:+.5g} min"


def _heat(share: np.ndarray) -> np.ndarray:
    """Map shares (T, H, W) to RGB (T, H, W, 3): 0 is black, then red, yellow, 1 is white."""
    share = np.nan_to_num(share, nan=0.0)[..., None]
    return np.rint((3 * share - np.arange(3)).clip(0, 1) * 255).astype(np.uint8)


def _display_size(frames: np.ndarray, smallest: int) -> tuple[int, int]:
    """Return the (width, height) in which frames (T, C, H, W) are shown.

    Frames lower than `smallest` are enlarged by an integer, so that pixels stay squares of one
    size; large frames are reduced. None is wider than 3 × `smallest`.
    """
    height, width = frames.shape[-2:]
    enlarged = math.ceil(smallest / height)
    reduced = min(1.0, 4 / 3 * smallest / height)
    factor = min(enlarged if height < smallest else reduced, 3 * smallest / width)
    return max(1, round(width * factor)), max(1, round(height * factor))


def _resized(frame: np.ndarray, size: tuple[int, int]) -> Image.Image:
    from PIL import Image

    # Box: squares when enlarging, means when reducing.
    return Image.fromarray(frame).resize(size, Image.Resampling.BOX)


@cache
def _font(size: int) -> Font:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _width(font: Font, text: str) -> int:
    return math.ceil(font.getlength(text))

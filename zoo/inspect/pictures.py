"""Pictures in which a forecast is seen beside what came."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from einops import rearrange, repeat

from zoo.data.files import check_writable, to_pixels, write_frames
from zoo.errors import ZooError
from zoo.inspect.palettes import Palette

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

__all__ = ["comparison_gif", "comparison_strip"]

PAPER, INK, FAINT = (250, 250, 248), (40, 42, 46), (128, 130, 136)
PAST, FUTURE = (70, 120, 180), (225, 110, 30)  # borders: what is given, what is to come
COLUMNS = 10  # frames shown of a long sequence
MARGIN, GAP, LINE = 16, 6, 20  # pixels: around all, between frames, of a line of text


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
    """Draw the frames of one sequence under one another: input, truth, forecast, |difference|.

    Arrays are (T, C, H, W) with 1 channel (grey) or 3 (RGB), in units where `low` is black
    and `high` white. Differences, averaged over the channels, go from black (none) over red
    and yellow to white (`high - low`). `forecast` may be several, by name: each gets its two
    rows. Of more than 10 frames, 10 are shown, evenly chosen. Above a frame is its time: `t`
    is the last frame of the input, and what follows is told in minutes where the `time_step`
    between frames, in seconds, is known (1 or more). A `note` stands below. A `palette` brings
    colours of its own, with a legend, for one channel. Raises ZooError for shapes that do not
    fit together.
    """
    from PIL import Image, ImageDraw

    palette = palette or Palette(low, high)
    spread = palette.spread or high - low

    forecasts = _named(forecast, names[-1])
    _check(past, truth, forecasts, low, high)
    given, ahead = _chosen(len(past)), _chosen(len(truth))
    before = [_time(i - len(past) + 1, time_step) for i in given]
    after = [_time(i + 1, time_step) for i in ahead]
    rows = [
        (names[0], PAST, before, palette.colours(past[given])),
        (names[1], INK, after, palette.colours(truth[ahead])),
    ]
    for name, frames in forecasts.items():
        off = np.abs(np.subtract(truth[ahead], frames[ahead], dtype=np.float32)).mean(1)
        rows += [
            (name, FUTURE, [], palette.colours(frames[ahead])),
            ("|difference|", FAINT, [], _heat(off / spread)),
        ]

    font, small = _font(15), _font(13)
    legend = palette.legend()
    width, height = _display_size(truth, 96)
    column = max(width, *(_width(small, text) + GAP for text in before + after)) + GAP
    left = MARGIN + max(_width(font, row[0]) for row in rows) + 2 * GAP
    below = [f"|difference|: white is {spread:.3g} or more"] if legend else []
    below += [note] if note else []
    wide = max(
        column * max(len(given), len(ahead)) - GAP,
        _legend_width(legend, palette.unit, small),
        *(_width(small, text) for text in below),
        0,
    )
    tall = 2 * MARGIN + len(rows) * (height + GAP) + LINE * sum(bool(row[2]) for row in rows)
    tall += GAP + LINE * (bool(legend) + len(below)) if below else 0
    picture = Image.new("RGB", (left + wide + MARGIN, tall), PAPER)
    draw = ImageDraw.Draw(picture)
    y = MARGIN
    for name, colour, labels, frames in rows:
        if labels:
            y += GAP if y > MARGIN else 0  # the future stands a little apart
            for i, text in enumerate(labels):
                at = (left + i * column + (column - GAP) / 2, y + LINE / 2 - 2)
                draw.text(at, text, FAINT, small, anchor="mm")
            y += LINE
        draw.text((left - 2 * GAP, y + height / 2), name, colour, font, anchor="rm")
        for i, frame in enumerate(frames):
            x = left + i * column + (column - GAP - width) // 2
            picture.paste(_enlarged(frame, width, height), (x, y))
        y += height + GAP
    y += GAP
    if legend:
        _draw_legend(draw, (left, y), legend, palette.unit, small)
        y += LINE
    for text in below:
        draw.text((left, y + 7), text, FAINT, small, anchor="lm")
        y += LINE
    return picture


def comparison_gif(
    path: str | Path,
    past: np.ndarray,
    truth: np.ndarray,
    forecast: np.ndarray | Mapping[str, np.ndarray],
    *,
    fps: float = 5.0,
    low: float = 0.0,
    high: float = 1.0,
) -> None:
    """Animate one sequence, truth at the left and each forecast beside it, as .gif or .mp4.

    Arrays are as for `comparison_strip`. Every panel first plays the input, with a blue
    border and its time in the caption, then what came and what was forecast, in orange.
    The last frame stays for a second. Raises ZooError for shapes that do not fit together
    and for a path that cannot be written.
    """
    from PIL import Image, ImageDraw

    if Path(path).suffix.lower() not in (".gif", ".mp4"):
        raise ZooError(f"{path}: expected a name that ends in .gif or .mp4; choose one")
    check_writable(path)
    forecasts = _named(forecast, "forecast")
    _check(past, truth, forecasts, low, high)
    panels = {
        name: _colours(np.concatenate([past, future]), low, high)
        for name, future in {"truth": truth, **forecasts}.items()
    }
    font, small = _font(16), _font(14)
    width, height = _display_size(truth, 224)
    captions = [("input", _time(i - len(past) + 1)) for i in range(len(past))]
    captions += [("forecast", _time(i + 1)) for i in range(len(truth))]
    longest = max(_width(small, f"{kind}  {time}") for kind, time in captions)
    panel = max(width, longest, *(_width(font, name) for name in panels)) + 4 * GAP
    size = (
        2 * MARGIN + len(panels) * panel - 4 * GAP,
        2 * MARGIN + 2 * (LINE + GAP) + height,
    )
    shown = []
    for t, (kind, time) in enumerate(captions):
        colour = PAST if kind == "input" else FUTURE
        picture = Image.new("RGB", size, PAPER)
        draw = ImageDraw.Draw(picture)
        for i, (name, frames) in enumerate(panels.items()):
            x = MARGIN + i * panel + (panel - 4 * GAP - width) // 2
            y = MARGIN + LINE + GAP
            middle = x + width / 2
            draw.text((middle, MARGIN + LINE / 2), name, INK, font, anchor="mm")
            draw.rectangle((x - 3, y - 3, x + width + 2, y + height + 2), colour)
            picture.paste(_enlarged(frames[t], width, height), (x, y))
            what = kind if kind == "input" or i else "truth"
            draw.text(
                (middle, y + height + GAP + LINE / 2), f"{what}  {time}", colour, small, anchor="mm"
            )
        shown.append(np.asarray(picture))
    shown += shown[-1:] * max(1, round(fps))
    frames = rearrange(np.stack(shown), "t h w c -> t c h w")
    write_frames(path, frames, fps=fps, low=0, high=255)


def _named(forecast: np.ndarray | Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    return dict(forecast) if isinstance(forecast, Mapping) else {name: forecast}


def _draw_legend(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    legend: list[tuple[str, tuple[int, int, int]]],
    unit: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """A patch of every colour with the value from which on it holds."""
    x, y = at
    for text, colour in legend:
        draw.rectangle((x, y, x + 14, y + 14), colour, outline=FAINT)
        draw.text((x + 18, y + 7), text, FAINT, font, anchor="lm")
        x += 18 + _width(font, text) + 2 * GAP
    draw.text((x, y + 7), unit, FAINT, font, anchor="lm")


def _legend_width(
    legend: list[tuple[str, tuple[int, int, int]]],
    unit: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> int:
    """How wide :func:`_draw_legend` draws."""
    return sum(18 + _width(font, text) + 2 * GAP for text, _ in legend) + _width(font, unit)


def _check(
    past: np.ndarray, truth: np.ndarray, forecasts: dict[str, np.ndarray], low: float, high: float
) -> None:
    if truth.ndim != 4 or 0 in truth.shape or truth.shape[1] not in (1, 3):
        raise ZooError(
            f"got truth of shape {truth.shape}, expected (T, C, H, W) with 1 or 3 channels; "
            "choose one sequence and the channels to show"
        )
    if past.ndim != 4 or len(past) == 0 or past.shape[1:] != truth.shape[1:]:
        raise ZooError(
            f"got input of shape {past.shape}, expected (T, C, H, W) with the C, H, W of the "
            f"truth, {truth.shape[1:]}; cut or resize it"
        )
    if not forecasts:
        raise ZooError("got no forecast, expected at least one; give an array or name: array")
    for name, frames in forecasts.items():
        if frames.shape != truth.shape:
            raise ZooError(
                f"got {name} of shape {frames.shape}, expected that of the truth, {truth.shape}; "
                "predict as many frames as there are to compare with"
            )
    if not low < high:
        raise ZooError(f"got low={low} and high={high}, expected low < high; swap or widen them")


def _chosen(length: int) -> np.ndarray:
    """Return the indices of the frames to show, evenly chosen, with the first and the last."""
    return np.linspace(0, length - 1, min(length, COLUMNS)).round().astype(int)


def _time(step: int, time_step: float | None = None) -> str:
    """A frame's time from the last of the input: in minutes, or in frames."""
    if not step:
        return "t"
    if time_step is None or time_step < 1:
        return f"t{step:+}"
    return f"t{step * time_step / 60:+.5g} min"


def _colours(frames: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map (T, C, H, W) in the units of the data to RGB: (T, H, W, 3), uint8."""
    return repeat(to_pixels(frames, low, high), "t c h w -> t h w (c i)", i=3 // frames.shape[1])


def _heat(share: np.ndarray) -> np.ndarray:
    """Map shares (T, H, W) to RGB (T, H, W, 3): 0 black, then red, yellow, 1 white."""
    share = np.nan_to_num(share, nan=0.0)[..., None]
    return np.rint((3 * share - np.arange(3)).clip(0, 1) * 255).astype(np.uint8)


def _display_size(frames: np.ndarray, smallest: int) -> tuple[int, int]:
    """Return the (width, height) in which frames (T, C, H, W) are shown.

    Frames lower than `smallest` are enlarged by a whole number, so that their pixels stay
    squares of one size; large ones are reduced, and none is wider than 3 × `smallest`.
    """
    height, width = frames.shape[-2:]
    enlarged = math.ceil(smallest / height)
    reduced = min(1.0, 4 / 3 * smallest / height)
    factor = min(enlarged if height < smallest else reduced, 3 * smallest / width)
    return max(1, round(width * factor)), max(1, round(height * factor))


def _enlarged(frame: np.ndarray, width: int, height: int) -> Image.Image:
    from PIL import Image

    # Box: squares when it enlarges, means when it reduces.
    return Image.fromarray(frame).resize((width, height), Image.Resampling.BOX)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _width(font: ImageFont.FreeTypeFont | ImageFont.ImageFont, text: str) -> int:
    return math.ceil(font.getlength(text))

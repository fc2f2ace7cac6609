"""A drawn clip of a person who walks past a fixed camera, in the style of KTH actions.

Drawn by this project from circles and lines; it shows nobody and needs no license.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

__all__ = ["draw_clip"]

DETAIL = 8  # the drawing is this many times larger than the clip, then averaged

#: Limbs as (length of the upper and the lower part, width), for a person of height 1.
LEG = (0.25, 0.25, 0.075)
ARM = (0.17, 0.16, 0.055)
STRIDE = 0.42  # radians by which a thigh swings to either side
PERIOD = 26  # frames for two steps


def draw_clip(frames: int = 20, size: int = 64) -> np.ndarray:
    """Draw the clip: uint8 (frames, 1, size, size)."""
    background = _background(size)
    pictures = [_draw(background, size, t) for t in range(frames)]
    return np.stack(pictures)[:, None]  # (T, H, W) to (T, 1, H, W)


def _background(size: int) -> np.ndarray:
    """A grassy ground under a brighter sky, (size, size) from 0 to 255."""
    smooth = np.random.default_rng(0).normal(size=(size // 4, size // 4)).astype("float32")
    texture = np.asarray(Image.fromarray(smooth).resize((size, size), Image.Resampling.BICUBIC))
    rows = np.linspace(0, 1, size)[:, None]
    return np.where(rows < 0.72, 178 + 12 * rows, 158 - 20 * rows) + 2.5 * texture


def _draw(background: np.ndarray, size: int, t: int) -> np.ndarray:
    """Frame t, (size, size) of uint8."""
    side = size * DETAIL
    cover = Image.new("L", (side, side))  # how much of the ground the person hides, in grey
    draw = ImageDraw.Draw(cover)
    height = 0.55 * side
    phase = 2 * math.pi * t / PERIOD
    x = side * (0.12 + 0.021 * t)
    hip = (x, side * 0.86 - height * (0.485 + 0.012 * math.cos(2 * phase)))
    shoulder = (x + 0.02 * height, hip[1] - 0.31 * height)
    for side_phase, shade in ((phase + math.pi, 190), (phase, 215)):  # far side first
        _limb(draw, hip, LEG, STRIDE * math.sin(side_phase), _knee(side_phase), height, shade)
        _limb(draw, shoulder, ARM, -0.6 * math.sin(side_phase), -0.5, height, shade - 20)
    draw.line([hip, shoulder], fill=235, width=int(0.13 * height))
    _disc(draw, (shoulder[0], shoulder[1] - 0.12 * height), 0.065 * height, 200)
    person = cover.filter(ImageFilter.GaussianBlur(DETAIL / 2)).resize(
        (size, size), Image.Resampling.BOX
    )
    hidden = np.asarray(person, dtype="float32") / 255
    return np.clip(background * (1 - hidden) + 40 * hidden, 0, 255).round().astype(np.uint8)


def _knee(phase: float) -> float:
    """How far the knee is bent: most while the leg swings forward."""
    return 0.15 + 0.75 * max(0.0, math.cos(phase)) ** 2


def _limb(
    draw: ImageDraw.ImageDraw,
    start: tuple[float, float],
    lengths: tuple[float, float, float],
    angle: float,
    bend: float,
    height: float,
    shade: int,
) -> None:
    """Two parts with a joint; angles in radians from straight down, forward is positive."""
    upper, lower, width = (length * height for length in lengths)
    joint = (start[0] + upper * math.sin(angle), start[1] + upper * math.cos(angle))
    end = (
        joint[0] + lower * math.sin(angle - bend),
        joint[1] + lower * math.cos(angle - bend),
    )
    draw.line([start, joint, end], fill=shade, width=int(width), joint="curve")
    for point in (start, joint, end):
        _disc(draw, point, width / 2, shade)


def _disc(
    draw: ImageDraw.ImageDraw, center: tuple[float, float], radius: float, shade: int
) -> None:
    x, y = center
    draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=shade)

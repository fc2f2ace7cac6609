"""Colours in which the numbers of a field are read: rain, reflectivity, counts, pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from einops import repeat

from zoo.config import Data
from zoo.data.files import to_pixels

__all__ = ["Palette", "palette_for"]

#: From so many mm/h on, this colour: blues, greens, yellow, reds and purple, as radars are shown.
RAIN = {
    0.1: (198, 222, 241),
    0.5: (120, 178, 219),
    1.0: (45, 119, 184),
    2.0: (62, 160, 85),
    5.0: (250, 217, 74),
    10.0: (244, 133, 36),
    20.0: (208, 38, 38),
    50.0: (130, 40, 140),
}
ECHO = dict(zip((5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0), RAIN.values(), strict=True))
NOTHING, MISSING = (255, 255, 255), (205, 203, 200)
SPREAD = {"mm/h": 10.0, "dBZ": 30.0}  # the difference that is shown as the strongest


@dataclass(frozen=True)
class Palette:
    """How values become colours.

    low, high: between which values are shaded, where there are no levels.
    levels: from so much on, this colour; below the first, white.
    spread: the |difference| that is shown as the strongest.
    unit: of the values, for the legend.
    shade: "grey", or "viridis" for values that are no pictures.
    """

    low: float = 0.0
    high: float = 1.0
    levels: tuple[tuple[float, tuple[int, int, int]], ...] = ()
    spread: float | None = None
    unit: str = ""
    shade: str = "grey"

    def colours(self, frames: np.ndarray) -> np.ndarray:
        """Frames (T, C, H, W) in units of the data to RGB, (T, H, W, 3) of uint8."""
        if not self.levels and self.shade == "grey":
            pixels = to_pixels(frames, self.low, self.high)
            return repeat(pixels, "t c h w -> t h w (c i)", i=3 // frames.shape[1])
        values = frames[:, 0]
        if self.levels:
            table = np.array([NOTHING, *(colour for _, colour in self.levels)], np.uint8)
            shown = table[np.digitize(np.nan_to_num(values), [level for level, _ in self.levels])]
        else:
            import matplotlib

            share = np.nan_to_num((values - self.low) / (self.high - self.low)).clip(0, 1)
            shown = np.rint(matplotlib.colormaps[self.shade](share)[..., :3] * 255)
        return np.where(np.isnan(values)[..., None], MISSING, shown).astype(np.uint8)

    def legend(self) -> list[tuple[str, tuple[int, int, int]]]:
        """Labels and colours, from low to high; none for pictures."""
        if self.levels:
            return [(f"{level:g}", colour) for level, colour in self.levels]
        if self.shade == "grey":
            return []
        values = np.linspace(self.low, self.high, 6)
        colours = self.colours(values.reshape(6, 1, 1, 1))[:, 0, 0]
        return [
            (f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}", (int(r), int(g), int(b)))
            for value, (r, g, b) in zip(values, colours, strict=True)
        ]


def palette_for(data: Data, frames: np.ndarray) -> Palette:
    """The palette for data, of which `frames` are some: radar colours, shades, or grey."""
    if data.unit in SPREAD:
        levels = RAIN if data.unit == "mm/h" else ECHO
        return Palette(levels=tuple(levels.items()), spread=SPREAD[data.unit], unit=data.unit)
    if data.is_picture:
        return Palette()
    low, high = (float(np.nanquantile(frames, q)) for q in (0.0, 0.995))
    high = high if high > low else low + 1
    return Palette(low, high, spread=(high - low) / 2, unit=data.unit, shade="viridis")

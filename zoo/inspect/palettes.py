"""Color palettes for rain, reflectivity, counts and pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from einops import repeat

from zoo.config import Data
from zoo.data.files import to_pixels

__all__ = ["Palette", "palette_for"]

#: Colors by the rain rate in mm/h at which they start, as usual for radar.
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
SPREAD = {"mm/h": 10.0, "dBZ": 30.0}  # the difference shown in the strongest color


@dataclass(frozen=True)
class Palette:
    """A mapping from values to colors.

    Attributes:
        low: The value at the start of the shades, if there are no levels.
        high: The value at their end.
        levels: Values and the colors that start there; below the first is white.
        spread: The absolute difference shown in the strongest color.
        unit: Unit of the values, for the legend.
        shade: "gray" for pictures, or a colormap of matplotlib.
    """

    low: float = 0.0
    high: float = 1.0
    levels: tuple[tuple[float, tuple[int, int, int]], ...] = ()
    spread: float | None = None
    unit: str = ""
    shade: str = "gray"

    def colors(self, frames: np.ndarray) -> np.ndarray:
        """Map frames (T, C, H, W) in units of the data to RGB, (T, H, W, 3) of uint8."""
        if not self.levels and self.shade == "gray":
            pixels = to_pixels(frames, self.low, self.high)
            return repeat(pixels, "t c h w -> t h w (c i)", i=3 // frames.shape[1])
        values = frames[:, 0]
        if self.levels:
            table = np.array([NOTHING, *(color for _, color in self.levels)], np.uint8)
            shown = table[np.digitize(np.nan_to_num(values), [level for level, _ in self.levels])]
        else:
            import matplotlib

            share = np.nan_to_num((values - self.low) / (self.high - self.low)).clip(0, 1)
            shown = np.rint(matplotlib.colormaps[self.shade](share)[..., :3] * 255)
        return np.where(np.isnan(values)[..., None], MISSING, shown).astype(np.uint8)

    def legend(self) -> list[tuple[str, tuple[int, int, int]]]:
        """Return labels and colors, from low to high; none for pictures."""
        if self.levels:
            return [(f"{level:g}", color) for level, color in self.levels]
        if self.shade == "gray":
            return []
        values = np.linspace(self.low, self.high, 6)
        colors = self.colors(values.reshape(6, 1, 1, 1))[:, 0, 0]
        return [
            (f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}", (int(r), int(g), int(b)))
            for value, (r, g, b) in zip(values, colors, strict=True)
        ]


def palette_for(data: Data, frames: np.ndarray) -> Palette:
    """Return radar colors, shades or gray, as fits the data.

    Args:
        data: What the values mean.
        frames: Some of the frames, which set the range of the shades.
    """
    if data.unit in SPREAD:
        levels = RAIN if data.unit == "mm/h" else ECHO
        return Palette(levels=tuple(levels.items()), spread=SPREAD[data.unit], unit=data.unit)
    if data.is_picture:
        return Palette()
    low, high = (float(np.nanquantile(frames, q)) for q in (0.0, 0.995))
    high = high if high > low else low + 1
    return Palette(low, high, spread=(high - low) / 2, unit=data.unit, shade="viridis")

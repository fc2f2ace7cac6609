"""Radar composites: one grid at one time, whatever the file format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import DataError
from zoo.units import is_same_unit

__all__ = ["ECHO", "RAIN", "Composite", "describe_values", "hdf5_text", "identify"]

RAIN = {"variable": "rain_rate", "unit": "mm/h"}
ECHO = {"variable": "reflectivity", "unit": "dBZ", "low": -10.0, "high": 60.0}

#: Units of rain rates, with the factor that converts them to mm/h, and of amounts of rain.
RATES = {"mm/h": 1.0, "kg m-2 h-1": 1.0, "mm s-1": 3600.0, "kg m-2 s-1": 3600.0}
AMOUNTS = ("mm", "kg m-2")


@dataclass(frozen=True)
class Composite:
    """A grid that is read on demand.

    Attributes:
        time: End of the interval, in UTC.
        product: The weather service's name of the product.
        fields: Fields of :class:`zoo.config.Data`.
        read: Returns (H, W), north up, in the unit of `fields`, NaN where missing.
        label: File, and the place in it if it contains several.
        place: Texts that differ between grids of different places or projections.
    """

    time: datetime
    product: str
    fields: dict[str, Any]
    read: Callable[[], np.ndarray]
    label: str
    place: tuple[str, ...] = ()


def describe_values(name: str, unit: str, interval: timedelta) -> tuple[dict[str, Any], float]:
    """Return the fields of Data for values in any unit, and the factor that converts the values.

    Rain rates, and amounts of rain in a known interval, become mm/h. Other values keep their unit.

    Args:
        name: Name of the quantity.
        unit: As the file writes it, such as "kg m**-2 s**-1".
        interval: Length of an accumulation, 0 if unknown.
    """
    unit = unit.replace("**", "").replace("^", "")
    for known, factor in RATES.items():
        if is_same_unit(unit, known):
            return dict(RAIN), factor
    if interval > timedelta(0) and any(is_same_unit(unit, known) for known in AMOUNTS):
        return dict(RAIN), timedelta(hours=1) / interval
    if is_same_unit(unit, "dBZ"):
        return dict(ECHO), 1.0
    return {"variable": name, "unit": unit}, 1.0


def identify(path: Path, quantity: str, interval: timedelta) -> tuple[dict[str, Any], float]:
    """Return the fields of Data for a quantity, and the factor that converts it to mm/h or dBZ.

    Args:
        path: The file, for messages.
        quantity: Name in upper case, as ODIM or KNMI write it.
        interval: Length of an accumulation.

    Raises:
        DataError: If it is neither rain nor reflectivity.
    """
    if "REFLECTIVITY" in quantity or quantity in ("DBZH", "TH", "DBZ"):
        return dict(ECHO), 1.0
    if quantity == "RATE" or "MM/H" in quantity:
        return dict(RAIN), 1.0
    if quantity == "ACRR" or "[MM]" in quantity:
        if interval <= timedelta(0):
            raise DataError(
                f"{path}: the accumulation starts {-interval} after its end; expected an interval"
            )
        return dict(RAIN), timedelta(hours=1) / interval
    raise DataError(
        f"{path} contains {quantity!r}; expected rain in mm or mm/h, or reflectivity in dBZ"
    )


def hdf5_text(value: Any) -> str:
    """Return an HDF5 attribute as text; a single text may be stored as an array."""
    value = np.ravel(value)[0]
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)

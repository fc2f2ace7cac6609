"""HDF5 composites of the Dutch weather service (KNMI)."""

from __future__ import annotations

import functools
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.composite import Composite, hdf5_text, identify
from zoo.errors import DataError
from zoo.inputs import decoding
from zoo.stores import open_hdf5, read_hdf5

__all__ = ["open_knmi"]

TIME = "%d-%b-%Y;%H:%M:%S.%f"
FORMULA = re.compile(r"GEO\s*=\s*([-+.\deE]+)\s*\*\s*PV\s*([-+]\s*[.\deE]+)?")


def open_knmi(path: Path, file: Any) -> Composite:
    """Open a composite.

    Args:
        path: The file.
        file: The same as h5py.File, open.
    """
    image, calibration = file["image1"], file["image1/calibration"].attrs
    quantity = hdf5_text(image.attrs["image_geo_parameter"])
    gain, offset = _parse_formula(path, hdf5_text(calibration["calibration_formulas"]))
    missing = {
        int(np.ravel(calibration[name])[0])
        for name in ("calibration_missing_data", "calibration_out_of_image")
        if name in calibration
    }
    start, end = (
        datetime.strptime(hdf5_text(file["overview"].attrs[f"product_datetime_{which}"]), TIME)
        for which in ("start", "end")
    )
    fields, factor = identify(path, quantity.upper(), end - start)
    fields["grid_step"] = _grid_step(file)
    product = hdf5_text(image.attrs.get("image_product_name", quantity))
    read = functools.partial(_read, path, gain, offset, factor, missing)
    return Composite(end, product, fields, read, str(path))


def _parse_formula(path: Path, text: str) -> tuple[float, float]:
    """Return gain and offset of the calibration formula."""
    match = FORMULA.fullmatch(text)
    if not match:
        raise DataError(f"{path}: the calibration formula is {text!r}; expected GEO=a*PV+b")
    return float(match[1]), float((match[2] or "0").replace(" ", ""))


def _grid_step(file: Any) -> float:
    """Return the size of a cell in meters."""
    return abs(float(np.ravel(file["geographic"].attrs["geo_pixel_size_x"])[0])) * 1000


def _read(path: Path, gain: float, offset: float, factor: float, missing: set[int]) -> np.ndarray:
    with open_hdf5(path) as file, decoding(path):
        values = read_hdf5(path, file["image1/image_data"])
    grid = (values * np.float64(gain) + offset) * factor
    return np.where(np.isin(values, [*missing]), np.nan, grid).astype(np.float32)

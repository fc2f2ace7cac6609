"""ODIM HDF5 composites, the format of the European weather services."""

from __future__ import annotations

import functools
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.composite import RAIN, Composite, hdf5_text, identify
from zoo.data.files import natural
from zoo.errors import DataError
from zoo.inputs import decoding
from zoo.stores import open_hdf5, read_hdf5

__all__ = ["open_odim"]

#: Quantities that are read, in order of preference.
QUANTITIES = ("RATE", "ACRR", "DBZH", "TH", "DBZ")
NO_ECHO = -32.0  # dBZ of a cell that is observed and reflects nothing


def open_odim(path: Path, file: Any) -> Composite:
    """Open a composite.

    Args:
        path: The file.
        file: The same as h5py.File, open.
    """
    found = _find_quantities(file)
    quantity = next((q for q in QUANTITIES if q in found), None)
    if quantity is None:
        raise DataError(
            f"{path} contains {', '.join(found) or 'no data'}; expected one of "
            f"{', '.join(QUANTITIES)}"
        )
    place, what = found[quantity]
    end, start = (_parse_time(path, place, what, name) for name in ("end", "start"))
    fields, factor = identify(path, quantity, end - start)
    where = file["where"].attrs if "where" in file else {}
    if "xscale" in where:
        fields["grid_step"] = abs(float(where["xscale"]))
    nothing = 0.0 if fields["unit"] == RAIN["unit"] else NO_ECHO
    read = functools.partial(_read, path, place, what, factor, nothing)
    return Composite(end, quantity, fields, read, str(path))


def _find_quantities(file: Any) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return the place and the attributes of the first array of every quantity."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for dataset in sorted((name for name in file if name.startswith("dataset")), key=natural):
        for data in sorted((n for n in file[dataset] if n.startswith("data")), key=natural):
            place = f"{dataset}/{data}"
            what: dict[str, Any] = {}
            for group in ("what", f"{dataset}/what", f"{place}/what"):
                if group in file:
                    what |= dict(file[group].attrs.items())
            found.setdefault(hdf5_text(what.get("quantity", "?")).upper(), (place, what))
    return found


def _parse_time(path: Path, place: str, what: dict[str, Any], name: str) -> datetime:
    """Return the start or the end of a composite, or its nominal time."""
    texts = []
    for key in ("date", "time"):
        text = what.get(name + key, what.get(key))
        if text is None:
            raise DataError(
                f"{path} has neither the attribute {name}{key} in {place}/what nor {key} in what; "
                "expected an ODIM composite with date and time"
            )
        texts.append(hdf5_text(text))
    return datetime.strptime("".join(texts), "%Y%m%d%H%M%S")


def _read(path: Path, place: str, what: dict[str, Any], factor: float, nothing: float) -> Any:
    with open_hdf5(path) as file, decoding(path):
        values = read_hdf5(path, file[f"{place}/data"])
    gain, offset = float(what.get("gain", 1)), float(what.get("offset", 0))
    grid = (values * np.float64(gain) + offset) * factor
    if "undetect" in what:
        grid = np.where(values == what["undetect"], nothing, grid)
    if "nodata" in what:
        grid = np.where(values == what["nodata"], np.nan, grid)
    return grid.astype(np.float32)

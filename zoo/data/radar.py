"""Weather radar: composites of rain rate or reflectivity, as the weather services give them.

Rain is in mm/h and becomes [0, 1] by way of the reflectivity (:class:`zoo.config.Reflectivity`);
reflectivity is in dBZ, −10 to 60 of which are 0 to 1. What a radar does not see is NaN. Times
are those that the files tell, in UTC, and stand for the end of the interval measured.
"""

from __future__ import annotations

import functools
import gzip
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from zoo.data.files import natural
from zoo.data.meteonet import FrameFile, read_dates
from zoo.data.recordings import Series
from zoo.data.series import SequenceDataset
from zoo.errors import ZooError

__all__ = ["DWD", "FMI", "KNMI", "ODIM", "MeteoNet", "read_radolan"]

RAIN = {"variable": "rain_rate", "unit": "mm/h"}
ECHO = {"variable": "reflectivity", "unit": "dBZ", "low": -10.0, "high": 60.0}
NO_ECHO = -32.0  # dBZ of what is seen and reflects nothing
NO_DATA, CLUTTER = 0x2000, 0x8000  # bits of a RADOLAN value; its number is the lower twelve


@dataclass(frozen=True)
class Field:
    """One composite: its time, what it holds, and how to read it.

    time: the end of the interval. meaning: fields of zoo.config.Data. product: the service's
    name of what it is. read: gives (H, W), north up, in the unit of `meaning`, NaN where missing.
    """

    time: datetime
    product: str
    meaning: dict[str, Any]
    read: Callable[[], np.ndarray]


class _Radar(SequenceDataset):
    """A folder of files, each of which holds one composite.

    Options, beside those of every data set of recordings: product, where files of
    several lie together; a, b, low_dbz, high_dbz, the way from rain to [0, 1] (256, 1.42, −10,
    60); low and high in place of them for a linear one.
    """

    meaning: ClassVar[dict[str, Any]] = {"missing": True}
    patterns: ClassVar[tuple[str, ...]] = ()

    def read_series(
        self,
        product: str | None = None,
        a: float = 256.0,
        b: float = 1.42,
        low_dbz: float = -10.0,
        high_dbz: float = 60.0,
    ) -> tuple[list[Series], dict[str, Any]]:
        """All files of the folder, in order of their times, as one recording."""
        fields = [(path, field) for path in self._files() for field in self.open_file(path)]
        kinds = Counter(field.product for _, field in fields)
        if product is not None:
            fields = [(path, field) for path, field in fields if field.product == product]
        if not fields or (product is None and len(kinds) > 1):
            there = ", ".join(f"{kind} ({count} files)" for kind, count in kinds.items())
            odd = min(kinds, key=lambda kind: kinds[kind])
            path = next(path for path, field in fields if field.product == odd) if fields else ""
            told = f"; {path} is {odd}" if fields else ""
            raise ZooError(
                f"{self.root} holds {there}{told}, and the products cannot be mixed; choose one by "
                f"the option product = {max(kinds, key=lambda kind: kinds[kind])!r}"
            )
        fields.sort(key=lambda each: (each[1].time, natural(each[0])))
        path, first = fields[0]
        for other, field in fields:
            if field.meaning != first.meaning:
                raise ZooError(
                    f"{other} holds {field.meaning}, but {path} {first.meaning}; put files of one "
                    "kind together"
                )

        def read(start: int, stop: int) -> np.ndarray:
            grids = []
            for path, field in fields[start:stop]:
                grids.append(field.read())
                if grids[-1].shape != grids[0].shape:
                    raise ZooError(
                        f"{path} is {_size(grids[-1])}, but {fields[start][0]} {_size(grids[0])}; "
                        "expected grids of one size"
                    )
            return np.stack(grids)[:, None]  # (T, H, W) to (T, 1, H, W)

        times = np.array([field.time for _, field in fields], "datetime64[s]")
        labels = [str(path) for path, _ in fields]
        found = dict(first.meaning)
        if found["unit"] == RAIN["unit"]:
            found["reflectivity"] = {"a": a, "b": b, "low": low_dbz, "high": high_dbz}
        return [Series(first.product, len(fields), read, times, labels)], found

    def open_file(self, path: Path) -> list[Field]:
        """The composites of a file, of which only what is needed to tell them apart is read."""
        raise NotImplementedError

    def _files(self) -> list[Path]:
        if self.root.is_file():
            return [self.root]
        files = {p for pattern in self.patterns for p in self.root.rglob(pattern) if p.is_file()}
        if not files:
            raise ZooError(
                f"{self.root} holds no files {' or '.join(self.patterns)}: {self._where_to_get()}"
            )
        return sorted(files, key=natural)


class DWD(_Radar):
    """German radar composites: RADOLAN and RADKLIM binaries, and the archive RYDL.hdf5.

    RY (900 × 900) and YW (1100 × 900) are rain of 5 minutes in steps of 0.01 mm; it is read as
    the mean rate in mm/h. A cell is missing where the file says so, and where it marks clutter.
    RYDL.hdf5 has one array a time, named YYYYMMDDhhmm, of mm in 5 minutes (Ayzel et al. 2020).
    Of RYDL the years from 2015 on are the test part, as in the MS-RNN papers, unless test_from
    or test_share is told.
    """

    title = "DWD radar, Germany"
    folder = "radar/dwd"
    licence = "GeoNutzV, the data licence of the German federal government: name the source, DWD"
    source = (
        "opendata.dwd.de, climate_environment/CDC/grids_germany/5_minutes/radolan; RYDL.hdf5: "
        "doi.org/10.5281/zenodo.3629951"
    )
    layout = "raa01-*-bin, raa01-*-bin.gz (unpacked from their .tar) or RYDL.hdf5, in any folders"
    counts = (
        "288 files a day; 180 × 180 of 5 km: pool = 5; steps of 30 minutes: every = 6; DWD "
        "publishes no checksums, Zenodo the MD5 of RYDL.hdf5"
    )
    patterns = ("raa01-*", "*.hdf5")

    def _usual_test_from(self) -> str | None:
        """2015, as in the papers, of the archive of theirs."""
        return "2015-01-01" if self.series[0].name == "RYDL" else None

    def open_file(self, path: Path) -> list[Field]:
        """A RADOLAN file, or every array of an archive."""
        return _open_rydl(path) if path.suffix == ".hdf5" else [_open_radolan(path)]


class ODIM(_Radar):
    """Radar composites in ODIM HDF5, the format of the European weather services.

    Read is the first of RATE (mm/h), ACRR (an accumulation, as the mean rate), DBZH and TH
    (dBZ) that a file holds. What it calls undetect is no rain, and no echo of −32 dBZ; what it
    calls nodata is missing.
    """

    title = "ODIM HDF5 radar composites"
    folder = "radar/odim"
    licence = "that of the weather service"
    source = "the open-data pages of the weather services (OPERA, DMI, SMHI, and others)"
    layout = "*.h5 or *.hdf, one composite a file, in any folders"
    counts = "as the service has it; no checksums are published"
    patterns = ("*.h5", "*.hdf", "*.hdf5")

    def open_file(self, path: Path) -> list[Field]:
        """One composite, ODIM or KNMI."""
        return [_open_hdf5(path)]


class KNMI(ODIM):
    """Dutch radar composites in KNMI's HDF5: rain of 5 minutes, 765 × 700 cells of 1 km.

    Read as the mean rate in mm/h (``image1/image_data``, scaled by its calibration formula).
    """

    title = "KNMI radar, the Netherlands"
    folder = "radar/knmi"
    licence = "CC BY 4.0 (KNMI open data)"
    source = "dataplatform.knmi.nl, data sets rad_nl25_rac_5min and nl_rdr_data_rtcor_5m"
    layout = "RAD_NL25_*.h5, one time a file, in any folders"
    counts = "288 files a day; no checksums are published"


class FMI(_Radar):
    """Finnish radar composites: reflectivity in dBZ, 1226 × 760 cells of 1 km, as PGM.

    A pixel v is (v − 64) / 2 dBZ, and 255 is missing.
    """

    title = "FMI radar, Finland"
    folder = "radar/fmi"
    licence = "CC BY 4.0 (FMI open data)"
    source = "en.ilmatieteenlaitos.fi/open-data"
    layout = "*.pgm or *.pgm.gz, one time a file, in any folders"
    counts = "288 files a day; no checksums are published"
    patterns = ("*.pgm", "*.pgm.gz")

    def open_file(self, path: Path) -> list[Field]:
        """One composite."""
        return [_open_pgm(path)]


class MeteoNet(SequenceDataset):
    """Météo-France's MeteoNet: rain of 5 minutes over two regions, 2016 to 2018.

    ``data`` holds hundredths of a millimetre in 5 minutes, −1 where missing; it is read as the
    mean rate in mm/h, frame by frame, so a file may be larger than the memory. ``dates`` is a
    pickled array, of which only the times are read: no code of a pickle is ever run.

    Options, beside those of every data set of recordings: region ("NW", "SE"), where
    both lie together; a, b, low_dbz, high_dbz as of the other radars.
    """

    title = "MeteoNet radar, France"
    folder = "radar/meteonet"
    licence = "Etalab open licence 2.0"
    source = "meteonet.umr-cnrm.fr"
    layout = "rainfall_REGION_YEAR_MONTH.PART.npz, in any folders"
    counts = (
        "NW 565 × 784, SE 515 × 784 cells of 0.01°; 3 files a month; no checksums are published"
    )
    meaning: ClassVar[dict[str, Any]] = {**RAIN, "missing": True}

    def read_series(
        self,
        region: str | None = None,
        a: float = 256.0,
        b: float = 1.42,
        low_dbz: float = -10.0,
        high_dbz: float = 60.0,
    ) -> tuple[list[Series], dict[str, Any]]:
        """The files of one region, one recording."""
        files = sorted(self.root.rglob("rainfall*.npz"), key=natural)
        if not files:
            raise ZooError(f"{self.root} holds no files rainfall*.npz: {self._where_to_get()}")
        regions = Counter(_region(path) for path in files)
        if region is not None:
            files = [path for path in files if _region(path) == region]
        if not files or (region is None and len(regions) > 1):
            raise ZooError(
                f"{self.root} holds the regions {', '.join(regions)}, whose grids differ; choose "
                f"one by the option region = {next(iter(regions))!r}"
            )
        parts = [(FrameFile(path, "data"), read_dates(path)) for path in files]
        for file, dates in parts:
            if file.shape[0] != len(dates):
                raise ZooError(
                    f"{file.path} has {file.shape[0]} frames and {len(dates)} dates; fetch it again"
                )
        parts.sort(key=lambda part: part[1][0])
        where = [(file, i) for file, dates in parts for i in range(len(dates))]

        def read(start: int, stop: int) -> np.ndarray:
            grids = []
            for file, i in where[start:stop]:
                grid = file.read(i, i + 1)  # (1, H, W)
                # Hundredths of a millimetre in 5 minutes to mm/h.
                grids.append(np.where(grid < 0, np.nan, grid * np.float32(0.01 * 12)))
            return np.stack(grids).astype(np.float32)

        times = np.concatenate([dates for _, dates in parts])
        labels = [f"{file.path}, frame {i}" for file, i in where]
        found = {
            "time_step": 300.0,
            "reflectivity": {"a": a, "b": b, "low": low_dbz, "high": high_dbz},
        }
        return [Series(_region(files[0]), len(where), read, times, labels)], found


def read_radolan(path: Path) -> tuple[dict[str, Any], np.ndarray]:
    """A RADOLAN composite of two bytes a cell: what its header says, and rain in mm, (H, W).

    The header is "product", "time" (datetime), "precision" (mm), "minutes", "shape". North is
    up; NaN where the file has no data or clutter. After "RADOLAN/RADVOR: Hoch aufgelöste
    Niederschlagsanalyse … Beschreibung des Kompositformats" (DWD, version 2.5). Raises ZooError
    for a file that is broken, and for products that are no rain of two bytes a cell.
    """
    with _reading(path, "is it a RADOLAN composite?"):
        content = _unzip(path)
        header = _radolan_header(path, content[:1000])
        payload = content[content.index(b"\x03") + 1 :]
        height, width = header["shape"]
        if len(payload) != 2 * height * width:
            raise ZooError(
                f"{path} holds {len(payload):,} bytes after its header, which asks for "
                f"{2 * height * width:,} ({height} × {width} cells of two): it is cut off or of a "
                "product of one byte a cell; fetch it again"
            )
        values = np.frombuffer(payload, "<u2").reshape(height, width)[::-1]  # south comes first
        rain = (values & 0x0FFF) * np.float32(header["precision"])
        return header, np.where(values & (NO_DATA | CLUTTER), np.float32(np.nan), rain)


def _radolan_header(path: Path, content: bytes) -> dict[str, Any]:
    match = re.match(
        r"([A-Z]{2})(\d{6})\d{5}(\d{4})BY.*?PR E([-+]\d\d)\s*"
        r"INT\s*(\d+)(U\d)?\s*GP\s*(\d+)x\s*(\d+)",
        content.partition(b"\x03")[0].decode("ascii", "replace"),
    )
    if not match:
        raise ZooError(
            f"{path} is no RADOLAN composite of rain: its header is {content[:40]!r}; expected one "
            "such as RY, YW or RW, with PR, INT and GP"
        )
    product, day, month, precision, interval, unit, height, width = match.groups()
    time = datetime.strptime(day[:2] + month + day[2:], "%d%m%y%H%M")
    minutes = int(interval) * (1440 if unit == "U1" else 1)
    return {
        "product": product,
        "time": time,
        "precision": 10.0 ** int(precision),
        "minutes": minutes,
        "shape": (int(height), int(width)),
    }


def _open_radolan(path: Path) -> Field:
    with _reading(path, "is it a RADOLAN composite?"):
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            start = file.read(1000)
        header = _radolan_header(path, start)
    if not header["minutes"]:
        raise ZooError(f"{path} tells no interval (INT), which a rain rate needs; use RY or YW")
    meaning = {**RAIN, "grid_step": 1000.0}

    def read() -> np.ndarray:
        return read_radolan(path)[1] * np.float32(60 / header["minutes"])

    return Field(header["time"], header["product"], meaning, read)


def _open_rydl(path: Path) -> list[Field]:
    """The arrays of an archive such as RYDL.hdf5, named by their times."""
    import h5py

    with _reading(path, "is it complete, and HDF5?"), h5py.File(path) as file:
        names = sorted(file)
    if odd := [name for name in names if not re.fullmatch(r"\d{12}", name)]:
        raise ZooError(f"{path} holds {odd[0]!r}; expected arrays named YYYYMMDDhhmm, as in RYDL")

    def read(name: str) -> np.ndarray:
        with _reading(path, "is it complete, and HDF5?"):
            values = np.asarray(_opened(path)[name])
        # Whole numbers are hundredths of a millimetre; negative ones are missing.
        rain = values * np.float32(0.01) if values.dtype.kind in "iu" else values
        return np.where(values < 0, np.nan, rain * 12).astype(np.float32)

    return [
        Field(
            datetime.strptime(name, "%Y%m%d%H%M"),
            "RYDL",
            {**RAIN, "grid_step": 1000.0},
            functools.partial(read, name),
        )
        for name in names
    ]


@functools.lru_cache(maxsize=4)
def _opened(path: Path) -> Any:
    import h5py

    return h5py.File(path)


def _open_hdf5(path: Path) -> Field:
    """One composite of ODIM or of KNMI's own format."""
    import h5py

    with _reading(path, "is it complete, and HDF5?"), h5py.File(path) as file:
        if "image1" in file:
            return _open_knmi(path, file)
        if "dataset1" in file:
            return _open_odim(path, file)
        raise ZooError(
            f"{path} holds {', '.join(file) or 'nothing'}; expected an ODIM composite (dataset1) "
            "or one of KNMI (image1)"
        )


def _open_knmi(path: Path, file: Any) -> Field:
    image, calibration = file["image1"], file["image1/calibration"].attrs
    what = _text(image.attrs["image_geo_parameter"])
    formula = re.fullmatch(
        r"GEO\s*=\s*([-+.\deE]+)\s*\*\s*PV\s*([-+]\s*[.\deE]+)?",
        _text(calibration["calibration_formulas"]),
    )
    if not formula:
        raise ZooError(
            f"{path}: the formula is {_text(calibration['calibration_formulas'])!r}; expected "
            "GEO=a*PV+b"
        )
    gain, offset = float(formula[1]), float((formula[2] or "0").replace(" ", ""))
    none = {
        int(np.ravel(calibration[name])[0])
        for name in ("calibration_missing_data", "calibration_out_of_image")
        if name in calibration
    }
    start, end = (
        datetime.strptime(_text(file["overview"].attrs[f"product_datetime_{which}"]), KNMI_TIME)
        for which in ("start", "end")
    )
    meaning, factor = _meaning(path, what.upper(), end - start)
    step = abs(float(np.ravel(file["geographic"].attrs["geo_pixel_size_x"])[0])) * 1000

    def read() -> np.ndarray:
        with _reading(path, "is it complete, and HDF5?"):
            import h5py

            with h5py.File(path) as opened:
                values = opened["image1/image_data"][()]
        grid = (values * np.float64(gain) + offset) * factor
        return np.where(np.isin(values, [*none]), np.nan, grid).astype(np.float32)

    product = _text(image.attrs.get("image_product_name", what))
    return Field(end, product, {**meaning, "grid_step": step}, read)


KNMI_TIME = "%d-%b-%Y;%H:%M:%S.%f"
QUANTITIES = ("RATE", "ACRR", "DBZH", "TH", "DBZ")


def _open_odim(path: Path, file: Any) -> Field:
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for dataset in sorted((name for name in file if name.startswith("dataset")), key=natural):
        for data in sorted((n for n in file[dataset] if n.startswith("data")), key=natural):
            place = f"{dataset}/{data}"
            attributes = {
                key: value
                for where in ("what", f"{dataset}/what", f"{place}/what")
                if where in file
                for key, value in file[where].attrs.items()
            }
            found.setdefault(_text(attributes.get("quantity", "?")).upper(), (place, attributes))
    quantity = next((q for q in QUANTITIES if q in found), None)
    if quantity is None:
        raise ZooError(
            f"{path} holds {', '.join(found) or 'no data'}; expected one of {', '.join(QUANTITIES)}"
        )
    place, what = found[quantity]

    def time(name: str, otherwise: str) -> datetime:
        day = what.get(f"{name}date", what.get(otherwise + "date"))
        clock = what.get(f"{name}time", what.get(otherwise + "time"))
        if day is None or clock is None:
            absent = "date" if day is None else "time"
            raise ZooError(
                f"{path} has no attribute {name}{absent} in {place}/what, nor {absent} in what; "
                "expected an ODIM composite with its date and time"
            )
        return datetime.strptime(_text(day) + _text(clock), "%Y%m%d%H%M%S")

    end, start = time("end", ""), time("start", "")
    meaning, factor = _meaning(path, quantity, end - start)
    gain, offset = float(what.get("gain", 1)), float(what.get("offset", 0))
    nodata, undetect = what.get("nodata"), what.get("undetect")
    nothing = 0.0 if meaning["unit"] == RAIN["unit"] else NO_ECHO
    where = file["where"].attrs if "where" in file else {}
    if "xscale" in where:
        meaning["grid_step"] = abs(float(where["xscale"]))

    def read() -> np.ndarray:
        with _reading(path, "is it complete, and HDF5?"):
            import h5py

            with h5py.File(path) as opened:
                values = opened[f"{place}/data"][()]
        grid = (values * np.float64(gain) + offset) * factor
        grid = np.where(values == undetect, nothing, grid) if undetect is not None else grid
        grid = np.where(values == nodata, np.nan, grid) if nodata is not None else grid
        return grid.astype(np.float32)

    return Field(end, quantity, meaning, read)


def _meaning(path: Path, what: str, interval: timedelta) -> tuple[dict[str, Any], float]:
    """Fields of zoo.config.Data for a quantity, and the factor that makes it mm/h or dBZ."""
    if "REFLECTIVITY" in what or what in ("DBZH", "TH", "DBZ"):
        return dict(ECHO), 1.0
    if what == "RATE" or "MM/H" in what:
        return dict(RAIN), 1.0
    if what == "ACRR" or "[MM]" in what:
        if interval <= timedelta(0):
            raise ZooError(f"{path}: the interval of the rain is {interval}; expected its length")
        return dict(RAIN), timedelta(hours=1) / interval
    raise ZooError(f"{path} holds {what!r}; expected rain in mm or mm/h, or reflectivity")


def _open_pgm(path: Path) -> Field:
    with _reading(path, "is it a PGM of FMI?"):
        content = _unzip(path)
    header, step = _pgm_header(path, content)

    def read() -> np.ndarray:
        with _reading(path, "is it a PGM of FMI?"):
            content = _unzip(path)
        at, width, height = header
        pixels = np.frombuffer(content[at:], np.uint8)
        if pixels.size != width * height:
            raise ZooError(
                f"{path} holds {pixels.size:,} pixels, its header asks for {width * height:,}; "
                "fetch it again"
            )
        values = pixels.reshape(height, width)
        return np.where(values == 255, np.nan, (values.astype(np.float32) - 64) / 2)

    time = re.search(rb"#\s*obstime\s+(\d{12})", content[: header[0]])
    if time is None:
        raise ZooError(f"{path} tells no obstime; expected a composite of FMI's open data")
    param = re.search(rb"#\s*param\s+(\S+)", content[: header[0]])
    product = param[1].decode("ascii", "replace") if param else "reflectivity"
    meaning = {**ECHO, "grid_step": step} if step else dict(ECHO)
    return Field(datetime.strptime(time[1].decode(), "%Y%m%d%H%M"), product, meaning, read)


def _pgm_header(path: Path, content: bytes) -> tuple[tuple[int, int, int], float | None]:
    """Where the pixels begin, width and height; and metres a cell."""
    match = re.match(rb"P5\s((?:#[^\n]*\n)*)\s*(\d+)\s+(\d+)\s+255\s", content)
    if not match:
        raise ZooError(f"{path} is no PGM of one byte a pixel (P5, 255); fetch it again")
    step = re.search(rb"#\s*metersperpixel_x\s+([\d.]+)", match[1])
    return (match.end(), int(match[2]), int(match[3])), float(step[1]) if step else None


def _unzip(path: Path) -> bytes:
    content = path.read_bytes()
    return gzip.decompress(content) if path.suffix == ".gz" else content


def _region(path: Path) -> str:
    match = re.match(r"rainfall_([A-Za-z]+)_", path.name)
    return match[1].upper() if match else "unknown"


def _text(value: Any) -> str:
    """An attribute of HDF5 as text; a lone text may be an array of one."""
    value = np.ravel(value)[0]
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)


def _size(grid: np.ndarray) -> str:
    return " × ".join(map(str, grid.shape))


@contextmanager
def _reading(path: Path, hint: str) -> Iterator[None]:
    """Tell of what cannot be read as a ZooError that names the file."""
    try:
        yield
    except (OSError, EOFError, zlib.error, KeyError, ValueError, IndexError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ZooError(f"{path} cannot be read ({first}): {hint} Fetch it again") from error

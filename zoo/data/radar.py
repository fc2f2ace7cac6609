"""Weather radar: composites of rain rate or reflectivity from weather services, and other grids.

Rain is in mm/h and is scaled to [0, 1] as reflectivity (:class:`zoo.config.Reflectivity`).
Reflectivity is in dBZ, of which −10 to 60 are 0 to 1. Cells without coverage are NaN. Times are
those in the files, in UTC, at the end of the measured interval.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from zoo.config import Data, Reflectivity
from zoo.data.cf import open_cf
from zoo.data.composite import ECHO, RAIN, Composite
from zoo.data.files import natural
from zoo.data.grib import GRIB, GribGrid, open_grib, read_grids
from zoo.data.knmi import open_knmi
from zoo.data.meteonet import open_meteonet
from zoo.data.odim import open_odim
from zoo.data.pgm import open_pgm
from zoo.data.radolan import open_radolan, open_rydl
from zoo.data.recordings import Series, format_size
from zoo.data.series import SequenceDataset
from zoo.errors import DataError
from zoo.inputs import check_frames, decoding
from zoo.stores import open_hdf5
from zoo.units import to_physical

__all__ = ["DWD", "FMI", "KNMI", "ODIM", "Grids", "MeteoNet"]


class _Radar(SequenceDataset):
    """A folder of files with composites.

    Options of every radar:

    product: Which one to read, if the folder contains several.
    a, b, low_dbz, high_dbz: Conversion of rain to [0, 1] (default: 256, 1.42, −10, 60). The
        options low and high make it linear instead.
    rain: Whether to convert reflectivity to rain in mm/h by a and b; at or below low_dbz it is 0.
    """

    data = Data(missing=True)
    patterns: ClassVar[tuple[str, ...]] = ()
    product_option: ClassVar[str] = "product"

    def read_series(
        self,
        product: str | None = None,
        a: float = 256.0,
        b: float = 1.42,
        low_dbz: float = -10.0,
        high_dbz: float = 60.0,
        rain: bool = False,
    ) -> tuple[list[Series], dict[str, Any]]:
        """Return all composites of a product, in order of time, as one recording."""
        composites = self.open_files(self._files())
        check_frames(str(self.root), len(composites))
        composites = self._choose(composites, product)
        composites.sort(key=lambda composite: (composite.time, natural(composite.label)))
        first = composites[0]
        for other in composites:
            if other.fields != first.fields:
                raise DataError(
                    f"{other.label} contains {other.fields}, but {first.label} {first.fields}; put "
                    "files of one kind into a folder"
                )
            if other.place != first.place:
                differing = [text for text in other.place if text not in first.place]
                raise DataError(
                    f"{other.label} has another grid than {first.label} ("
                    f"{differing[0] if differing else 'which states more of it'}); put files of "
                    "one grid into a folder"
                )
        times = np.array([composite.time for composite in composites], "datetime64[s]")
        labels = [composite.label for composite in composites]
        read = functools.partial(_read_composites, composites)
        fields = dict(first.fields)
        scale = Reflectivity(a=a, b=b, low=low_dbz, high=high_dbz)
        if rain and fields["unit"] == ECHO["unit"]:
            fields = {name: value for name, value in fields.items() if name not in ECHO} | RAIN
            read = functools.partial(_read_rain, read, scale)
        if fields["unit"] == RAIN["unit"]:
            fields["reflectivity"] = scale.model_dump()
        return [Series(first.product, len(composites), read, times, labels)], fields

    def open_files(self, paths: Sequence[Path]) -> list[Composite]:
        """Open the composites of files without reading their grids."""
        return [composite for path in paths for composite in self.open_file(path)]

    def open_file(self, path: Path) -> list[Composite]:
        """Open the composites of a file without reading their grids."""
        raise NotImplementedError

    def _files(self) -> list[Path]:
        if self.root.is_file():
            return [self.root]
        files = {p for name in self.patterns for p in self.root.rglob(name) if not p.is_dir()}
        if not files:
            raise DataError(
                f"{self.root} contains no files {' or '.join(self.patterns)}: {self._where_to_get}"
            )
        return sorted(files, key=natural)

    def _choose(self, composites: list[Composite], product: str | None) -> list[Composite]:
        """Return the composites of a product, or all if there is only one."""
        if not composites:
            raise DataError(f"{self.root} contains no composites: {self._where_to_get}")
        counts = Counter(composite.product for composite in composites)
        chosen = [c for c in composites if product is None or c.product == product]
        if chosen and (product is not None or len(counts) == 1):
            return chosen
        option, listed = self.product_option, [f"{name} ({n})" for name, n in counts.items()]
        rarest = min(counts, key=lambda name: counts[name])
        example = next(c.label for c in composites if c.product == rarest)
        raise DataError(
            f"{self.root} contains composites of {', '.join(listed)} ({example} is {rarest}), "
            f"which cannot be mixed; set the option {option} = "
            f"{max(counts, key=lambda name: counts[name])!r}"
        )


class DWD(_Radar):
    """German radar composites: RADOLAN and RADKLIM binaries, and the archive RYDL.hdf5.

    RY (900 × 900) and YW (1100 × 900) are rain of 5 minutes in steps of 0.01 mm, read as the mean
    rate in mm/h. Cells are missing where the file says so or marks clutter. RYDL.hdf5 has one
    array a time, named YYYYMMDDhhmm, of mm in 5 minutes (Ayzel et al. 2020); its years from 2015
    on are the test part, as in the MS-RNN papers, unless test_from or test_share is set.
    """

    title = "DWD radar, Germany"
    folder = "radar/dwd"
    license = "GeoNutzV, the data license of the German federal government: name the source, DWD"
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

    def default_test_from(self) -> str | None:
        """Return 2015, as in the papers, for RYDL."""
        return "2015-01-01" if self.series[0].name == "RYDL" else None

    def open_file(self, path: Path) -> list[Composite]:
        """Open a RADOLAN file, or every array of an archive."""
        return open_rydl(path) if path.suffix == ".hdf5" else [open_radolan(path)]


class ODIM(_Radar):
    """Radar composites in ODIM HDF5, the format of the European weather services.

    The first of RATE (mm/h), ACRR (an accumulation, as the mean rate), DBZH and TH (dBZ) in a
    file is read. Its value `undetect` means no rain, or an echo of −32 dBZ; `nodata` is missing.
    """

    title = "ODIM HDF5 radar composites"
    folder = "radar/odim"
    license = "that of the weather service"
    source = "the open-data pages of the weather services (OPERA, DMI, SMHI, and others)"
    layout = "*.h5 or *.hdf, one composite a file, in any folders"
    counts = "depend on the service; no checksums are published"
    patterns = ("*.h5", "*.hdf", "*.hdf5")

    def open_file(self, path: Path) -> list[Composite]:
        """Open a composite in the format of ODIM or KNMI."""
        with open_hdf5(path) as file, decoding(path, "is it complete, and HDF5?"):
            if "image1" in file:
                return [open_knmi(path, file)]
            if "dataset1" in file:
                return [open_odim(path, file)]
            raise DataError(
                f"{path} contains {', '.join(file) or 'nothing'}; expected a composite of ODIM "
                "(dataset1) or KNMI (image1)"
            )


class KNMI(ODIM):
    """Dutch radar composites in KNMI's HDF5: rain of 5 minutes, 765 × 700 cells of 1 km.

    Read as the mean rate in mm/h (``image1/image_data``, scaled by its calibration formula).
    """

    title = "KNMI radar, the Netherlands"
    folder = "radar/knmi"
    license = "CC BY 4.0 (KNMI open data)"
    source = "dataplatform.knmi.nl, data sets rad_nl25_rac_5min and nl_rdr_data_rtcor_5m"
    layout = "RAD_NL25_*.h5, one time a file, in any folders"
    counts = "288 files a day; no checksums are published"


class FMI(_Radar):
    """Finnish radar composites: reflectivity in dBZ, 1226 × 760 cells of 1 km, as PGM.

    A pixel v is (v − 64) / 2 dBZ, and 255 is missing.
    """

    title = "FMI radar, Finland"
    folder = "radar/fmi"
    license = "CC BY 4.0 (FMI open data)"
    source = "en.ilmatieteenlaitos.fi/open-data"
    layout = "*.pgm or *.pgm.gz, one time a file, in any folders"
    counts = "288 files a day; no checksums are published"
    patterns = ("*.pgm", "*.pgm.gz")

    def open_file(self, path: Path) -> list[Composite]:
        """Open a composite."""
        return [open_pgm(path)]


class MeteoNet(_Radar):
    """Météo-France's MeteoNet: rain of 5 minutes over two regions, 2016 to 2018.

    ``data`` contains hundredths of a millimetre in 5 minutes, −1 where missing, and is read as
    the mean rate in mm/h, frame by frame, so a file may be larger than memory. ``dates`` is a
    pickled array, of which only the times are read: no code in the pickle is executed.

    region: "NW" or "SE", if the folder contains both.
    """

    title = "MeteoNet radar, France"
    folder = "radar/meteonet"
    license = "Etalab open license 2.0"
    source = "meteonet.umr-cnrm.fr"
    layout = "rainfall_REGION_YEAR_MONTH.PART.npz, in any folders"
    counts = (
        "NW 565 × 784, SE 515 × 784 cells of 0.01°; 3 files a month; no checksums are published"
    )
    patterns = ("rainfall*.npz",)
    product_option = "region"

    def read_series(
        self,
        region: str | None = None,
        a: float = 256.0,
        b: float = 1.42,
        low_dbz: float = -10.0,
        high_dbz: float = 60.0,
        rain: bool = False,
    ) -> tuple[list[Series], dict[str, Any]]:
        """Return all frames of a region, in order of time, as one recording."""
        return super().read_series(region, a, b, low_dbz, high_dbz, rain)

    def open_file(self, path: Path) -> list[Composite]:
        """Open the frames of a file."""
        return open_meteonet(path)


class Grids(_Radar):
    """Any grids with their times in NetCDF (CF conventions) or GRIB, one time a file or several.

    All files of a folder are one recording. Rain rates, and amounts of rain with the interval of
    the accumulation (in NetCDF, bounds of the time or start_time), are read as mm/h, and
    reflectivity as dBZ; other values keep their unit. GRIB needs ecCodes, which the extra grib
    installs. It decodes every grid in a process of its own, so prepare many (zoo data prepare).

    variable: Which one to read, if the files contain several: its name, or its short name in GRIB.
    """

    title = "Grids in NetCDF or GRIB"
    folder = "grids"
    license = "that of the data"
    source = "weather services, such as the Australian (Rainfields) and the US (MRMS)"
    layout = "*.nc, *.nc4, *.grib2, *.grb2, *.grib, *.grb or the latter with .gz, in any folders"
    counts = "depend on the files"
    patterns = ("*.nc", "*.nc4", *(f"*{suffix}{gz}" for suffix in GRIB for gz in ("", ".gz")))
    product_option = "variable"

    def read_series(
        self,
        variable: str | None = None,
        a: float = 256.0,
        b: float = 1.42,
        low_dbz: float = -10.0,
        high_dbz: float = 60.0,
        rain: bool = False,
    ) -> tuple[list[Series], dict[str, Any]]:
        """Return all grids of a variable, in order of time, as one recording."""
        self._variable = variable
        return super().read_series(variable, a, b, low_dbz, high_dbz, rain)

    def open_files(self, paths: Sequence[Path]) -> list[Composite]:
        """Open the grids of files, those of GRIB files together."""
        grib = [path for path in paths if path.suffix not in (".nc", ".nc4")]
        others = super().open_files([path for path in paths if path not in grib])
        return others + (open_grib(grib, self._variable) if grib else [])

    def open_file(self, path: Path) -> list[Composite]:
        """Open the grids of a NetCDF file."""
        return open_cf(path, self._variable)


def _read_rain(
    read: Callable[[int, int], np.ndarray], scale: Reflectivity, start: int, stop: int
) -> np.ndarray:
    """Read reflectivity in dBZ as rain in mm/h."""
    shares = (read(start, stop) - np.float32(scale.low)) / np.float32(scale.high - scale.low)
    rain = to_physical(shares, Data(unit="mm/h", reflectivity=scale))
    return np.where(np.isnan(shares), np.nan, rain).astype(np.float32)


def _read_composites(composites: Sequence[Composite], start: int, stop: int) -> np.ndarray:
    """Read grids as frames (T, 1, H, W)."""
    part = composites[start:stop]
    reads = [composite.read for composite in part]
    together = [read for read in reads if isinstance(read, GribGrid)]
    grids = read_grids(together) if len(together) == len(reads) else [read() for read in reads]
    for composite, grid in zip(part, grids, strict=True):
        if grid.shape != grids[0].shape:
            raise DataError(
                f"{composite.label} has a grid of {format_size(grid.shape)}, "
                f"{part[0].label} of {format_size(grids[0].shape)}; expected grids of one size"
            )
    return np.stack(grids)[:, None]  # (T, H, W) to (T, 1, H, W)

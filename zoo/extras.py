"""Optional dependencies, and the extras that install them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from zoo.errors import ConfigError

__all__ = ["EXTRAS", "suggest_extra"]

#: Modules of optional dependencies, and the extra in pyproject.toml that installs each.
EXTRAS = {
    "accelerate": "train",
    "filelock": "train",
    "timm": "train",
    "tomlkit": "train",
    "jinja2": "site",
    "onnx": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
    "eccodes": "grib",
    "h5netcdf": "data",
    "h5py": "data",
    "zarr": "data",
}


@contextmanager
def suggest_extra() -> Iterator[None]:
    """Turn a failed import of an optional dependency into advice on what to install.

    Raises:
        ConfigError: if a module of ``EXTRAS`` is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in EXTRAS:
            raise
        raise ConfigError(
            f"this needs {module}, which is not installed: "
            f"pip install 'spatiotemporal-zoo[{EXTRAS[module]}]'"
        ) from error

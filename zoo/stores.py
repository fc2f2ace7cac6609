"""Checks of HDF5 files, NetCDF files and zarr stores before their arrays are read.

These formats may refer to other files, and may announce arrays and chunks of any size.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.chunks import unpacked_size
from zoo.errors import DataError
from zoo.inputs import (
    check_bytes,
    check_file,
    check_frames,
    check_store,
    check_values,
    decoding,
    input_limit,
)

__all__ = [
    "check_hdf5",
    "check_netcdf",
    "check_part",
    "check_zarr",
    "open_hdf5",
    "read_hdf5",
    "shape_of",
]

#: Bytes of bookkeeping for each chunk that is read.
CHUNK_BYTES = 2**14

#: How much denser than its data deflate can be.
DEFLATE = 1032


def open_hdf5(path: Path) -> Any:
    """Open an HDF5 file, as h5py.File.

    Raises:
        DataError: If it is not a regular file, corrupt, or links to another file.
    """
    import h5py

    check_file(path)
    with decoding(path, "is it complete, and HDF5?"):
        file = h5py.File(path)

        def find(name: bytes, link: Any) -> str | None:
            inside = link.type in (h5py.h5l.TYPE_HARD, h5py.h5l.TYPE_SOFT)
            return None if inside else name.decode(errors="replace")

        if outside := file.id.links.visit(find, info=True):
            raise DataError(f"{path}: {outside} links to another file; copy the data there")
        return file


def read_hdf5(source: str | Path, array: Any, part: Sequence[slice] = ()) -> Any:
    """Read a part of an array of an HDF5 file; by default all of it.

    Args:
        source: The file, for messages.
        array: The h5py.Dataset.
        part: Slices, one for each axis.

    Raises:
        DataError: If it takes more memory than the limit, or is stored in another file.
    """
    _check_array(source, array)
    slices = (*part,) or (slice(None),) * array.ndim
    check_part(source, shape_of(array, slices), array.dtype.itemsize, array.chunks)
    _check_packed(source, array, slices)
    return array[slices]


def check_hdf5(path: Path) -> None:
    """Check a NetCDF file, whose coordinates are read when it is opened.

    Raises:
        DataError: If it links to another file, or announces too many coordinates.
    """
    import h5py

    def check(_: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            _check_array(path, item)
            if item.ndim == 1:
                check_frames(path, item.shape[0])
                _check_packed(path, item, [slice(None)])

    with open_hdf5(path) as file, decoding(path, "is it complete, and HDF5?"):
        file.visititems(check)


def check_netcdf(path: Path, variable: str, part: Sequence[slice]) -> None:
    """Check the chunks of a part of a variable of a NetCDF file, which xarray reads.

    Raises:
        DataError: If they unpack to more than the file announces.
    """
    with open_hdf5(path) as file, decoding(path, "is it complete, and NetCDF?"):
        _check_packed(path, file[variable], part)


def check_zarr(path: Path) -> dict[str, Any]:
    """Return the arrays of a zarr store by name, or its only array as "".

    Raises:
        DataError: If it contains anything but regular files, or chunks without a size.
    """
    import zarr

    check_store(path)
    with decoding(path, "is it complete, and a zarr store?"):
        store = zarr.open(path, mode="r")
        arrays = {"": store} if isinstance(store, zarr.Array) else dict(store.arrays())
        for name, array in arrays.items():
            source = f"{path}:{name}" if name else str(path)
            chunks = array.shards or array.chunks
            if not all(n > 0 for n in chunks) or not all(n >= 0 for n in array.shape):
                raise DataError(
                    f"{source} has shape {array.shape} in chunks of {chunks}; expected positive "
                    "numbers"
                )
            check_values(source, *chunks)
            _check_chunks(source, array, path / name)
            if array.ndim == 1:
                check_frames(source, array.shape[0])
    return arrays


def _check_chunks(source: str, array: Any, folder: Path) -> None:
    """Raise DataError if chunks unpack to more than their size, which the codecs allocate."""
    codecs = [type(codec).__name__.lower().removesuffix("codec") for codec in array.compressors]
    if not codecs or array.shards:
        return
    most = math.prod(array.chunks) * array.dtype.itemsize
    check_bytes(source, most)
    for file in folder.rglob("*"):
        if not file.is_file() or file.name.startswith(".z") or file.name == "zarr.json":
            continue
        with decoding(file, "copy it again"):
            size = unpacked_size(codecs[-1], file, most) if len(codecs) == 1 else None
        if size is None or size > most:
            raise DataError(
                f"{file} unpacks to more than {most:,} bytes, the size of a chunk, or does not "
                f"state its size with {', '.join(codecs)}; write the store again"
            )


def check_part(
    source: str | Path, shape: Sequence[int], itemsize: int, chunks: Sequence[int] | None
) -> None:
    """Check the size of a part of an array, and the number of chunks that it is read from.

    Args:
        source: The file, for messages.
        shape: Shape of the part.
        itemsize: Bytes of a value.
        chunks: Shape of a chunk of the array, if it has chunks.
    """
    check_values(source, *shape)
    check_bytes(source, math.prod(shape) * itemsize)
    if chunks and len(chunks) == len(shape):
        count = math.prod(-(-n // chunk) for n, chunk in zip(shape, chunks, strict=True))
        check_bytes(f"{source}: its chunks of {tuple(chunks)}", count * CHUNK_BYTES)


def shape_of(array: Any, part: Sequence[slice]) -> list[int]:
    """Return the shape of a part of an array, given as a slice for each axis."""
    return [len(range(*s.indices(n))) for s, n in zip(part, array.shape, strict=True)]


def _check_packed(source: str | Path, array: Any, part: Sequence[slice]) -> None:
    """Raise DataError if chunks unpack to more than their size: HDF5 allocates all of it."""
    from h5py.h5z import FILTER_DEFLATE

    created = array.id.get_create_plist()
    filters = [created.get_filter(i)[0] for i in range(created.get_nfilters())]
    harmless = input_limit() // (4 * DEFLATE)  # bytes, however densely they are packed
    if FILTER_DEFLATE not in filters or array.id.get_storage_size() <= harmless:
        return
    if filters.count(FILTER_DEFLATE) > 1:
        raise DataError(f"{source}: {array.name} is compressed twice; write it again")
    omitted = 1 << filters.index(FILTER_DEFLATE)  # the bit of a chunk that is not compressed
    size = math.prod(array.chunks) * array.dtype.itemsize
    bounds = [s.indices(n) for s, n in zip(part, array.shape, strict=True)]
    steps = zip(bounds, array.chunks, strict=True)
    for place in itertools.product(*(range(b[0] // c * c, b[1], c) for b, c in steps)):
        chunk = array.id.get_chunk_info_by_coord(place)
        if chunk.byte_offset is None or chunk.size <= harmless or chunk.filter_mask & omitted:
            continue
        with decoding(source):
            packed = array.id.read_direct_chunk(place)[1]
            unpacked = zlib.decompressobj().decompress(packed, size + 1)
        if len(unpacked) > size:
            raise DataError(
                f"{source}: a chunk of {array.name} unpacks to more than {size:,} bytes, its size; "
                "download it again"
            )


def _check_array(source: str | Path, array: Any) -> None:
    """Raise DataError for an array in other files, for chunks that exceed the limit, and for texts.

    Texts of variable length may announce any length, which HDF5 allocates, or never end.
    """
    if array.dtype.hasobject:
        raise DataError(
            f"{source}: {array.name} has values of variable length; expected numbers, or texts of "
            "a fixed length, such as NumPy's S10"
        )
    if array.external or array.is_virtual:
        raise DataError(f"{source}: {array.name} is stored in another file; copy the data there")
    check_values(source, *(array.chunks or ()))

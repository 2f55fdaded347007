"""Clouds and labels of points in common file formats; the suffix names the format."""

import io
import re
import struct
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelgen.datasets.files.lines import CloudEntry
from labelgen.errors import SampleError
from labelgen.ply import read_vertices
from labelgen.samples import Cloud

Columns = dict[str, NDArray[Any]]
"""Numbers of the points by name, each (P,)."""

REACH_M = 1e5
"""Points farther from the origin are refused: float32 would round their coordinates to centimetres."""

MAX_POINTS = 2**27
"""Files that claim more points are refused: a small file could exhaust the memory of the worker."""

MAX_PCD_FIELDS = 10_000
"""PCD headers that claim more numbers a point are refused: a short header could exhaust the memory of the worker."""

INTENSITY_TOLERANCE = 1e-4
COLOURS = ("red", "green", "blue")
READ = ("x", "y", "z", "intensity", *COLOURS)
"""The columns that are used."""


def cloud_of(entry: CloudEntry, raw: bytes, name: str) -> Cloud:
    """Return the cloud in the bytes of a file; errors call it `name`.

    Raises:
        SampleError: if the file is not of the format, or has numbers that no cloud in metres has.
    """
    columns = named_columns(entry, raw, name)
    if missing := [axis for axis in "xyz" if axis not in columns]:
        raise SampleError(f"{name}: has no {', '.join(missing)}, but {', '.join(columns)}; give a cloud with x, y, z")
    if not len(columns["x"]):
        raise SampleError(f"{name}: holds no points; leave `cloud` out if the sample has none")
    xyz = np.stack([columns[axis].astype(np.float64) for axis in "xyz"], axis=1)
    _check_each(np.isfinite(xyz).all(axis=1), xyz, name, "is not finite; remove such points, and their labels")
    near = np.abs(xyz).max(axis=1) <= REACH_M
    _check_each(near, xyz, name, "is over 100 km away; give metres, in the frame of the sensor and not that of a map")
    return Cloud(xyz.astype(np.float32), _intensity(entry, columns, name), _colour(columns, name))


def named_columns(entry: CloudEntry, raw: bytes, name: str) -> Columns:
    """Return the columns of a cloud file; errors call it `name`.

    Raises:
        SampleError: if the file is not of the format.
    """
    try:
        columns = _READERS[entry.suffix](entry, raw)
        if wrong := [f"{read} holds {columns[read].dtype}" for read in READ if _is_no_number(columns.get(read))]:
            raise ValueError(f"{', '.join(wrong)}, and not numbers")
        return columns
    except Exception as error:  # the readers parse bytes in memory, and raise errors of many kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SampleError(f"{name}: not a whole {entry.suffix} cloud ({reason}); restore or convert the file") from None


def _is_no_number(column: NDArray[Any] | None) -> bool:
    return column is not None and column.dtype.kind not in "iuf"


def ids_of(path: str, raw: bytes, points: int, name: str) -> NDArray[Any]:
    """Return the class ids (points,) in the bytes of a file with labels of points; errors call it `name`.

    Raises:
        SampleError: if the file is not of the format, or has not one label for each point.
    """
    suffix = PurePosixPath(path).suffix.lower()
    try:
        if suffix == ".npy":
            ids = _array(raw)
        elif suffix == ".label":
            ids = np.frombuffer(raw, "<u4") & 0xFFFF
        else:
            ids = np.frombuffer(raw, np.uint8)
    except ValueError as error:
        raise SampleError(f"{name}: not a whole {suffix} file ({error}); restore the file") from None
    if ids.shape != (points,) or ids.dtype.kind not in "iu":
        raise SampleError(f"{name}: {ids.dtype} of shape {ids.shape} for {points} points; give one class id a point")
    return ids


def _bin(entry: CloudEntry, raw: bytes) -> Columns:
    names, dtype = entry.columns or (), np.dtype(entry.dtype).newbyteorder("<")
    if len(raw) % (len(names) * dtype.itemsize):
        numbers = f"{len(names)} {entry.dtype} numbers ({', '.join(names)})"
        raise ValueError(f"{len(raw):,} bytes are not a multiple of {numbers}: correct `columns` or `dtype`")
    return dict(zip(names, np.frombuffer(raw, dtype).reshape(-1, len(names)).T, strict=True))


def _npy(entry: CloudEntry, raw: bytes) -> Columns:
    array = _array(raw)
    if array.dtype.names:
        single = [name for name in array.dtype.names if not array.dtype[name].shape]
        return {name: array[name].ravel() for name in single}
    names = entry.columns
    if names is None:
        raise ValueError('a plain array: add "columns" to the cloud')
    if array.ndim != 2 or array.shape[1] != len(names):
        raise ValueError(f"an array of shape {array.shape} for {len(names)} columns: correct `columns`")
    return dict(zip(names, array.T, strict=True))


def _array(raw: bytes) -> NDArray[Any]:
    """Return the array in a `.npy` file; it never holds objects, nor more than the file has bytes."""
    file = io.BytesIO(raw)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("holds Python objects")
    flat = np.frombuffer(raw, dtype, int(np.prod(shape, dtype=object)), file.tell())
    return flat.reshape(shape, order="F" if fortran else "C")


def _pcd(entry: CloudEntry, raw: bytes) -> Columns:
    from pypcd4.pypcd4 import PointCloud

    counts = re.findall(rb"^\s*COUNT\s+([\d ]+)", raw[: raw.find(b"\nDATA")], re.MULTILINE | re.IGNORECASE)
    if (fields := sum(int(count) for line in counts for count in line.split())) > MAX_PCD_FIELDS:
        raise ValueError(f"it claims {fields:,} numbers a point")
    cloud = PointCloud.from_fileobj(io.BytesIO(raw))  # type: ignore[arg-type]  # it only reads and seeks
    points = np.atleast_1d(cloud.pc_data)
    if len(points) != cloud.points:
        raise ValueError(f"{len(points):,} points, the header says {cloud.points:,}")
    columns = {name: points[name] for name in points.dtype.names or ()}
    packed = columns.get("rgb", columns.get("rgba"))
    if packed is not None:
        columns.update(zip(COLOURS, PointCloud.decode_rgb(np.ascontiguousarray(packed)).T, strict=True))
    return columns


def _ply(entry: CloudEntry, raw: bytes) -> Columns:
    return read_vertices(raw)


def _las(entry: CloudEntry, raw: bytes) -> Columns:
    import laspy

    _check_las_claims(raw)
    with laspy.open(io.BytesIO(raw)) as reader:
        if reader.header.point_count > MAX_POINTS:
            raise ValueError(f"it claims {reader.header.point_count:,} points")
        found = reader.read()
        if len(found.points) != reader.header.point_count:
            raise ValueError(f"{len(found.points):,} points, the header says {reader.header.point_count:,}")
    names = [name for name in READ if hasattr(found, name)]
    return {name: np.asarray(getattr(found, name)) for name in names}


def _check_las_claims(raw: bytes) -> None:
    """Check the counts in a LAS file against its size: laspy loops or allocates by them before it reads.

    The offsets are those of the LAS 1.4 specification; a table of chunks is what LAZ adds.

    Raises:
        ValueError: if there cannot be so many records or chunks.
    """

    def number(kind: str, offset: int) -> int:
        if not 0 <= offset <= len(raw) - struct.calcsize(kind):
            raise ValueError("the file ends before its header or its table of chunks does")
        return int(struct.unpack_from(kind, raw, offset)[0])

    claims = {"variable length records": (number("<I", 100), 54)}
    if number("B", 25) >= 4:
        claims["extended variable length records"] = (number("<I", 243), 60)
    if number("B", 104) & 0x80:
        table = number("<q", number("<I", 96))
        claims["chunks"] = (number("<I", (table if table > 0 else number("<q", len(raw) - 8)) + 4), 1)
    for what, (count, least_bytes) in claims.items():
        if count * least_bytes > len(raw):
            raise ValueError(f"it claims {count:,} {what}")


_READERS: dict[str, Callable[[CloudEntry, bytes], Columns]] = {
    **{".bin": _bin, ".npy": _npy, ".pcd": _pcd, ".ply": _ply, ".las": _las, ".laz": _las},
}


def _intensity(entry: CloudEntry, columns: Columns, name: str) -> NDArray[np.float32] | None:
    """Return the intensity (P,) in 0..1, or None if the line does not say its scale."""
    if entry.intensity_max is None:
        return None
    if "intensity" not in columns:
        raise SampleError(f"{name}: has no intensity, but {', '.join(columns)}; remove `intensity_max`")
    intensity = columns["intensity"].astype(np.float64) / entry.intensity_max
    fits = (intensity >= -INTENSITY_TOLERANCE) & (intensity <= 1 + INTENSITY_TOLERANCE)
    largest = np.nanmax(columns["intensity"])
    _check_each(
        fits, columns["intensity"], name, f"is no intensity from 0 to {entry.intensity_max:g}; the largest is "
        f"{largest:g}, so correct `intensity_max`"
    )  # fmt: skip
    return np.clip(intensity, 0, 1).astype(np.float32)


def _colour(columns: Columns, name: str) -> NDArray[np.uint8] | None:
    """Return the colours (P, 3); 16-bit ones, as LAS files have them, lose their low byte."""
    if not all(channel in columns for channel in COLOURS):
        return None
    colour = np.stack([columns[channel] for channel in COLOURS], axis=1)
    if colour.dtype == np.uint16 and colour.max() > 255:
        colour = colour >> 8
    _check_each(((colour >= 0) & (colour <= 255)).all(axis=1), colour, name, "is no colour from 0 to 255; convert them")
    return colour.astype(np.uint8)


def _check_each(good: Any, values: NDArray[Any], name: str, what: str) -> None:
    """Raise SampleError if a point is not `good` (P,) bool, quoting its values and saying `what` is wrong with it."""
    if (bad := np.flatnonzero(~good)).size:
        raise SampleError(f"{name}: point {bad[0]} ({values[bad[0]]}) {what} ({bad.size:,} of {len(good):,} points)")

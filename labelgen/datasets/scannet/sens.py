"""Reading .sens files (version 4): the colour and depth pictures of a scan, their poses and camera matrices.

A .sens file has no index: each frame begins with its pose and the sizes of its two pictures. `read_index` goes through
these beginnings once and reads no picture.
"""

import io
import os
import struct
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from labelgen.datasets.adapter import MAX_FILE_BYTES
from labelgen.errors import SampleError
from labelgen.samples import unreadable

Floats = NDArray[np.float64]

VERSION = 4
ENCODED_COLOUR = (1, 2)
"""Colour compressions of which each picture is a file: png and jpeg."""

ZLIB_DEPTH = 1
MAX_SENSOR_NAME = 4096
MAX_PIXELS = 2**26

HEADER = struct.Struct("<64f2i4IfQ")
"""After the name of the sensor: four 4x4 matrices (intrinsics and extrinsics of colour, then of depth), compressions of
colour and depth, width and height of both, depth shift, number of frames."""

FRAME = struct.Struct("<16f2Q2Q")
"""Pose (4x4, camera to world), two times, bytes of the colour picture, bytes of the depth picture."""


@dataclass(frozen=True)
class SensIndex:
    """What a .sens file holds, and where its F pictures are.

    Attributes:
        colour_intrinsics, depth_intrinsics: (4, 4) f64 camera matrices, in pixels.
        colour_size, depth_size: (width, height) in pixels.
        metres_per_unit: of the values in depth pictures.
        world_from_cams: (F, 4, 4) f64 poses, in metres; not finite where the frame has none.
        colour_at: (F,) i64 offset of each colour picture in the file; the depth picture follows it.
        colour_bytes, depth_bytes: (F,) i64 sizes of the pictures in the file.
    """

    colour_intrinsics: Floats
    depth_intrinsics: Floats
    colour_size: tuple[int, int]
    depth_size: tuple[int, int]
    metres_per_unit: float
    world_from_cams: Floats
    colour_at: NDArray[np.int64]
    colour_bytes: NDArray[np.int64]
    depth_bytes: NDArray[np.int64]


def read_index(file: Path) -> SensIndex:
    """Return the index of a .sens file; the last ones are kept in memory.

    Raises:
        SampleError: if the file is truncated, of another version, or compressed in a way that ScanNet does not use.
        SourceError: if it cannot be read.
    """
    try:
        found = file.stat()
        return _index(file, found.st_size, found.st_mtime_ns)
    except OSError as error:
        raise unreadable(file, error) from None


@lru_cache(maxsize=4)
def _index(file: Path, size: int, _changed_ns: int) -> SensIndex:
    with file.open("rb", buffering=0) as opened:
        number = opened.fileno()
        version, name_bytes = struct.unpack("<IQ", _read(number, 12, 0, file))
        if version != VERSION or name_bytes > MAX_SENSOR_NAME:
            raise SampleError(
                f"{file}: version {version} of .sens, but only {VERSION} can be read; use the original file"
            )
        at = 12 + name_bytes
        *numbers, colour, depth, width, height, depth_width, depth_height, shift, frames = HEADER.unpack(
            _read(number, HEADER.size, at, file)
        )
        colour_size, depth_size = (width, height), (depth_width, depth_height)
        _check_header(file, (colour, depth), (colour_size, depth_size), shift, frames, size)
        matrices = np.array(numbers, np.float64).reshape(4, 4, 4)
        at += HEADER.size
        poses, places = [], []
        for frame in range(frames):
            if at + FRAME.size > size:
                raise _ends_early(file, frame, frames)
            *pose, _, _, colour_bytes, depth_bytes = FRAME.unpack(_read(number, FRAME.size, at, file))
            colour_at = at + FRAME.size
            at = colour_at + colour_bytes + depth_bytes
            if at > size or at - colour_at > MAX_FILE_BYTES:
                raise _ends_early(file, frame, frames)
            poses.append(pose)
            places.append((colour_at, colour_bytes, depth_bytes))
    columns = np.array(places, np.int64).reshape(-1, 3).T
    return SensIndex(
        colour_intrinsics=matrices[0],
        depth_intrinsics=matrices[2],
        colour_size=colour_size,
        depth_size=depth_size,
        metres_per_unit=1 / shift,
        world_from_cams=np.array(poses, np.float64).reshape(-1, 4, 4),
        colour_at=columns[0],
        colour_bytes=columns[1],
        depth_bytes=columns[2],
    )


def read_colour(file: Path, frame: int) -> bytes:
    """Return the colour picture of a frame, as a jpeg or png file.

    Raises:
        SampleError: as `read_index`.
        SourceError: if the file cannot be read.
    """
    index = read_index(file)
    return _read_part(file, int(index.colour_at[frame]), int(index.colour_bytes[frame]))


def read_depth(file: Path, frame: int) -> bytes:
    """Return the depth picture of a frame, as a 16-bit png file.

    Raises:
        SampleError: if the picture is damaged, or as `read_index`.
        SourceError: if the file cannot be read.
    """
    index = read_index(file)
    packed = _read_part(file, int(index.colour_at[frame] + index.colour_bytes[frame]), int(index.depth_bytes[frame]))
    width, height = index.depth_size
    try:
        raw = zlib.decompressobj().decompress(packed, width * height * 2 + 1)
        depth = np.frombuffer(raw, "<u2").reshape(height, width)
    except (zlib.error, ValueError) as error:
        raise SampleError(
            f"{file}, frame {frame}: the depth picture is damaged ({error}); download the file again"
        ) from None
    written = io.BytesIO()
    Image.fromarray(depth).save(written, "png", compress_level=1)
    return written.getvalue()


def _check_header(
    file: Path,
    compressions: tuple[int, int],
    sizes: tuple[tuple[int, int], tuple[int, int]],
    shift: float,
    frames: int,
    size: int,
) -> None:
    """Refuse a header with values that files of ScanNet do not have, or that this file of `size` bytes cannot have."""
    if compressions[0] not in ENCODED_COLOUR or compressions[1] != ZLIB_DEPTH:
        raise SampleError(
            f"{file}: compressions {compressions} of colour and depth; those of ScanNet are png or jpeg (1, 2), "
            "and zlib (1); use the original file"
        )
    if not all(0 < width * height <= MAX_PIXELS for width, height in sizes) or not 0 < shift < np.inf:
        raise SampleError(
            f"{file}: sizes {sizes} of colour and depth, depth shift {shift}: this cannot be; download the file again"
        )
    if frames * FRAME.size > size:
        raise SampleError(f"{file}: {size:,} bytes cannot hold {frames:,} frames; download the file again")


def _ends_early(file: Path, frame: int, frames: int) -> SampleError:
    return SampleError(f"{file}: the file ends in frame {frame} of {frames}; download the file again")


def _read(number: int, length: int, at: int, file: Path) -> bytes:
    raw = os.pread(number, length, at)
    if len(raw) < length:
        raise SampleError(f"{file}: the file ends at byte {at + len(raw):,}; download the file again")
    return raw


def _read_part(file: Path, at: int, length: int) -> bytes:
    try:
        with file.open("rb") as opened:
            opened.seek(at)
            return opened.read(length)
    except OSError as error:
        raise unreadable(file, error) from None

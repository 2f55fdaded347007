"""Reading the vertices of the binary PLY meshes of ScanNet."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelgen import ply
from labelgen.errors import SampleError

ENCODING = "binary_little_endian"
TRIANGLE = 3


def read_vertices(raw: bytes, file: Path) -> dict[str, NDArray[Any]]:
    """Return the properties of the vertices of a mesh by name, each (V,) of its declared type.

    Args:
        raw: the content of the file: vertices first, then triangles.
        file: its path, for messages.

    Raises:
        SampleError: if the header is not that of a binary little-endian mesh with x, y, z, or if the file does not hold
            the vertices and triangles that the header promises.
    """
    try:
        encoding, elements, body = ply.read_header(raw)
        if encoding != ENCODING:
            raise ValueError(f"format {encoding!r}, but meshes of ScanNet are {ENCODING}")
        if not elements or elements[0].name != "vertex" or not {"x", "y", "z"} <= dict(elements[0].properties).keys():
            raise ValueError("it does not begin with vertices that have x, y, z")
        _check_triangles(raw, elements, body)
        return ply.read_vertices(raw)
    except ValueError as error:
        raise SampleError(f"{file}: {error}; download the file again") from None


def _check_triangles(raw: bytes, elements: list[ply.Element], body: int) -> None:
    """Raise ValueError if no triangles follow the vertices: then some of the vertices are missing."""
    if len(elements) < 2 or elements[0].lists or elements[1].name != "face" or not _is_one_list(elements[1]):
        return
    vertex, face = elements[:2]
    of_length, of_entry = face.lists[0]
    triangle = np.dtype([("corners", f"<{of_length}"), ("ids", f"<{of_entry}", TRIANGLE)])
    start = body + vertex.count * vertex.dtype("<").itemsize
    end = start + face.count * triangle.itemsize
    if len(raw) < end:
        raise ValueError(
            f"{len(raw):,} bytes, but its header promises {end:,} for {vertex.count:,} vertices and "
            f"{face.count:,} triangles"
        )
    if (np.frombuffer(raw, triangle, face.count, start)["corners"] != TRIANGLE).any():
        raise ValueError(f"no triangles follow the {vertex.count:,} vertices of the header")


def _is_one_list(element: ply.Element) -> bool:
    return len(element.properties) == len(element.lists) == 1

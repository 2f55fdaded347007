"""Reading the vertices of the binary PLY meshes of ScanNet."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from labelgen.errors import SampleError

END_OF_HEADER = b"end_header\n"
MAX_HEADER_BYTES = 65_536
FORMAT = "binary_little_endian 1.0"
TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "<i2", "ushort": "<u2", "int": "<i4", "uint": "<u4"},
    **{"int8": "i1", "uint8": "u1", "int16": "<i2", "uint16": "<u2", "int32": "<i4", "uint32": "<u4"},
    **{"float": "<f4", "double": "<f8", "float32": "<f4", "float64": "<f8"},
}
"""The names of scalar types in PLY headers, as numpy types."""

TRIANGLE = 3


@dataclass(frozen=True)
class _Header:
    vertices: int
    vertex: np.dtype[np.void]
    faces: int
    face: np.dtype[np.void] | None
    """A face that is a triangle; None if the file has no element of faces."""
    length: int


def read_vertices(raw: bytes, file: Path) -> NDArray[np.void]:
    """Return the vertices of a mesh as a structured array (V,) with the properties that the header names.

    Args:
        raw: the content of the file: vertices first, then triangles.
        file: its path, for messages.

    Raises:
        SampleError: if the header is not that of a binary little-endian mesh with x, y, z, or if the file does not hold
            the vertices and triangles that the header promises.
    """
    header = _read_header(raw, file)
    vertices_end = header.length + header.vertices * header.vertex.itemsize
    end = vertices_end + (header.faces * header.face.itemsize if header.face else 0)
    if len(raw) < end:
        raise SampleError(
            f"{file}: {len(raw):,} bytes, but its header promises {end:,} for {header.vertices:,} vertices and "
            f"{header.faces:,} triangles; download the file again"
        )
    if header.face:
        corners = np.frombuffer(raw, header.face, header.faces, vertices_end)["corners"]
        if (corners != TRIANGLE).any():
            raise SampleError(
                f"{file}: no triangles follow the {header.vertices:,} vertices of the header; download the file again"
            )
    return np.frombuffer(raw, header.vertex, header.vertices, header.length)


def _read_header(raw: bytes, file: Path) -> _Header:
    end = raw.find(END_OF_HEADER, 0, MAX_HEADER_BYTES)
    if not raw.startswith(b"ply\n") or end < 0:
        raise SampleError(f"{file}: not a PLY file; download the file again")
    elements: dict[str, tuple[int, list[tuple[str, str]]]] = {}
    found_format = ""
    try:
        for line in raw[:end].decode("ascii").splitlines()[1:]:
            words = line.split()
            match words:
                case ["format", *version]:
                    found_format = " ".join(version)
                case ["element", name, count]:
                    elements[name] = int(count), []
                case ["property", "list", of_count, of_item, _]:
                    triangle = [
                        ("corners", TYPES[of_count]),
                        *((f"corner{i}", TYPES[of_item]) for i in range(TRIANGLE)),
                    ]
                    elements[name][1].extend(triangle)
                case ["property", kind, property_name]:
                    elements[name][1].append((property_name, TYPES[kind]))
        dtypes = {name: np.dtype(properties) for name, (_, properties) in elements.items()}
    except (KeyError, UnboundLocalError, ValueError) as error:
        raise SampleError(f"{file}: the header cannot be read ({error!r}); download the file again") from None
    if found_format != FORMAT:
        raise SampleError(f"{file}: format {found_format!r}, but meshes of ScanNet are {FORMAT}; use the original file")
    if [*elements][:1] != ["vertex"] or not {"x", "y", "z"} <= set(dtypes["vertex"].names or ()):
        raise SampleError(f"{file}: does not begin with vertices that have x, y, z; use the original file")
    if "corners" in (dtypes["vertex"].names or ()):
        raise SampleError(f"{file}: a vertex has a list; use the original file")
    if min(count for count, _ in elements.values()) < 0:
        raise SampleError(f"{file}: the header has a negative count; download the file again")
    has_faces = "face" in elements and "corners" in (dtypes["face"].names or ())
    return _Header(
        vertices=elements["vertex"][0],
        vertex=dtypes["vertex"],
        faces=elements["face"][0] if has_faces else 0,
        face=dtypes["face"] if has_faces else None,
        length=end + len(END_OF_HEADER),
    )

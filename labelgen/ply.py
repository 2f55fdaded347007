"""Vertices of PLY files, ascii and binary.

A file is a text header and then the elements that it declares, in order. Each element has a count and properties; a
property is one number, or a list whose length comes before it. Faces and other elements after the vertices are not
read.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

KINDS = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"},
    **{"float": "f4", "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2"},
    **{"int32": "i4", "uint32": "u4", "float32": "f4", "float64": "f8"},
}
"""Types of the format, in its old and new names, as numpy writes them."""

BYTE_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
END = b"end_header"


@dataclass
class Element:
    """An element of the header.

    Attributes:
        name, count: what the header says.
        properties: name and type of each property; no type for a list.
        lists: the types of the length and of an entry of each list.
    """

    name: str
    count: int
    properties: list[tuple[str, str | None]] = field(default_factory=list)
    lists: list[tuple[str, str]] = field(default_factory=list)

    def dtype(self, byte_order: str) -> np.dtype[Any]:
        """Return the type of one entry of an element without lists.

        Raises:
            ValueError: if two properties have one name.
        """
        names = [name for name, _ in self.properties]
        if len(set(names)) != len(names):
            raise ValueError(f"element {self.name!r} names a property twice")
        return np.dtype([(name, f"{byte_order}{kind}") for name, kind in self.properties])


def read_vertices(raw: bytes) -> dict[str, NDArray[Any]]:
    """Return the properties of the vertices of a PLY file by name, each (P,) of its declared type.

    Raises:
        ValueError: if it is not a PLY file, is cut short, or has lists in or before its vertices.
    """
    encoding, elements, body = read_header(raw)
    names = [element.name for element in elements]
    if "vertex" not in names:
        raise ValueError("the header declares no vertices")
    place = names.index("vertex")
    for element in elements[: place + 1]:
        if any(kind is None for _, kind in element.properties):
            raise ValueError(f"element {element.name!r} has a list property; write vertices first, as numbers")
    vertex, before = elements[place], elements[:place]
    dtype = vertex.dtype(BYTE_ORDERS[encoding])
    if encoding == "ascii":
        return _from_text(raw[body:], sum(element.count for element in before), vertex, dtype)
    start = body + sum(element.count * element.dtype("<").itemsize for element in before)
    if len(raw) - start < vertex.count * dtype.itemsize:
        raise ValueError(f"the file ends before its {vertex.count:,} vertices do")
    rows = np.frombuffer(raw, dtype, vertex.count, start)
    return {name: rows[name] for name, _ in vertex.properties}


def read_header(raw: bytes) -> tuple[str, list[Element], int]:
    """Return the encoding, the elements, and where the body begins.

    Raises:
        ValueError: if there is no header of a PLY file.
    """
    end = raw.find(END)
    if not raw.startswith(b"ply") or end < 0:
        raise ValueError("not a PLY file: no header from `ply` to `end_header`")
    body = raw.find(b"\n", end) + 1 or len(raw)
    encoding, elements = "", list[Element]()
    for line in raw[:end].decode("ascii", "replace").splitlines():
        match line.split():
            case ["format", found, *_]:
                encoding = found
            case ["element", name, count] if count.isdecimal():
                elements.append(Element(name, int(count)))
            case ["property", "list", of_length, of_entry, name] if elements and {of_length, of_entry} <= KINDS.keys():
                elements[-1].properties.append((name, None))
                elements[-1].lists.append((KINDS[of_length], KINDS[of_entry]))
            case ["property", kind, name] if elements and kind in KINDS:
                elements[-1].properties.append((name, KINDS[kind]))
            case ["element" | "property", *_]:
                raise ValueError(f"the header line {line!r} is malformed")
    if encoding not in BYTE_ORDERS:
        raise ValueError(f"format {encoding!r} is not one of {', '.join(BYTE_ORDERS)}")
    return encoding, elements, body


def _from_text(body: bytes, skipped: int, vertex: Element, dtype: np.dtype[Any]) -> dict[str, NDArray[Any]]:
    """Return the vertices of an ascii body, after `skipped` lines of other elements."""
    lines = body.splitlines()[skipped : skipped + vertex.count]
    if len(lines) < vertex.count:
        raise ValueError(f"the file ends before its {vertex.count:,} vertices do")
    numbers = np.array(b" ".join(lines).split(), np.float64)
    if numbers.size != vertex.count * len(vertex.properties):
        raise ValueError(f"not {len(vertex.properties)} numbers in each line of the vertices")
    columns = numbers.reshape(vertex.count, -1).T
    return {name: column.astype(dtype[name]) for (name, _), column in zip(vertex.properties, columns, strict=True)}

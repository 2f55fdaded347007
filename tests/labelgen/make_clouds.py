"""Write one cloud in every format that a list of samples may name; each function returns the fields that it needs."""

from pathlib import Path

import laspy
import numpy as np
from pypcd4.pypcd4 import Encoding, PointCloud

from tests.labelgen.make_files import Line, street

POINTS = street(np.random.default_rng(5))[0]
COLOURS = np.random.default_rng(6).integers(0, 256, (len(POINTS), 3)).astype(np.uint8)
NAMES = ["x", "y", "z", "intensity"]
RGB = ("red", "green", "blue")


def save_bin(file: Path) -> Line:
    np.column_stack([POINTS, POINTS[:, 0]]).astype("<f8").tofile(file)
    return {"columns": [*NAMES, "ring"], "dtype": "float64"}


def save_npy(file: Path) -> Line:
    np.save(file, np.asfortranarray(POINTS))
    return {"columns": NAMES}


def save_named_npy(file: Path) -> Line:
    rows = np.zeros(len(POINTS), [(name, "f4") for name in NAMES])
    for name, column in zip(NAMES, POINTS.T, strict=True):
        rows[name] = column
    np.save(file, rows)
    return {}


def save_pcd(file: Path, encoding: Encoding) -> Line:
    cloud = PointCloud.from_xyzi_points(POINTS)
    cloud.save(file, encoding)
    return {}


def save_ply(file: Path, encoding: str) -> Line:
    """Write vertices after an element of other numbers, and before faces with lists."""
    order = ">" if "big" in encoding else "<"
    kinds = [("x", "double"), ("y", "double"), ("z", "double"), ("intensity", "float32"), *((c, "uchar") for c in RGB)]
    header = ["ply", f"format {encoding} 1.0", "comment made", "element place 2", "property int number"]
    header += [f"element vertex {len(POINTS)}", *(f"property {kind} {name}" for name, kind in kinds)]
    header += ["element face 1", "property list uchar int vertex_indices", "end_header"]
    columns = [*POINTS.T, *COLOURS.T]
    if encoding == "ascii":
        rows = [" ".join(f"{value:.9g}" for value in row) for row in zip(*columns, strict=True)]
        body = "\n".join(["1", "2", *rows, "3 0 1 2", ""]).encode()
    else:
        numpy_kinds = {"double": "f8", "float32": "f4", "uchar": "u1"}
        vertices = np.zeros(len(POINTS), [(name, order + numpy_kinds[kind]) for name, kind in kinds])
        for (name, _), column in zip(kinds, columns, strict=True):
            vertices[name] = column
        body = np.array([1, 2], order + "i4").tobytes() + vertices.tobytes() + b"\x03" + bytes(12)
    file.write_bytes("\n".join(header).encode() + b"\n" + body)
    return {}


def save_las(file: Path) -> Line:
    cloud = laspy.create(point_format=2, file_version="1.2")
    cloud.header.scales = [1e-5] * 3
    cloud.x, cloud.y, cloud.z = POINTS[:, :3].T.astype(np.float64)
    cloud.intensity = POINTS[:, 3].astype(np.uint16)
    cloud.red, cloud.green, cloud.blue = COLOURS.T.astype(np.uint16) * 257
    cloud.write(str(file))
    return {}

"""Make a tiny fake ScanNet in the official layouts: frames_25k, frames exported from .sens files, and .sens files.

The room is made of axis-aligned boxes. Depth, labels and the visibility of every vertex are exact ray casts of them. A
wall with an opening parts the room, so about half of the vertices are hidden from every frame.

Each scan has five frames: one (the fourth) has no pose, and one (the fifth) no depth. Their numbers have a gap.
"""

import json
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float64]

COLOUR_SIZE, DEPTH_SIZE = (162, 121), (80, 60)
"""(width, height): an eighth of the real ones."""

MIN_DEPTH_M = 0.1
SPACING_M = 0.2
EDGE_M = 1e-5
"""A surface hides a vertex if it is nearer by more than this, which is above the rounding of float32 vertices."""

NUMBERS = {"frames_25k": (0, 100, 300, 400, 500), "exported": (0, 20, 60, 80, 100), "sens": (0, 1, 2, 3, 4)}
"""Frame numbers of each layout."""

NO_POSE, NO_DEPTH = 3, 4
"""Places in the list of frames."""

RAW_OF_NYU40 = {
    1: ("wall", 21),
    2: ("floor", 3),
    3: ("cabinet", 20),
    4: ("bed", 11),
    5: ("chair", 2),
    7: ("desk", 1191),
    22: ("ceiling", 4),
}
"""Raw name and raw id of each object. Read as nyu40, nearly all of these raw ids mean another class."""


@dataclass(frozen=True)
class Box:
    """A box of the room: its corners in metres, its nyu40 id, its colour, and the faces that the mesh has."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    nyu40: int
    colour: tuple[int, int, int]
    faces: tuple[str, ...] = ("-x", "+x", "-y", "+y", "+z")


ROOM = (
    Box((-0.2, -0.2, -0.2), (6.2, 4.2, 0.0), 2, (150, 110, 70), ("+z",)),
    Box((-0.2, -0.2, -0.2), (0.0, 4.2, 2.6), 1, (200, 200, 190), ("+x",)),
    Box((6.0, -0.2, -0.2), (6.2, 4.2, 2.6), 1, (190, 200, 200), ("-x",)),
    Box((-0.2, -0.2, -0.2), (6.2, 0.0, 2.6), 1, (200, 190, 200), ("+y",)),
    Box((-0.2, 4.0, -0.2), (6.2, 4.2, 2.6), 1, (185, 195, 205), ("-y",)),
    Box((2.9, 0.0, 0.0), (3.1, 3.2, 2.6), 1, (215, 205, 175), ("-x", "+x", "+y")),
    Box((1.4, 1.0, 0.0), (2.2, 1.9, 0.7), 7, (120, 60, 30)),
    Box((0.5, 2.6, 0.0), (1.0, 3.1, 0.9), 5, (40, 80, 160)),
    Box((4.2, 0.4, 0.0), (5.8, 2.0, 0.5), 4, (170, 40, 50)),
    Box((5.4, 2.8, 0.0), (6.0, 3.8, 1.9), 3, (60, 120, 60), ("-x", "-y", "+y", "+z")),
    Box((-0.2, -0.2, 2.6), (6.2, 4.2, 2.8), 22, (240, 240, 240), ()),
)
"""Floor, four walls, the parting wall, a desk and a chair on this side, a bed and a cabinet on the other, and the
ceiling, which the mesh lacks and which is none of the 20 classes."""

VIEWS = (
    ((0.5, 0.5, 1.6), (3.0, 2.0, 0.6)),
    ((2.4, 3.6, 1.75), (0.4, 1.0, 0.4)),
    ((3.4, 3.6, 1.6), (5.6, 1.6, 0.5)),
    ((1.0, 1.0, 1.5), (2.0, 2.0, 0.5)),
    ((0.4, 3.7, 1.5), (6.0, 3.4, 0.7)),
)
"""Place of the camera, and the point it looks at, of each frame."""


@dataclass(frozen=True)
class Frame:
    """What a frame shows.

    Attributes:
        world_from_cam: (4, 4) pose as it is written; -inf for the frame without one.
        visible: (V,) bool, whether a vertex projects into the colour picture (1 < u < width - 1, and v likewise),
            farther than `MIN_DEPTH_M`, and no surface hides it.
        hidden: (V,) bool, whether it projects there but a surface hides it.
        gap_m: (V,) how far before the vertex the ray to it meets the first surface, along the optical axis; about 0 if
            nothing hides the vertex.
        depth: (60, 80) u16 millimetres.
        nyu40: (121, 162) u8 ids of the pixels of the colour picture.
        colour: (121, 162, 3) u8.
    """

    world_from_cam: Floats
    visible: NDArray[np.bool_]
    hidden: NDArray[np.bool_]
    gap_m: Floats
    depth: NDArray[np.uint16]
    nyu40: NDArray[np.uint8]
    colour: NDArray[np.uint8]


@dataclass(frozen=True)
class MadeScan:
    """A scan: the vertices (V, 3) f32 of its mesh, their colour (V, 3) u8 and nyu40 id (V,) u16, and its frames."""

    vertices: NDArray[np.float32]
    colour: NDArray[np.uint8]
    nyu40: NDArray[np.uint16]
    triangles: NDArray[np.int32]
    frames: tuple[Frame, ...]


@dataclass(frozen=True)
class ScanKind:
    """How a scan is written: its frame in the room, whether vertices have alpha, and which truth it has."""

    yaw: float
    alpha: bool = True
    truth: str = "labels.ply"
    strange_label: bool = False


SCANS = {
    "scene0191_00": ScanKind(0.3),
    "scene0191_01": ScanKind(-1.1, alpha=False, truth="groups"),
    "scene0568_00": ScanKind(2.0, strange_label=True),
    "scene0707_00": ScanKind(0.0, truth="none"),
}
"""Two scans of one room of train, one of val whose labelled mesh has an id 50, one of test without labels."""

STRANGE_ID = 50


def make_scannet(folder: Path, layout: str = "frames_25k", scans: dict[str, ScanKind] = SCANS) -> dict[str, MadeScan]:
    """Write `scans` into `folder`, with frames of one layout; returns what was written, by name of the scan."""
    made = {}
    for name, kind in scans.items():
        is_test = name.startswith("scene07") and int(name[5:9]) > 706
        scan = made[name] = make_scan(kind)
        place = folder / ("scans_test" if is_test else "scans") / name
        place.mkdir(parents=True, exist_ok=True)
        write_mesh(place / f"{name}_vh_clean_2.ply", scan, kind.alpha)
        (place / f"{name}.txt").write_text(f"axisAlignment = {' '.join(['0.5'] * 16)}\nfx_color = 1170.187988\n")
        if kind.truth == "labels.ply":
            write_mesh(place / f"{name}_vh_clean_2.labels.ply", scan, kind.alpha, labels=True)
        if kind.truth == "groups":
            write_groups(place, name, scan)
        has_labels = kind.truth != "none"
        if layout == "frames_25k":
            write_frames_25k(folder / f"tasks/scannet_frames_{'test' if is_test else '25k'}" / name, scan, has_labels)
        else:
            write = write_exported if layout == "exported" else write_sens_file
            write(place, scan)
            if has_labels:
                write_raw_labels(place / "label-filt", scan, NUMBERS[layout])
    write_label_map(folder / "scannetv2-labels.combined.tsv")
    return made


# The room


def make_scan(kind: ScanKind) -> MadeScan:
    """Mesh the room, and take its frames."""
    world_from_room = np.eye(4)
    cos, sin = math.cos(kind.yaw), math.sin(kind.yaw)
    world_from_room[:2, :2] = [[cos, -sin], [sin, cos]]
    world_from_room[:3, 3] = (4.0, 3.0, 0.1)
    room, nyu40, colour, triangles = mesh_of_room()
    vertices = (room @ world_from_room[:3, :3].T + world_from_room[:3, 3]).astype(np.float32)
    frames = tuple(take_frame(view, world_from_room, vertices) for view in VIEWS)
    if kind.strange_label:
        nyu40[nyu40 == 5] = STRANGE_ID
    lost = Frame(
        np.full((4, 4), -np.inf), *(getattr(frames[NO_POSE], name) for name in list(Frame.__annotations__)[1:])
    )
    frames = (*frames[:NO_POSE], lost, *frames[NO_POSE + 1 :])
    return MadeScan(vertices, colour, nyu40, triangles, frames)


def mesh_of_room() -> tuple[Floats, NDArray[np.uint16], NDArray[np.uint8], NDArray[np.int32]]:
    """Return vertices (V, 3) in the room, their nyu40 ids and colours, and triangles (T, 3)."""
    vertices: list[Floats] = []
    nyu40: list[int] = []
    colours: list[tuple[int, int, int]] = []
    triangles: list[tuple[int, int, int]] = []
    for box in ROOM:
        for face in box.faces:
            axis = "xyz".index(face[1])
            first, second = (other for other in range(3) if other != axis)
            spans = [_inner_grid(max(box.low[a], 0.0), min(box.high[a], (6, 4, 2.6)[a])) for a in (first, second)]
            grid = np.zeros((len(spans[0]), len(spans[1]), 3))
            grid[..., first], grid[..., second] = np.meshgrid(*spans, indexing="ij")
            grid[..., axis] = (box.high if face[0] == "+" else box.low)[axis]
            start = len(nyu40)
            index = start + np.arange(grid.size // 3).reshape(grid.shape[:2])
            corners = [index[:-1, :-1], index[1:, :-1], index[:-1, 1:], index[1:, 1:]]
            for a, b, c, d in zip(*(corner.ravel().tolist() for corner in corners), strict=True):
                triangles += [(a, b, c), (b, d, c)]
            vertices.append(grid.reshape(-1, 3))
            nyu40 += [box.nyu40] * (grid.size // 3)
            colours += [box.colour] * (grid.size // 3)
    return (
        np.concatenate(vertices),
        np.array(nyu40, np.uint16),
        np.array(colours, np.uint8),
        np.array(triangles, np.int32),
    )


def _inner_grid(low: float, high: float) -> Floats:
    """Return places about `SPACING_M` apart that do not touch the ends."""
    steps = max(2, round((high - low) / SPACING_M))
    return low + (np.arange(steps) + 0.5) * (high - low) / steps


def intrinsics(size: tuple[int, int]) -> Floats:
    """Return the camera matrix (4, 4) of a picture of `size`, from the real ones of 1296x968."""
    width, height = size
    matrix = np.eye(4)
    matrix[0, 0], matrix[0, 2] = 1169.621094 * width / 1296, 646.295044 * (width - 1) / 1295
    matrix[1, 1], matrix[1, 2] = 1167.105103 * height / 968, 489.927032 * (height - 1) / 967
    return matrix.round(6)


def take_frame(view: tuple[Any, Any], world_from_room: Floats, vertices: NDArray[np.float32]) -> Frame:
    """Return what a camera at a place in the room sees."""
    eye, target = (np.array(place, np.float64) for place in view)
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, (0, 0, 1))
    right /= np.linalg.norm(right)
    room_from_cam = np.eye(4)
    room_from_cam[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    room_from_cam[:3, 3] = eye
    world_from_cam = (world_from_room @ room_from_cam).round(6)
    room_from_cam = np.linalg.inv(world_from_room) @ world_from_cam
    box, distance = cast(room_from_cam, pixel_rays(COLOUR_SIZE))
    shade = 1 - 0.06 * (distance % 1.0)[..., None]
    colour = np.array([entry.colour for entry in ROOM])[box] * shade
    _, depth = cast(room_from_cam, pixel_rays(DEPTH_SIZE))
    inside, hidden, gap_m = see_vertices(world_from_cam, np.linalg.inv(world_from_room), vertices)
    return Frame(
        world_from_cam,
        visible=inside & ~hidden,
        hidden=inside & hidden,
        gap_m=gap_m,
        depth=np.rint(depth * 1000).astype(np.uint16),
        nyu40=np.array([entry.nyu40 for entry in ROOM], np.uint8)[box],
        colour=colour.astype(np.uint8),
    )


def pixel_rays(size: tuple[int, int]) -> Floats:
    """Return the rays (H, W, 3) of the pixel centres in the camera frame, with z = 1."""
    matrix = intrinsics(size)
    u, v = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    x, y = (u - matrix[0, 2]) / matrix[0, 0], (v - matrix[1, 2]) / matrix[1, 1]
    return np.stack([x, y, np.ones_like(x)], axis=-1)


def cast(room_from_cam: Floats, rays: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Return the first box that each ray (..., 3) meets, and where: in lengths of the ray."""
    start, along = room_from_cam[:3, 3], rays @ room_from_cam[:3, :3].T
    entries = np.stack([_entry(start, along, box) for box in ROOM], axis=-1)
    return entries.argmin(axis=-1), entries.min(axis=-1)


def _entry(start: Floats, along: Floats, box: Box) -> Floats:
    """Return where rays enter a box; infinite if they miss it."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = np.stack([(np.array(end) - start) / along for end in (box.low, box.high)])
    near, far = ends.min(axis=0).max(axis=-1), ends.max(axis=0).min(axis=-1)
    return np.where((near <= far) & (near > 0), near, np.inf)


def see_vertices(
    world_from_cam: Floats, room_from_world: Floats, vertices: NDArray[np.float32]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], Floats]:
    """Return whether each vertex projects into the colour picture, whether a surface hides it, and the gap to that."""
    points = vertices.astype(np.float64)
    cam_from_world = np.linalg.inv(world_from_cam)
    in_camera = points @ cam_from_world[:3, :3].T + cam_from_world[:3, 3]
    matrix = intrinsics(COLOUR_SIZE)
    with np.errstate(divide="ignore", invalid="ignore"):
        u, v = (matrix[a, a] * in_camera[:, a] / in_camera[:, 2] + matrix[a, 2] for a in (0, 1))
    inside = (in_camera[:, 2] > MIN_DEPTH_M) & (u > 1) & (u < COLOUR_SIZE[0] - 1) & (v > 1) & (v < COLOUR_SIZE[1] - 1)
    _, first = cast(room_from_world @ world_from_cam, in_camera)
    hidden = first < 1 - EDGE_M / np.linalg.norm(in_camera, axis=1)
    return inside, hidden, (1 - first) * in_camera[:, 2]


# Files


def write_mesh(file: Path, scan: MadeScan, alpha: bool, labels: bool = False) -> None:
    """Write a mesh with vertices and triangles; with `labels`, the colours are those of the labels."""
    columns: list[tuple[str, str]] = [(axis, "<f4") for axis in "xyz"] + [(c, "u1") for c in ("red", "green", "blue")]
    columns += [("alpha", "u1")] if alpha else []
    columns += [("label", "<u2")] if labels else []
    names = {"<f4": "float", "u1": "uchar", "<u2": "ushort"}
    rows = np.zeros(len(scan.vertices), columns)
    for index, axis in enumerate("xyz"):
        rows[axis] = scan.vertices[:, index]
    colour = (scan.nyu40[:, None] * np.array((5, 3, 2))).astype(np.uint8) if labels else scan.colour
    for index, name in enumerate(("red", "green", "blue")):
        rows[name] = colour[:, index]
    if alpha:
        rows["alpha"] = 255
    if labels:
        rows["label"] = scan.nyu40
    faces = np.zeros(len(scan.triangles), [("count", "u1"), ("corners", "<i4", 3)])
    faces["count"], faces["corners"] = 3, scan.triangles
    header = ["ply", "format binary_little_endian 1.0", "comment made up", f"element vertex {len(rows)}"]
    header += [f"property {names[kind]} {name}" for name, kind in columns]
    header += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header", ""]
    file.write_bytes("\n".join(header).encode() + rows.tobytes() + faces.tobytes())


def write_groups(place: Path, name: str, scan: MadeScan) -> None:
    """Write the truth as segments of 7 vertices and groups of segments; walls belong to no group."""
    segments = np.arange(len(scan.vertices)) // 7 + scan.nyu40.astype(int) * 10_000
    groups = [
        {
            "id": i,
            "objectId": i,
            "segments": np.unique(segments[scan.nyu40 == nyu40]).tolist(),
            "label": RAW_OF_NYU40[nyu40][0],
        }
        for i, nyu40 in enumerate(sorted(set(scan.nyu40.tolist()) - {1}))
    ]
    (place / f"{name}.aggregation.json").write_text(json.dumps({"sceneId": name, "segGroups": groups}))
    found = {"sceneId": name, "segIndices": segments.tolist()}
    (place / f"{name}_vh_clean_2.0.010000.segs.json").write_text(json.dumps(found))


def write_label_map(file: Path) -> None:
    """Write the label map; of an id with two rows, the last one counts."""
    rows = ["id\traw_category\tcategory\tcount\tnyu40id\teigen13id\tnyu40class"]
    rows += ["20\tolder cabinet\tcabinet\t1\t40\t7\totherprop"]
    rows += [f"{raw}\t{name}\t{name}\t1\t{nyu40}\t1\t{name}" for nyu40, (name, raw) in RAW_OF_NYU40.items()]
    file.write_text("\n".join(rows) + "\n")


def write_matrix(file: Path, matrix: Floats) -> None:
    """Write a matrix (4, 4) as text."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(" ".join(f"{number:f}" for number in row) + "\n" for row in matrix))


def write_picture(file: Path, pixels: NDArray[Any]) -> None:
    """Write a picture."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, **({"quality": 95} if file.suffix == ".jpg" else {}))


def write_frames_25k(place: Path, scan: MadeScan, labels: bool) -> None:
    """Write frames as in scannet_frames_25k."""
    for at, (number, frame) in enumerate(zip(NUMBERS["frames_25k"], scan.frames, strict=True)):
        write_picture(place / f"color/{number:06d}.jpg", frame.colour)
        write_matrix(place / f"pose/{number:06d}.txt", frame.world_from_cam)
        if at != NO_DEPTH:
            write_picture(place / f"depth/{number:06d}.png", frame.depth)
        if labels:
            write_picture(place / f"label/{number:06d}.png", frame.nyu40)
            write_picture(place / f"instance/{number:06d}.png", frame.nyu40.astype(np.uint16) * 1000 + 1)
    for sensor, size in (("color", COLOUR_SIZE), ("depth", DEPTH_SIZE)):
        write_matrix(place / f"intrinsics_{sensor}.txt", intrinsics(size))
        write_matrix(place / f"extrinsics_{sensor}.txt", np.eye(4))


def write_exported(place: Path, scan: MadeScan) -> None:
    """Write frames as the official exporter of .sens files does."""
    for at, (number, frame) in enumerate(zip(NUMBERS["exported"], scan.frames, strict=True)):
        write_picture(place / f"color/{number}.jpg", frame.colour)
        write_matrix(place / f"pose/{number}.txt", frame.world_from_cam)
        if at != NO_DEPTH:
            write_picture(place / f"depth/{number}.png", frame.depth)
    for sensor, size in (("color", COLOUR_SIZE), ("depth", DEPTH_SIZE)):
        write_matrix(place / f"intrinsic/intrinsic_{sensor}.txt", intrinsics(size))
        write_matrix(place / f"intrinsic/extrinsic_{sensor}.txt", np.eye(4))


def write_raw_labels(place: Path, scan: MadeScan, numbers: tuple[int, ...]) -> None:
    """Write 16-bit pictures of raw ids, as in <scan>_2d-label-filt.zip."""
    table = np.zeros(41, np.uint16)
    for nyu40, (_, raw) in RAW_OF_NYU40.items():
        table[nyu40] = raw
    for number, frame in zip(numbers, scan.frames, strict=True):
        write_picture(place / f"{number}.png", table[frame.nyu40])


def write_sens_file(place: Path, scan: MadeScan) -> None:
    """Write a .sens file of version 4, with jpeg colour and zlib depth."""
    name = b"made up"
    matrices = (intrinsics(COLOUR_SIZE), np.eye(4), intrinsics(DEPTH_SIZE), np.eye(4))
    parts = [struct.pack("<IQ", 4, len(name)), name, *(matrix.astype("<f4").tobytes() for matrix in matrices)]
    parts += [struct.pack("<ii4IfQ", 2, 1, *COLOUR_SIZE, *DEPTH_SIZE, 1000.0, len(scan.frames))]
    picture = place / "frame.jpg"
    for at, frame in enumerate(scan.frames):
        write_picture(picture, frame.colour)
        colour = picture.read_bytes()
        depth = b"" if at == NO_DEPTH else zlib.compress(frame.depth.astype("<u2").tobytes())
        parts += [frame.world_from_cam.astype("<f4").tobytes(), struct.pack("<4Q", 0, 0, len(colour), len(depth))]
        parts += [colour, depth]
    picture.unlink()
    parts += [struct.pack("<Q", 1), bytes(128)]
    (place / f"{place.name}.sens").write_bytes(b"".join(parts))

"""Make a tiny fake SemanticKITTI in the official layout: two labelled sequences (00 and 08) and a test sequence (11).

The calibration is that of the real sequences 00 and 04, for pictures of a quarter of the size. Every raw id has a point
that projects onto the centre of a known pixel, where a disc of a colour of its own is drawn. Further points lie behind
the camera, beside the picture, or too near.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

FRAMES = 3
SHRINK = 4
TR = (
    *(4.276802385584e-04, -9.999672484946e-01, -8.084491683471e-03, -1.198459927713e-02),
    *(-7.210626507497e-03, 8.081198471645e-03, -9.999413164504e-01, -5.403984729748e-02),
    *(9.999738645903e-01, 4.859485810390e-04, -7.206933692422e-03, -2.921968648686e-01),
)
RAW_IDS = (
    *(0, 1, 10, 11, 13, 15, 16, 18, 20, 30, 31, 32, 40, 44, 48, 49, 50, 51, 52, 60, 70, 71, 72, 80, 81, 99),
    *range(252, 260),
)
"""All raw ids that SemanticKITTI defines."""

UNSEEN = {
    "behind the camera": [(-10.0, y, 0.0) for y in (-4.0, 0.0, 4.0)],
    "beside the picture": [(5.0, 20.0, 0.0), (5.0, -20.0, 0.0), (8.0, 0.0, 30.0)],
    "nearer than a metre": [(0.9, 0.0, -0.05)],
}
"""Points (x, y, z) in metres that no camera sees; labelled as road."""


class Sequence(NamedTuple):
    """A sequence: native picture size, and focal length and principal point of the real camera, in pixels."""

    width_px: int
    height_px: int
    focal_px: float
    centre_px: tuple[float, float]
    labelled: bool


SEQUENCES = {
    "00": Sequence(310, 94, 718.856, (607.1928, 185.2157), True),
    "08": Sequence(306, 92, 707.0912, (601.8873, 183.1104), True),
    "11": Sequence(310, 94, 718.856, (607.1928, 185.2157), False),
}
OFFSETS = {"P0": (0.0, 0.0), "P1": (-386.1448, 0.0), "P2": (45.38225, -0.1130887), "P3": (-337.2877, 2.369057)}
"""The fourth column of the projections at native size, without its last number."""


def projection(name: str, camera: str) -> np.ndarray:
    """Return the projection (3, 4) of a camera of a sequence, as calib.txt has it."""
    sequence = SEQUENCES[name]
    focal, (cx, cy), (px, py) = sequence.focal_px, sequence.centre_px, OFFSETS[camera]
    full = np.array([[focal, 0, cx, px], [0, focal, cy, py], [0, 0, 1, 0.003779761]])
    full[:2] /= SHRINK
    return full


def seen_points(name: str, frame: int) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels (N, 2) of image_2 and depths (N,) of the points of a frame that it sees, one for each raw id."""
    sequence = SEQUENCES[name]
    count = len(RAW_IDS)
    columns = np.linspace(8, sequence.width_px - 9, 12).round()
    rows = np.linspace(10, sequence.height_px - 11, 3).round()
    pixels = np.stack([np.tile(columns, 3)[:count], np.repeat(rows, 12)[:count]], axis=1)
    return pixels + (frame, 0), 6.0 + np.arange(count) + frame


def pose(frame: int) -> np.ndarray:
    """Return the pose (3, 4) of camera 0: it drives ahead, along its z axis, and turns slowly about y."""
    angle = 0.02 * frame
    turn = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    return np.hstack([turn, [[0.1 * frame], [0.0], [1.5 * frame]]])


def make_semantickitti(folder: Path) -> Path:
    """Write the data set into `folder`, which becomes the folder that holds `sequences`."""
    for name in SEQUENCES:
        _write_sequence(folder / "sequences" / name, name)
    return folder


def _write_sequence(folder: Path, name: str) -> None:
    for part in ("velodyne", "image_2", "image_3", *(["labels"] if SEQUENCES[name].labelled else [])):
        (folder / part).mkdir(parents=True)
    matrices = {camera: projection(name, camera).ravel() for camera in OFFSETS} | {"Tr": TR}
    lines = (f"{key}: {' '.join(f'{value:.12e}' for value in values)}\n" for key, values in matrices.items())
    (folder / "calib.txt").write_text("".join(lines))
    (folder / "times.txt").write_text("".join(f"{0.1 * frame:e}\n" for frame in range(FRAMES)))
    poses = (" ".join(f"{value:e}" for value in pose(frame).ravel()) for frame in range(FRAMES))
    (folder / "poses.txt").write_text("\n".join(poses) + "\n")
    for frame in range(FRAMES):
        _write_frame(folder, name, frame)


def _write_frame(folder: Path, name: str, frame: int) -> None:
    sequence = SEQUENCES[name]
    pixels, depth = seen_points(name, frame)
    homogeneous = np.column_stack([pixels * depth[:, None], depth])
    p2, tr = projection(name, "P2"), np.array(TR).reshape(3, 4)
    in_camera0 = np.linalg.solve(p2[:, :3], (homogeneous - p2[:, 3]).T)
    xyz = np.linalg.solve(tr[:, :3], in_camera0 - tr[:, 3:]).T
    unseen = np.array([point for points in UNSEEN.values() for point in points])
    cloud = np.concatenate([xyz, unseen])
    remission = np.linspace(0, 0.99, len(cloud))
    np.column_stack([cloud, remission]).astype("<f4").tofile(folder / "velodyne" / f"{frame:06d}.bin")
    if sequence.labelled:
        raw = np.array([*RAW_IDS, *[40] * len(unseen)], np.uint32)
        instances = np.arange(len(raw), dtype=np.uint32) + 1
        (raw | instances << 16).astype("<u4").tofile(folder / "labels" / f"{frame:06d}.label")
    picture = Image.new("RGB", (sequence.width_px, sequence.height_px), (128, 128, 128))
    draw = ImageDraw.Draw(picture)
    for number, (u, v) in enumerate(pixels.tolist()):
        draw.ellipse((u - 5, v - 5, u + 5, v + 5), fill=disc_colour(number))
    for camera in ("image_2", "image_3"):
        picture.save(folder / camera / f"{frame:06d}.png")


def disc_colour(number: int) -> tuple[int, int, int]:
    """Return the colour of the disc around the pixel of point `number`."""
    return 5 * number, 255 - 5 * number, 40 + 90 * (number % 3)

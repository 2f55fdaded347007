"""The text files of a sequence: `calib.txt`, `times.txt` and poses.

Projection in KITTI's odometry data: (u z, v z, z) = P2 [Tr; 0 0 0 1] X for a point X of the lidar, with P2 (3, 4) of
the rectified left colour camera and Tr (3, 4) from the lidar to camera 0, which has the rectification in it. P2's
fourth column holds the offset of the colour camera from camera 0, so with K = P2[:, :3] and t = K^-1 P2[:, 3] the
camera has the matrix K, and `cam_from_cloud` = [I | t] Tr.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from labelgen.errors import DatasetError
from labelgen.geometry import check_intrinsics

Floats = NDArray[np.float64]

PROJECTIONS = {"image_2": "P2", "image_3": "P3"}
"""The line of calib.txt for each folder of pictures."""

LIDAR = "Tr"
CALIB_ARCHIVE = "data_odometry_calib.zip"
RIGID_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Calibration:
    """The calibration of one sequence.

    Attributes:
        cameras: intrinsics (3, 3) and cam_from_cloud (4, 4) by folder of pictures.
        camera0_from_cloud: (4, 4) rigid transform from the lidar to camera 0, KITTI's `Tr`.
    """

    cameras: dict[str, tuple[Floats, Floats]]
    camera0_from_cloud: Floats

    def world_from_cloud(self, poses: Floats) -> Floats:
        """Return Tr^-1 pose Tr (F, 4, 4) for poses (F, 4, 4) of camera 0: the world is the lidar's frame of scan 0."""
        world: Floats = np.linalg.inv(self.camera0_from_cloud) @ poses @ self.camera0_from_cloud
        return world


def read_calibration(file: Path) -> Calibration:
    """Read a calib.txt: lines of a name, a colon and 12 numbers, a matrix (3, 4) row by row.

    Raises:
        DatasetError: if the file, a line or a number is missing, or a matrix is not that of a camera or not rigid.
    """
    lines = dict(line.split(":", 1) for line in _text(file, CALIB_ARCHIVE).splitlines() if ":" in line)
    missing = [name for name in (*PROJECTIONS.values(), LIDAR) if name not in lines]
    if missing:
        raise DatasetError(
            f"{file}: no line {missing[0]!r}; the small calib.txt of the archive with grey pictures lacks it, "
            f"extract {CALIB_ARCHIVE}, whose calib.txt has P0 to P3 and Tr"
        )
    matrices = {
        name: _matrix(lines[name], f"{file}: line {name!r}", CALIB_ARCHIVE) for name in (*PROJECTIONS.values(), LIDAR)
    }
    camera0_from_cloud = matrices[LIDAR]
    _check_rigid(camera0_from_cloud, f"{file}: line {LIDAR!r}", CALIB_ARCHIVE)
    return Calibration(
        {folder: _camera(matrices[name], camera0_from_cloud, file) for folder, name in PROJECTIONS.items()},
        camera0_from_cloud,
    )


def read_times(file: Path) -> list[float]:
    """Read a times.txt: for each frame the seconds since the first one, a number a line.

    Raises:
        DatasetError: if the file is missing, or a line is no number or earlier than the one before.
    """
    times: list[float] = []
    for number, line in enumerate(_text(file, CALIB_ARCHIVE).split("\n"), start=1):
        if not line.strip():
            continue
        seconds = _numbers(line)
        if len(seconds) != 1 or (times and seconds[0] < times[-1]):
            raise DatasetError(
                f"{file}: line {number} is {line.strip()[:40]!r}, not the seconds of the next frame; "
                f"extract the file again from {CALIB_ARCHIVE}"
            )
        times.append(float(seconds[0]))
    return times


def read_poses(file: Path, frames: int) -> Floats:
    """Read poses of camera 0 relative to its first frame, one a line, as (frames, 4, 4).

    Raises:
        DatasetError: if there is not one line of 12 numbers for each frame, or one is not rigid.
    """
    archive = "data_odometry_labels.zip" if file.name == "poses.txt" else "data_odometry_poses.zip"
    lines = [line for line in _text(file, archive).splitlines() if line.strip()]
    if len(lines) != frames:
        raise DatasetError(
            f"{file}: {len(lines)} poses, but times.txt has {frames} frames; extract the file again from {archive}"
        )
    poses = np.stack([_matrix(line, f"{file}: line {number}", archive) for number, line in enumerate(lines, start=1)])
    _check_rigid(poses, str(file), archive)
    return poses


def _camera(projection: Floats, camera0_from_cloud: Floats, file: Path) -> tuple[Floats, Floats]:
    """Return intrinsics (3, 3) and cam_from_cloud (4, 4) of the camera with a projection (4, 4); see the module."""
    intrinsics = projection[:3, :3].copy()
    try:
        check_intrinsics(intrinsics)
    except ValueError as error:
        raise DatasetError(f"{file}: {error}; extract the file again from {CALIB_ARCHIVE}") from None
    cam_from_camera0 = np.eye(4)
    cam_from_camera0[:3, 3] = np.linalg.solve(intrinsics, projection[:3, 3])
    return intrinsics, cam_from_camera0 @ camera0_from_cloud


def _matrix(text: str, where: str, archive: str) -> Floats:
    """Return the matrix (4, 4) of 12 numbers, with 0 0 0 1 as its last row."""
    numbers = _numbers(text)
    if len(numbers) != 12:
        raise DatasetError(
            f"{where} has {len(numbers)} finite numbers, not 12: {text.strip()[:60]!r}; "
            f"extract the file again from {archive}"
        )
    return np.vstack([numbers.reshape(3, 4), (0.0, 0.0, 0.0, 1.0)])


def _numbers(text: str) -> Floats:
    """Return the finite numbers of a line; none if a word of it is no number."""
    try:
        numbers = np.array([float(word) for word in text.split()], np.float64)
    except ValueError:
        return np.empty(0)
    return numbers[np.isfinite(numbers)]


def _check_rigid(transforms: Floats, where: str, archive: str) -> None:
    """Raise DatasetError if the upper left part of a transform (..., 4, 4) is no rotation."""
    rotation = transforms[..., :3, :3]
    off = np.abs(rotation @ np.swapaxes(rotation, -1, -2) - np.eye(3)).max(axis=(-1, -2))
    bad = np.flatnonzero((off > RIGID_TOLERANCE) | (np.linalg.det(rotation) < 0))
    if bad.size:
        which = f": pose {bad[0]}" if transforms.ndim == 3 else ""
        raise DatasetError(f"{where}{which} is not a rotation and a translation; extract the file again from {archive}")


def _text(file: Path, archive: str) -> str:
    try:
        return file.read_text(encoding="ascii")
    except FileNotFoundError:
        raise DatasetError(f"{file}: no such file; extract {archive} over the data set") from None
    except UnicodeDecodeError:
        raise DatasetError(f"{file}: not a text file; extract it again from {archive}") from None

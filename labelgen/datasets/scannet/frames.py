"""The frames of a scan as cameras: their pictures, depth, poses, camera matrices and truth.

A pose takes the camera frame to the frame of the mesh, so `cam_from_cloud` is its inverse. `axisAlignment` of
`<scan>.txt` is not applied, because mesh and poses are both without it. Colour and depth are registered, so one pose
serves both. Frames without a pose or without a depth picture are left out.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from labelgen.datasets.scannet.calibration import colour_intrinsics, depth_intrinsics, is_pose, read_matrix
from labelgen.datasets.scannet.layout import FILES, SENS, FrameFiles, Scan, Version
from labelgen.datasets.scannet.sens import read_index
from labelgen.errors import SampleError
from labelgen.pictures import NOT_A_PICTURE
from labelgen.samples import Camera, DepthMap

CAMERA = "color"
METRES_PER_UNIT = 0.001


def frames_of_folder(data: Path, scan: Scan, version: Version) -> tuple[Camera, ...]:
    """Return the frames of a scan of frames_25k or of exported frames that have pose and depth, in order of number.

    If no frame has a depth picture, the archive was not extracted completely: the frames are returned with the paths
    where depth should be, so that a run reports them as missing.

    Raises:
        SampleError: if a matrix is missing or malformed or does not fit the pictures, or no frame has pose and depth.
        SourceError: if a file cannot be read.
    """
    folder, files = data / scan.frames, FILES[version.layout]
    colours, depths, labels = (_numbers(folder, pattern) for pattern in (files.colour, files.depth, files.label))
    chosen = [number for number in sorted(colours & (depths or colours)) if number % version.every == 0]
    poses = {number: pose for number in chosen if is_pose(pose := _pose(folder / files.pose.format(number)))}
    if not poses:
        raise SampleError(_without_pose(folder, len(chosen), version.every))
    size = _picture_size(folder / files.colour.format(min(poses)))
    depth_size = _picture_size(folder / files.depth.format(min(depths))) if depths else None
    colour_matrix, depth_matrix = (_intrinsics(folder, files, sensor) for sensor in ("color", "depth"))
    intrinsics = colour_intrinsics(colour_matrix, depth_matrix, size, depth_size, folder)
    of_depth = depth_intrinsics(depth_matrix, depth_size, folder)
    return tuple(
        Camera(
            channel=CAMERA,
            image_path=f"{scan.frames}/{files.colour.format(number)}",
            width_px=size[0],
            height_px=size[1],
            intrinsics=intrinsics,
            cam_from_cloud=_inverse(pose),
            truth_path=f"{scan.frames}/{files.label.format(number)}" if labels else None,
            depth=DepthMap(f"{scan.frames}/{files.depth.format(number)}", of_depth, METRES_PER_UNIT),
        )
        for number, pose in poses.items()
    )


def frames_of_sens(data: Path, scan: Scan, every: int) -> tuple[Camera, ...]:
    """Return the frames of a .sens file that have pose and depth, and whose number is a multiple of `every`.

    Raises:
        SampleError: if the file is damaged, its matrices do not fit its pictures, or no frame has pose and depth.
        SourceError: if it cannot be read.
    """
    path = scan.file(".sens")
    index = read_index(data / path)
    chosen = range(0, len(index.world_from_cams), every)
    posed = [n for n in chosen if index.depth_bytes[n] and is_pose(index.world_from_cams[n])]
    if not posed:
        raise SampleError(_without_pose(data / path, len(chosen), every))
    sizes = index.colour_size, index.depth_size
    intrinsics = colour_intrinsics(index.colour_intrinsics, index.depth_intrinsics, *sizes, data / path)
    depth = DepthMap(
        path, depth_intrinsics(index.depth_intrinsics, index.depth_size, data / path), index.metres_per_unit
    )
    label = FILES[SENS].label
    labels = _numbers(data / scan.frames, label)
    return tuple(
        Camera(
            channel=CAMERA,
            image_path=path,
            width_px=index.colour_size[0],
            height_px=index.colour_size[1],
            intrinsics=intrinsics,
            cam_from_cloud=_inverse(index.world_from_cams[number]),
            truth_path=f"{scan.frames}/{label.format(number)}" if labels else None,
            frame=number,
            depth=depth,
        )
        for number in posed
    )


def _numbers(folder: Path, pattern: str) -> frozenset[int]:
    """Return the numbers of the frames that have a file of this name; other files are not ours."""
    place = (folder / pattern).parent
    if not place.is_dir():
        return frozenset()
    found = {int(path.stem): path.name for path in place.iterdir() if path.stem.isascii() and path.stem.isdigit()}
    return frozenset(number for number, name in found.items() if Path(pattern.format(number)).name == name)


def _pose(file: Path) -> NDArray[np.float64]:
    """Read a pose; not a number if the frame has no file of its pose."""
    try:
        return read_matrix(file)
    except FileNotFoundError:
        return np.full((4, 4), np.nan)


def _inverse(world_from_cam: NDArray[np.float64]) -> NDArray[np.float64]:
    # Text rounds poses to 1e-6, so R^T is not exactly the inverse of R; the difference would move pixels by 1e-3.
    return np.linalg.inv(world_from_cam).astype(np.float64)


def _intrinsics(folder: Path, files: FrameFiles, sensor: str) -> NDArray[np.float64]:
    file = folder / files.intrinsics.format(sensor)
    try:
        return read_matrix(file)
    except FileNotFoundError:
        raise SampleError(f"{file}: no such file; extract the frames of this scan again") from None


def _picture_size(file: Path) -> tuple[int, int]:
    """Return (width, height) as the header of a picture says."""
    try:
        with Image.open(file) as picture:
            return picture.size
    except NOT_A_PICTURE as error:
        raise SampleError(f"{file}: not a picture ({error}); extract the frames of this scan again") from None


def _without_pose(where: Path, frames: int, every: int) -> str:
    return (
        f"{where}: none of its {frames} frames whose number is a multiple of {every} has pose and depth; "
        "extract the frames again, or leave the scan out"
    )

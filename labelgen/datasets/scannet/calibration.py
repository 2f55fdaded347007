"""Camera matrices and poses of ScanNet."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from labelgen.errors import SampleError
from labelgen.geometry import check_intrinsics
from labelgen.samples import unreadable

Floats = NDArray[np.float64]

CENTRE = (0.4, 0.6)
"""A camera matrix belongs to a picture if its principal point lies at this share of the picture's width."""

ROTATION_TOLERANCE = 1e-3
"""How far R^T R of a pose may differ from the identity; text files round to 1e-6."""


def read_matrix(file: Path) -> Floats:
    """Read a matrix (4, 4) from a text file of 4 lines with 4 numbers each.

    Raises:
        FileNotFoundError: if there is no such file.
        SampleError: if the file holds anything else.
        SourceError: if it cannot be read for another reason.
    """
    try:
        words = file.read_text(encoding="utf-8").split()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise unreadable(file, error) from None
    except UnicodeDecodeError:
        raise SampleError(f"{file}: not a text file; extract it again") from None
    try:
        numbers = np.array(words, np.float64)
    except ValueError as error:
        raise SampleError(f"{file}: {error}; extract it again") from None
    if numbers.size != 16:
        raise SampleError(f"{file}: {numbers.size} numbers, but a 4x4 matrix has 16; extract it again")
    return numbers.reshape(4, 4)


def is_pose(world_from_cam: Floats) -> bool:
    """Tell whether a matrix (4, 4) is a pose: finite and rigid. Frames that could not be tracked hold -inf or zeros."""
    if not np.isfinite(world_from_cam).all():
        return False
    rotation = world_from_cam[:3, :3]
    return (
        np.allclose(world_from_cam[3], (0, 0, 0, 1))
        and np.allclose(rotation.T @ rotation, np.eye(3), atol=ROTATION_TOLERANCE)
        and bool(np.linalg.det(rotation) > 0)
    )


def colour_intrinsics(
    colour: Floats, depth: Floats, colour_size: tuple[int, int], depth_size: tuple[int, int] | None, where: Path
) -> Floats:
    """Return the camera matrix (3, 3) of colour pictures.

    Colour pictures of frames_25k may have been resized to the size of the depth pictures, while the matrix is still
    that of the original size. So the matrix of colour is taken if its principal point fits the pictures; otherwise
    that of depth, if the pictures have the size of depth.

    Args:
        colour: camera matrix (4, 4) of colour, as the file gives it.
        depth: camera matrix (4, 4) of depth.
        colour_size: (width, height) of the colour pictures.
        depth_size: of the depth pictures; None if there are none.
        where: the file or folder of the matrices, for messages.

    Raises:
        SampleError: if neither matrix fits, or it is not that of a pinhole camera.
    """
    if _fits(colour, colour_size):
        return _checked(colour, where)
    if colour_size == depth_size:
        return depth_intrinsics(depth, colour_size, where)
    raise SampleError(
        f"{where}: the camera matrix of colour has cx = {colour[0, 2]:g}, but the pictures are {colour_size[0]} pixels "
        f"wide and {colour_size[1]} high; use the matrix and the pictures of one archive"
    )


def depth_intrinsics(depth: Floats, size: tuple[int, int] | None, where: Path) -> Floats:
    """Return the camera matrix (3, 3) of depth pictures of `size` (width, height).

    Raises:
        SampleError: if it does not fit the size, or is not that of a pinhole camera.
    """
    if size and not _fits(depth, size):
        raise SampleError(
            f"{where}: the camera matrix of depth has cx = {depth[0, 2]:g}, but its pictures are {size[0]} pixels "
            f"wide and {size[1]} high; use the matrix and the pictures of one archive"
        )
    return _checked(depth, where)


def _fits(intrinsics: Floats, size: tuple[int, int]) -> bool:
    return bool(CENTRE[0] <= intrinsics[0, 2] / size[0] <= CENTRE[1])


def _checked(intrinsics: Floats, where: Path) -> Floats:
    matrix = intrinsics[:3, :3].copy()
    try:
        check_intrinsics(matrix)
    except ValueError as error:
        raise SampleError(f"{where}: {error}; extract it again") from None
    return matrix

"""What adapters return: samples (one cloud, its images, the calibration between them), clouds, and scenes."""

import errno
import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from labelgen.errors import SourceError


@dataclass(frozen=True)
class Camera:
    """One image of a sample, with the calibration relative to the cloud of the sample.

    Attributes:
        channel: the name of the camera, such as `CAM_FRONT`.
        image_path: the picture file, relative to the dataset folder.
        width_px, height_px: the size of the picture on disk.
        intrinsics: (3, 3) f64 camera matrix in pixels of the picture on disk; pixel centres are at integers.
        cam_from_cloud: (4, 4) f64 rigid transform from the frame of the cloud to that of the camera, in metres; in the
            camera frame z points forward, x right, y down.
        truth_path, segments_path: single-channel pictures of class ids and of segment ids; None if there are none.
    """

    channel: str
    image_path: str
    width_px: int
    height_px: int
    intrinsics: NDArray[np.float64]
    cam_from_cloud: NDArray[np.float64]
    truth_path: str | None = None
    segments_path: str | None = None


@dataclass(frozen=True)
class Sample:
    """One cloud and its images.

    Attributes:
        token: the id of the sample in the dataset.
        scene: the name of its scene.
        cloud_path, point_truth_path: files relative to the dataset folder; None if there is no truth.
        cameras: the images, in the order of cameras of the dataset.
        cloud_token: the id of the cloud in the dataset, if its official label files are named by it.
        defect: why the sample cannot be used (an error in the tables), or None.
    """

    token: str
    scene: str
    cloud_path: str
    cameras: tuple[Camera, ...]
    point_truth_path: str | None = None
    cloud_token: str = ""
    defect: str | None = None

    @property
    def input_paths(self) -> tuple[str, ...]:
        """All files that hold the images and points of the sample."""
        return (self.cloud_path, *(camera.image_path for camera in self.cameras))

    @property
    def truth_paths(self) -> tuple[str, ...]:
        """All files that hold the truth of the sample."""
        paths = (self.point_truth_path, *(p for c in self.cameras for p in (c.truth_path, c.segments_path)))
        return tuple(path for path in paths if path)


@dataclass(frozen=True)
class Cloud:
    """Points of one sample: `xyz` (P, 3) f32 metres in the sensor frame, `intensity` (P,) f32 in 0..1."""

    xyz: NDArray[np.float32]
    intensity: NDArray[np.float32] = field(repr=False)


@dataclass(frozen=True)
class Scene:
    """A named sequence of samples in time order."""

    name: str
    samples: tuple[Sample, ...]


NO_SUCH_FILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
"""What the system answers if a path names no file. Other errors are failures: of disk, network or permissions."""

DIGEST_THREADS = 16
"""How many files are read at once: a network file system takes its time for each."""


def file_sizes(data: Path, paths: tuple[str, ...]) -> dict[str, int | None]:
    """Return the size in bytes of each file below `data`; None if it is missing.

    Raises:
        SourceError: if the system cannot tell whether a file is there.
    """
    sizes: dict[str, int | None] = {}
    for path in paths:
        try:
            sizes[path] = (data / path).stat().st_size
        except OSError as error:
            if error.errno not in NO_SUCH_FILE:
                raise unreadable(data / path, error) from None
            sizes[path] = None
    return sizes


def file_digests(data: Path, paths: tuple[str, ...]) -> dict[str, str | None]:
    """Return the SHA-256 of the content of each file below `data`; None if it is missing. Several are read at once.

    Raises:
        SourceError: if a file cannot be read.
    """

    def digest(path: str) -> str | None:
        try:
            with (data / path).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            if error.errno not in NO_SUCH_FILE:
                raise unreadable(data / path, error) from None
            return None

    with ThreadPoolExecutor(DIGEST_THREADS) as pool:
        return dict(zip(paths, pool.map(digest, paths), strict=True))


def unreadable(file: Path, error: OSError) -> SourceError:
    """Return the error for a file that cannot be read now, whatever it holds."""
    reason = error.strerror or str(error) or type(error).__name__
    if error.errno in NO_SUCH_FILE:
        fix = "it was there when the run started, so check that the disk is still mounted, or restore the file"
    elif isinstance(error, PermissionError):
        fix = "make it readable for this user"
    else:
        fix = "the disk or the network fails, check both"
    return SourceError(f"{file}: cannot be read ({reason}); {fix}, then run the same command again")

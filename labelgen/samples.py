"""What adapters return: samples (a cloud or none, images, the calibration between them), clouds, and scenes."""

import errno
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from labelgen.errors import SourceError


@dataclass(frozen=True)
class Distortion:
    """The lens of a camera: a distortion model of OpenCV, and its coefficients in OpenCV's order."""

    model: Literal["pinhole", "fisheye"]
    coefficients: tuple[float, ...]


@dataclass(frozen=True)
class DepthMap:
    """A depth picture that was taken together with an image, by a registered sensor at the same place.

    Attributes:
        path: single-channel 16-bit picture, relative to the dataset folder; 0 is no depth.
        intrinsics: (3, 3) f64 camera matrix in pixels of the depth picture.
        metres_per_unit: the depth along the optical axis is the value times this.
    """

    path: str
    intrinsics: NDArray[np.float64]
    metres_per_unit: float = 0.001


@dataclass(frozen=True)
class Camera:
    """One image of a sample, with the calibration relative to the cloud of the sample.

    Attributes:
        channel: the name of the camera, such as `CAM_FRONT`.
        image_path: the picture file, relative to the dataset folder; or a file that holds many pictures.
        width_px, height_px: the size of the picture on disk.
        intrinsics: (3, 3) f64 camera matrix in pixels of the picture on disk; pixel centres are at integers.
        cam_from_cloud: (4, 4) f64 rigid transform from the frame of the cloud to that of the camera, in metres; in the
            camera frame z points forward, x right, y down.
        truth_path, segments_path: single-channel pictures of class ids and of segment ids; None if there are none.
        frame: the number of the picture in a file that holds many; None for a file of its own.
        distortion: the lens; None for a pinhole camera without distortion.
        depth: the depth picture of the same moment, or None.
        truth_masks: truth from tables: class id and COCO run lengths of each mask, in drawing order.
    """

    channel: str
    image_path: str
    width_px: int
    height_px: int
    intrinsics: NDArray[np.float64]
    cam_from_cloud: NDArray[np.float64]
    truth_path: str | None = None
    segments_path: str | None = None
    frame: int | None = None
    distortion: Distortion | None = None
    depth: DepthMap | None = None
    truth_masks: tuple[tuple[int, str], ...] = ()

    @property
    def picture(self) -> str:
        """What names its picture in the data set: the file, and `#<number>` for a picture in a file that holds many."""
        return self.image_path if self.frame is None else f"{self.image_path}#{self.frame}"


@dataclass(frozen=True)
class Sweep:
    """A cloud recorded shortly before that of its sample.

    Attributes:
        cloud_path: the file, relative to the dataset folder.
        keyframe_from_sweep: (4, 4) f64 rigid transform to the frame of the sample's cloud, in metres.
        lag_s: how much earlier it was recorded, in seconds.
    """

    cloud_path: str
    keyframe_from_sweep: NDArray[np.float64]
    lag_s: float


@dataclass(frozen=True)
class Sample:
    """A cloud, if there is one, and images.

    Attributes:
        token: the id of the sample in the dataset.
        scene: the name of its scene.
        cloud_path: the file of the cloud, relative to the dataset folder; None if the sample has no cloud, and "" if
            the sample has a defect.
        point_truth_path: the file with the truth of the points, or None.
        cameras: the images, in the order of cameras of the dataset.
        cloud_token: the id of the cloud in the dataset, if its official label files are named by it.
        defect: why the sample cannot be used (an error in the tables), or None.
        world_from_cloud: (4, 4) f64 rigid transform from the frame of the cloud to one that all samples of the scene
            share, in metres; None if the pose is unknown.
        sweeps: the clouds before this one, latest first; as many as the settings ask for and the dataset has.
        cloud_format: how the adapter reads the cloud, if the file itself does not say it; part of the fingerprints.
    """

    token: str
    scene: str
    cloud_path: str | None
    cameras: tuple[Camera, ...]
    point_truth_path: str | None = None
    cloud_token: str = ""
    defect: str | None = None
    world_from_cloud: NDArray[np.float64] | None = None
    sweeps: tuple[Sweep, ...] = ()
    cloud_format: str = ""

    @property
    def input_paths(self) -> tuple[str, ...]:
        """All files that hold the images, depths and points of the sample; each is named once."""
        clouds = () if self.cloud_path is None else (self.cloud_path,)
        images = (camera.image_path for camera in self.cameras)
        depths = (camera.depth.path for camera in self.cameras if camera.depth)
        sweeps = (sweep.cloud_path for sweep in self.sweeps)
        return tuple(dict.fromkeys((*clouds, *images, *depths, *sweeps)))

    @property
    def truth_paths(self) -> tuple[str, ...]:
        """All files that hold the truth of the sample."""
        paths = (self.point_truth_path, *(p for c in self.cameras for p in (c.truth_path, c.segments_path)))
        return tuple(path for path in paths if path)


@dataclass(frozen=True)
class Cloud:
    """Points of one sample.

    Attributes:
        xyz: (P, 3) f32, metres in the sensor frame.
        intensity: (P,) f32 in 0..1, or None if the sensor has none.
        colour: (P, 3) u8 RGB, or None.
    """

    xyz: NDArray[np.float32]
    intensity: NDArray[np.float32] | None = field(default=None, repr=False)
    colour: NDArray[np.uint8] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Scene:
    """A named sequence of samples in time order."""

    name: str
    samples: tuple[Sample, ...]


NO_SUCH_FILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
"""What the system answers if a path names no file. Other errors are failures: of disk, network or permissions."""

SIZE_THREADS = 16
"""How many folders are listed at once."""

MANY_FILES = 32
"""Of a folder of which so many files are asked for, all are listed."""

DIGEST_THREADS = 16
"""How many files are read at once: a network file system takes its time for each."""


def file_sizes(data: Path, paths: Sequence[str]) -> dict[str, int | None]:
    """Return the size in bytes of each file below `data`; None if it is missing.

    Folders of which many files are asked for are listed, several at once: a network file system then answers for many
    files in one reply.

    Raises:
        SourceError: if the system cannot tell whether a file is there.
    """
    names: dict[str, list[str]] = {}
    for path in paths:
        folder, _, name = path.rpartition("/")
        names.setdefault(folder, []).append(name)
    with ThreadPoolExecutor(SIZE_THREADS) as pool:
        found = pool.map(lambda folder: _sizes_in(data, folder, names[folder]), names)
        return {path: size for of_folder in found for path, size in of_folder.items()}


def _sizes_in(data: Path, folder: str, names: Sequence[str]) -> dict[str, int | None]:
    """Return the sizes of files of one folder, by their path below `data`."""
    prefix = f"{folder}/" if folder else ""
    sizes: dict[str, int | None] = {}
    if len(names) >= MANY_FILES:
        wanted = set(names)
        with suppress(OSError), os.scandir(data / folder) as entries:  # what cannot be listed is asked for below
            for entry in entries:
                if entry.name in wanted and not entry.is_symlink():
                    sizes[prefix + entry.name] = entry.stat().st_size
    for name in names:
        path = prefix + name
        if path not in sizes:
            sizes[path] = _size(data, path)
    return sizes


def _size(data: Path, path: str) -> int | None:
    try:
        return os.stat(os.path.join(data, path)).st_size  # noqa: PTH116, PTH118  # half the time of pathlib's
    except OSError as error:
        if error.errno not in NO_SUCH_FILE:
            raise unreadable(data / path, error) from None
        return None


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

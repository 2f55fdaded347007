"""The record that adapters hand on: one cloud, the images taken with it, and the calibration between them."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Camera:
    """One image of a sample and its place relative to the sample's cloud.

    Attributes:
        channel: name of the camera, such as `CAM_FRONT`.
        image_path: the picture, relative to the dataset folder.
        width_px, height_px: size of the picture on disk.
        intrinsics: (3, 3) f64, pixels of the picture on disk, integer pixel centres.
        cam_from_cloud: (4, 4) f64 rigid transform, metres; camera z points forward, x right, y down.
        truth_path, segments_path: single-channel pictures of class ids and of segment ids, where there are any.
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
        token: the dataset's own id of the sample.
        scene: name of the scene that it belongs to.
        cloud_path, point_truth_path: files relative to the dataset folder; no truth is None.
        cameras: the images, in the dataset's camera order.
        cloud_token: the dataset's own id of the cloud, where its official label files go by that.
        defect: why the sample cannot be used (its tables are broken), or None.
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
        """Every file that the sample's images and points are read from."""
        return (self.cloud_path, *(camera.image_path for camera in self.cameras))

    @property
    def truth_paths(self) -> tuple[str, ...]:
        """Every file that the sample's truth is read from."""
        paths = (self.point_truth_path, *(p for c in self.cameras for p in (c.truth_path, c.segments_path)))
        return tuple(path for path in paths if path)


@dataclass(frozen=True)
class Cloud:
    """Points of one sample: `xyz` (P, 3) f32 metres in the sensor frame, `intensity` (P,) f32 in 0..1."""

    xyz: NDArray[np.float32]
    intensity: NDArray[np.float32] = field(repr=False)


@dataclass(frozen=True)
class Scene:
    """A named run of samples in time order."""

    name: str
    samples: tuple[Sample, ...]


def file_sizes(data: Path, paths: tuple[str, ...]) -> dict[str, int | None]:
    """Return the size in bytes of each file under `data`, None where it is missing."""
    sizes: dict[str, int | None] = {}
    for path in paths:
        try:
            sizes[path] = (data / path).stat().st_size
        except OSError:
            sizes[path] = None
    return sizes

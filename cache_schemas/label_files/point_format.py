"""The interface of a file format for the labels of points."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cache_schemas.label_files.official_ids import OfficialIds

Steps = tuple[str, ...]
"""The path of a file below the folder of an export, as the names of its folders and of the file."""


@dataclass(frozen=True)
class CloudName:
    """What a cache calls a cloud: the split of the cache, scene and token of the sample, the data set's own id."""

    split: str
    scene: str
    token: str
    cloud: str = ""

    @property
    def unique(self) -> str:
        """A name that no other sample of the cache has: the token, after the scene where it does not begin so."""
        return self.token if self.token.startswith(self.scene) else f"{self.scene}_{self.token}"

    def __str__(self) -> str:
        return f"sample {self.token} of scene {self.scene}"


@dataclass(frozen=True)
class LabelledCloud:
    """A cloud: labels (P,) u8, xyz (P, 3) f32 in metres, intensity (P,) f32 and colour (P, 3) u8 RGB, or None."""

    name: CloudName
    labels: NDArray[np.uint8]
    xyz: NDArray[np.float32]
    intensity: NDArray[np.float32] | None = None
    colour: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class CloudCalibration:
    """The calibration of a cloud.

    Attributes:
        name: of the cloud.
        world_from_cloud: (4, 4) f64 rigid transform, metres; None if the pose is unknown.
        cam_from_cloud: (4, 4) f64 of the sample's first image, metres; None without images.
        intrinsics: (3, 3) f64 of this image, pixels; None without images.
    """

    name: CloudName
    world_from_cloud: NDArray[np.float64] | None
    cam_from_cloud: NDArray[np.float64] | None
    intrinsics: NDArray[np.float64] | None


class PointFormat(ABC):
    """A file format for the labels of points; its class is made with the ids of a taxonomy."""

    name: ClassVar[str]

    def __init__(self, ids: OfficialIds) -> None:
        """Write and read these ids."""
        self.ids = ids

    @abstractmethod
    def label_file(self, cloud: CloudName) -> Steps:
        """Return where the labels of a cloud are.

        Raises:
            LabelFileError: if the names of the cloud do not say that.
        """

    def places(self, cloud: CloudName) -> Iterator[Steps]:
        """Yield where the labels of a cloud can be when they are read, the preferred place first."""
        yield self.label_file(cloud)

    @abstractmethod
    def pack(self, official: NDArray[np.int64]) -> bytes:
        """Return the content of a label file with these official ids (P,)."""

    @abstractmethod
    def unpack(self, content: bytes) -> NDArray[np.int64]:
        """Return the official ids (P,) in a label file.

        Raises:
            ValueError: if it is not a label file.
        """

    def files_of_cloud(self, cloud: LabelledCloud) -> Iterator[tuple[Steps, bytes]]:
        """Yield the files of one cloud: its labels, and what else the format has beside them."""
        yield self.label_file(cloud.name), self.pack(self.ids.encode(cloud.labels))

    def files_of_scene(self, clouds: Sequence[CloudCalibration]) -> Iterator[tuple[Steps, bytes]]:
        """Yield the files that a scene has once, such as its poses; `clouds` are all of the scene."""
        yield from ()

    def files_of_split(self, split: str) -> Iterator[tuple[Steps, bytes]]:
        """Yield the files that a split has once."""
        yield from ()

"""The interface of data set adapters."""

import stat
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cache_schemas.names import is_plain
from cache_schemas.taxonomy import Taxonomy, load_taxonomy
from labelgen.errors import PromptsError, SampleError
from labelgen.samples import Camera, Cloud, Sample, Scene, Sweep, unreadable

MAX_FILE_BYTES = 2**30
"""Larger files are refused: reading one could exhaust the memory of the worker."""


class Adapter(ABC):
    """Reads the raw files of one data set.

    An adapter holds paths but no tables, so that it is cheap to create and to send to workers.
    """

    taxonomy_name: ClassVar[str]
    """Name of the taxonomy of the data set's labels and truth; see `taxonomy`."""

    has_sweeps: ClassVar[bool] = False
    """Whether the data set has clouds between those of samples, and the adapter reads them."""

    def __init__(self, data: Path) -> None:
        """Use the data set in the folder `data`.

        Raises:
            DatasetError: if the folder is missing.
        """
        self.data = data
        self.sweeps = 0
        """How many preceding clouds `scenes` adds to each sample that has so many."""

    def taxonomy(self) -> Taxonomy:
        """Return the taxonomy of the data set's labels and truth."""
        return load_taxonomy(self.taxonomy_name)

    def prompts(self) -> str:
        """Return the prompts to use if the settings name none: the name of a shipped set, or the path of a file.

        Raises:
            PromptsError: if the data set has none of its own.
        """
        raise PromptsError("prompts = null: the data set has no prompts of its own; name some with --set prompts=...")

    @abstractmethod
    def scenes(self, split: str, version: str | None) -> list[Scene]:
        """Return the scenes of a split; the samples of a scene are in time order.

        `version` names one of several versions of the tables; None stands for the only one.

        Raises:
            DatasetError: if the split or version does not exist, or the tables cannot be used.
            SourceError: if the folder cannot be read.
        """

    @abstractmethod
    def read_cloud(self, sample: Sample) -> Cloud:
        """Read the point cloud of a sample that has one.

        Raises:
            SampleError: if the file is malformed.
            SourceError: if it cannot be read.
        """

    def read_sweep(self, sweep: Sweep) -> Cloud:
        """Read one preceding cloud, in the frame of its own sensor and time; see `read_cloud`."""
        raise NotImplementedError(f"{type(self).__name__} has no sweeps")

    @abstractmethod
    def read_point_truth(self, sample: Sample, points: int) -> NDArray[np.uint8]:
        """Read the true class of each point as (points,) u8 ids of `taxonomy`, 255 where there is none.

        Raises:
            SampleError: if the file has not one label for each of `points` points.
            SourceError: if it cannot be read.
        """

    def picture_bytes(self, camera: Camera) -> bytes:
        """Return the encoded picture of a camera. Adapters of files that hold many pictures override this.

        Raises:
            SampleError: if the picture is not in the file.
            SourceError: if the file cannot be read.
        """
        return self.read_bytes(camera.image_path)

    def depth_bytes(self, camera: Camera) -> bytes:
        """Return the encoded depth picture (16 bits, one channel) of a camera that has one; see `picture_bytes`."""
        assert camera.depth is not None
        return self.read_bytes(camera.depth.path)

    def read_image_truth(self, camera: Camera) -> NDArray[np.uint8] | None:
        """Read the true class of each pixel at native size: (H0, W0) u8 ids of the taxonomy, 255 where there is none.

        Returns None if the camera has no truth. By default the picture at `truth_path` holds these ids.

        Raises:
            SampleError: if the file is not a picture of ids, or its size is not the camera's.
            SourceError: if it cannot be read.
        """
        from labelgen.pictures import read_id_picture

        if camera.truth_path is None:
            return None
        return read_id_picture(self, camera.truth_path, (camera.height_px, camera.width_px)).astype(np.uint8)

    def remedy_for_missing(self, folders: Sequence[str]) -> str:
        """Return what a user can do about files that are missing in these folders of the data set."""
        return "restore them from the dataset"

    def read_bytes(self, path: str) -> bytes:
        """Read a file of the data set.

        Raises:
            SampleError: if the path leads out of the data set's folder, or names no regular file, or a huge one.
            SourceError: if the file is missing, or cannot be read for another reason. The plan has already left out
                samples whose files are missing, so this file was there.
        """
        if not stays_inside(path):
            raise SampleError(f"{path!r} is not a file inside {self.data}; extract the tables again")
        file = self.data / path
        try:
            found = file.stat()
            if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_FILE_BYTES:
                raise SampleError(
                    f"{file}: not a regular file, or larger than {MAX_FILE_BYTES:,} bytes (it has {found.st_size:,}); "
                    "restore the file from the dataset"
                )
            return file.read_bytes()
        except OSError as error:
            raise unreadable(file, error) from None


def stays_inside(path: str) -> bool:
    """Return whether a path in a table names a file below the data set's folder; symbolic links are not resolved."""
    place = PurePosixPath(path)
    return bool(place.parts) and not place.is_absolute() and ".." not in place.parts and is_plain(path)

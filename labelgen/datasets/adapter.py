"""The interface of data set adapters."""

import stat
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cache_schemas.names import is_plain
from labelgen.errors import SampleError
from labelgen.samples import Cloud, Sample, Scene, unreadable

MAX_FILE_BYTES = 2**30
"""Larger files are refused: reading one could exhaust the memory of the worker."""


class Adapter(ABC):
    """Reads the raw files of one data set.

    An adapter holds paths but no tables, so that it is cheap to create and to send to workers.
    """

    taxonomy: ClassVar[str]
    """Name of the taxonomy of the data set's labels and truth."""

    def __init__(self, data: Path) -> None:
        """Use the data set in the folder `data`.

        Raises:
            DatasetError: if the folder is missing.
        """
        self.data = data

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
        """Read the sample's point cloud.

        Raises:
            SampleError: if the file is malformed.
            SourceError: if it cannot be read.
        """

    @abstractmethod
    def read_point_truth(self, sample: Sample, points: int) -> NDArray[np.uint8]:
        """Read the true class of each point as (points,) u8 ids of `taxonomy`, 255 where there is none.

        Raises:
            SampleError: if the file has not one label for each of `points` points.
            SourceError: if it cannot be read.
        """

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

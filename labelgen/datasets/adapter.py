"""What every dataset adapter offers."""

import stat
from abc import ABC, abstractmethod
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cache_schemas.names import is_plain
from labelgen.errors import SampleError
from labelgen.samples import Cloud, Sample, Scene

MAX_FILE_BYTES = 2**30
"""No picture, cloud or label file is larger; what claims to be would only kill the worker that reads it."""


class Adapter(ABC):
    """Reads one dataset's raw layout; cheap to make and to send to workers, so it holds paths, not tables."""

    taxonomy: ClassVar[str]
    """Name of the taxonomy that the adapter's truth and the dataset's labels use."""

    def __init__(self, data: Path) -> None:
        """Point at the dataset's folder.

        Raises:
            DatasetError: if the folder is missing.
        """
        self.data = data

    @abstractmethod
    def scenes(self, split: str, version: str | None) -> list[Scene]:
        """Return the scenes of a split, with their samples in time order.

        Raises:
            DatasetError: if there is no such split or version, or the tables cannot be used.
        """

    @abstractmethod
    def read_cloud(self, sample: Sample) -> Cloud:
        """Read the sample's points.

        Raises:
            SampleError: if the file is missing or malformed.
        """

    @abstractmethod
    def read_point_truth(self, sample: Sample, points: int) -> NDArray[np.uint8]:
        """Read the sample's truth as (points,) ids of `taxonomy`, 255 where there is none.

        Raises:
            SampleError: if the file does not fit the cloud.
        """

    def read_bytes(self, path: str) -> bytes:
        """Read a file of the dataset.

        Raises:
            SampleError: if its path leaves the dataset's folder, or it cannot be read.
        """
        if not stays_inside(path):
            raise SampleError(f"{path!r} is no file inside {self.data}; extract the tables again")
        file = self.data / path
        try:
            found = file.stat()
            if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_FILE_BYTES:
                raise SampleError(
                    f"{file}: no regular file, or of more than {MAX_FILE_BYTES:,} bytes (it has {found.st_size:,}); "
                    "restore the file from the dataset"
                )
            return file.read_bytes()
        except OSError as error:
            raise SampleError(f"{file}: {error.strerror}; restore the file from the dataset") from None


def stays_inside(path: str) -> bool:
    """Tell whether a path, as a table gives it, names something below the dataset's folder; links are the user's."""
    steps = PurePosixPath(path)
    return bool(steps.parts) and not steps.is_absolute() and ".." not in steps.parts and is_plain(path)

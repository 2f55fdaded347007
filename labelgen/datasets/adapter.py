"""What every dataset adapter offers."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from labelgen.errors import SampleError
from labelgen.samples import Cloud, Sample, Scene


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
            SampleError: if it cannot be read.
        """
        try:
            return (self.data / path).read_bytes()
        except OSError as error:
            raise SampleError(f"{self.data / path}: {error.strerror}; restore the file from the dataset") from None

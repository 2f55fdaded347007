"""A data set of pictures without clouds: the folder of each sample has pictures of any size, all of one camera."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from labelgen.datasets import nuscenes
from labelgen.datasets.adapter import Adapter
from labelgen.datasets.declaration import Dataset
from labelgen.samples import Camera, Cloud, Sample, Scene

SETTINGS = ["images.height=32", "images.width=64", "sam.points_per_side=1", "sam.features=float16"]


class Pictures(Adapter):
    taxonomy_name = "nuscenes16"

    def scenes(self, split: str, version: str | None) -> list[Scene]:
        return [
            Scene(folder.name, tuple(self.sample(sample) for sample in sorted(folder.iterdir())))
            for folder in sorted(self.data.iterdir())
        ]

    def sample(self, folder: Path) -> Sample:
        cameras = tuple(self.camera(file) for file in sorted(folder.glob("*.png")) if "truth" not in file.name)
        return Sample(folder.name, folder.parent.name, None, cameras)

    def camera(self, file: Path) -> Camera:
        with Image.open(file) as picture:
            width, height = picture.size
        path, truth = str(file.relative_to(self.data)), file.with_suffix(".truth.png")
        intrinsics = np.array([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1.0]])
        truth_path = str(truth.relative_to(self.data)) if truth.exists() else None
        return Camera("CAM", path, width, height, intrinsics, np.eye(4), truth_path)

    def read_cloud(self, sample: Sample) -> Cloud:
        raise AssertionError("no sample has a cloud")

    def read_point_truth(self, sample: Sample, points: int) -> NDArray[np.uint8]:
        raise AssertionError("no sample has a cloud")


DATASET = Dataset(adapter=Pictures, settings=nuscenes.DATASET.settings)


def write_pictures(folder: Path, sizes: list[tuple[int, int]], *, scene: str = "scene", seed: int = 0) -> Path:
    """Write a scene whose one sample has noisy pictures of `sizes` (height, width), with truth."""
    rng = np.random.default_rng(seed)
    place = folder / scene / f"{scene}-sample"
    place.mkdir(parents=True)
    for number, size in enumerate(sizes):
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(place / f"{number:03}.png")
        Image.fromarray(rng.integers(0, 16, size, np.uint8)).save(place / f"{number:03}.truth.png")
    return folder

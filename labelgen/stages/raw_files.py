"""What stages take from the dataset, JSON-ready for fingerprints: tokens, sizes or digests of files, calibrations."""

from collections.abc import Callable, Sequence
from typing import Any

from labelgen.samples import Camera, Sample

FileSizes = Callable[[tuple[str, ...]], dict[str, Any]]
"""Gives what raw files count as, by path: their size in bytes, or a digest of their content for a stage that counts
`by_content`; None for a file that is missing.
"""


def tokens(samples: Sequence[Sample]) -> list[str]:
    """Return the tokens of samples."""
    return [sample.token for sample in samples]


def picture_sizes(samples: Sequence[Sample], sizes: FileSizes) -> list[dict[str, int | None]]:
    """Return the file sizes of each sample's pictures, by path; that of a picture in a file of many has its number too.

    Sizes stand for contents. Modification times do not take part, so that a copy of a dataset is the same dataset.
    """
    found = []
    for sample in samples:
        of_file = sizes(tuple(camera.image_path for camera in sample.cameras))
        found.append({camera.picture: of_file.get(camera.image_path) for camera in sample.cameras})
    return found


def cloud_sizes(samples: Sequence[Sample], sizes: FileSizes) -> list[dict[str, Any]]:
    """Return the file size of each sample's cloud, by path, and how the file is read where the sample says that."""
    return [
        {
            **sizes(() if sample.cloud_path is None else (sample.cloud_path,)),
            **({"format": sample.cloud_format} if sample.cloud_format else {}),
        }
        for sample in samples
    ]


def calibrations(samples: Sequence[Sample]) -> list[list[list[Any]]]:
    """Return size, intrinsics (3, 3), cam_from_cloud (4, 4) and any distortion of each sample's cameras, JSON-ready."""
    return [[_calibration(camera) for camera in sample.cameras] for sample in samples]


def _calibration(camera: Camera) -> list[Any]:
    lens = camera.distortion
    return [
        *(camera.width_px, camera.height_px, camera.intrinsics.tolist(), camera.cam_from_cloud.tolist()),
        *([[lens.model, list(lens.coefficients)]] if lens else []),
    ]

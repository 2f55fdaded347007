"""Stage `images`: pictures at training size, with their calibration."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelgen.geometry import scale_intrinsics
from labelgen.pictures import read_image, resize
from labelgen.samples import Sample
from labelgen.settings import shaping
from labelgen.stages.inputs import Arrays, ResolvedSettings, ShardInputs, each_sample, offsets
from labelgen.stages.raw_files import FileSizes, calibrations, picture_sizes, tokens
from labelgen.stages.stage import Stage


def settings(resolved: ResolvedSettings) -> Any:
    """Return the training size."""
    return shaping(resolved.settings.images)


def raw_inputs(samples: Sequence[Sample], sizes: FileSizes) -> Any:
    """Return tokens, pictures and calibrations."""
    return [tokens(samples), picture_sizes(samples, sizes), calibrations(samples)]


def build(inputs: ShardInputs) -> Arrays:
    """Decode and resize the pictures, and scale the camera matrices with them.

    Raises:
        BadSamplesError: naming every sample that has a picture that cannot be used.
    """
    size = inputs.settings.images.size

    def read(sample: Sample) -> list[NDArray[np.uint8]]:
        return [resize(read_image(inputs.adapter, camera), size) for camera in sample.cameras]

    pictures = [picture for found in each_sample(inputs.samples, read) for picture in found]
    cameras = [camera for sample in inputs.samples for camera in sample.cameras]
    return {
        "rgb": np.stack(pictures),
        "intrinsics": np.stack(
            [scale_intrinsics(camera.intrinsics, (camera.height_px, camera.width_px), size) for camera in cameras]
        ),
        "cam_from_cloud": np.stack([camera.cam_from_cloud for camera in cameras]),
        "offsets": offsets([len(sample.cameras) for sample in inputs.samples]),
    }


def join(parts: Sequence[Arrays]) -> Arrays:
    """Join the arrays of parts of the samples."""
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0] if name != "offsets"}
    return {**joined, "offsets": offsets(np.concatenate([np.diff(part["offsets"]) for part in parts]).tolist())}


IMAGES = Stage(
    name="images",
    description="pictures at training size, with their calibration",
    version=1,
    build=build,
    settings=settings,
    raw_inputs=raw_inputs,
    join=join,
)

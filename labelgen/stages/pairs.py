"""Stage `pairs`: which point lies behind which pixel (eq 2)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from labelgen.geometry import pair_points
from labelgen.samples import Sample
from labelgen.settings import shaping
from labelgen.stages.inputs import Arrays, ResolvedSettings, ShardInputs, offsets
from labelgen.stages.points import TASK
from labelgen.stages.raw_files import FileSizes, calibrations
from labelgen.stages.stage import Stage


def settings(resolved: ResolvedSettings) -> Any:
    """Return the smallest depth, and the size of the images."""
    return [shaping(resolved.settings.points), shaping(resolved.settings.images)]


def raw_inputs(samples: Sequence[Sample], sizes: FileSizes) -> Any:
    """Return the calibrations."""
    return calibrations(samples)


def build(inputs: ShardInputs) -> Arrays:
    """Project the points into the images; points and images are counted over the whole shard.

    Raises:
        BadSamplesError: naming every sample whose cloud cannot be read.
    """
    size, min_depth_m = inputs.settings.images.size, inputs.settings.points.min_depth_m
    parts = [
        pair_points(cloud.xyz, sample.cameras, size, min_depth_m)
        for sample, cloud in zip(inputs.samples, inputs.clouds, strict=True)
    ]
    first_point = offsets([len(cloud.xyz) for cloud in inputs.clouds])
    first_image = offsets([len(sample.cameras) for sample in inputs.samples])
    return {
        "point": np.concatenate([part.point + first_point[i] for i, part in enumerate(parts)]).astype(np.int32),
        "image": np.concatenate([part.image + first_image[i] for i, part in enumerate(parts)]).astype(np.uint16),
        "row": np.concatenate([part.row for part in parts]),
        "col": np.concatenate([part.col for part in parts]),
        "offsets": offsets([len(part.point) for part in parts]),
    }


PAIRS = Stage(
    name="pairs",
    description="pixel-point pairs (eq 2)",
    version=1,
    build=build,
    settings=settings,
    made_from=("points",),
    raw_inputs=raw_inputs,
    task=TASK,
)

"""Stage `points`: the lidar clouds of a shard in one table."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from labelgen.samples import Sample
from labelgen.stages.inputs import Arrays, ResolvedSettings, ShardInputs, offsets
from labelgen.stages.raw_files import FileSizes, cloud_sizes, tokens
from labelgen.stages.stage import Stage

TASK = "points"
"""The task of all stages that read clouds."""


def settings(resolved: ResolvedSettings) -> Any:
    """Return nothing: no setting shapes the points."""
    return []


def raw_inputs(samples: Sequence[Sample], sizes: FileSizes) -> Any:
    """Return tokens and clouds."""
    return [tokens(samples), cloud_sizes(samples, sizes)]


def build(inputs: ShardInputs) -> Arrays:
    """Join the clouds.

    Raises:
        BadSamplesError: naming every sample whose cloud cannot be read.
    """
    return {
        "xyz": np.concatenate([cloud.xyz for cloud in inputs.clouds]),
        "intensity": np.concatenate([cloud.intensity for cloud in inputs.clouds]),
        "offsets": offsets([len(cloud.xyz) for cloud in inputs.clouds]),
    }


POINTS = Stage(
    name="points",
    description="lidar points in the frame of their sensor",
    version=1,
    build=build,
    settings=settings,
    raw_inputs=raw_inputs,
    task=TASK,
)

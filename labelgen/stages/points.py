"""Stage `points`: the clouds of a shard in one table, with their poses where all are known."""

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
    """Return tokens, clouds, and the poses that are known."""
    poses = [None if s.world_from_cloud is None else s.world_from_cloud.tolist() for s in samples]
    return [tokens(samples), cloud_sizes(samples, sizes), *([poses] if any(poses) else [])]


def build(inputs: ShardInputs) -> Arrays:
    """Join the clouds. Intensity, colour and poses are there if all samples with a cloud have them.

    Raises:
        BadSamplesError: naming every sample whose cloud cannot be read.
    """
    arrays: Arrays = {
        "xyz": np.concatenate([cloud.xyz for cloud in inputs.clouds]),
        "offsets": offsets([len(cloud.xyz) for cloud in inputs.clouds]),
    }
    read = [c for c, sample in zip(inputs.clouds, inputs.samples, strict=True) if sample.cloud_path is not None]
    intensity = [cloud.intensity for cloud in read if cloud.intensity is not None]
    colour = [cloud.colour for cloud in read if cloud.colour is not None]
    poses = [sample.world_from_cloud for sample in inputs.samples if sample.world_from_cloud is not None]
    if read and len(intensity) == len(read):
        arrays["intensity"] = np.concatenate(intensity)
    if read and len(colour) == len(read):
        arrays["colour"] = np.concatenate(colour)
    if len(poses) == len(inputs.samples):
        arrays["world_from_cloud"] = np.stack(poses)
    return arrays


POINTS = Stage(
    name="points",
    description="points in the frame of their cloud",
    version=1,
    build=build,
    settings=settings,
    raw_inputs=raw_inputs,
    task=TASK,
)

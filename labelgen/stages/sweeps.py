"""Stage `sweeps`: the clouds between keyframes, in the frame of the sample's own cloud."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from labelgen.geometry import transform_points
from labelgen.samples import Cloud, Sample
from labelgen.stages.inputs import Arrays, ResolvedSettings, ShardInputs, each_sample, offsets
from labelgen.stages.raw_files import FileSizes, tokens
from labelgen.stages.stage import Stage


def settings(resolved: ResolvedSettings) -> Any:
    """Return how many sweeps a sample gets."""
    return resolved.settings.sweeps.model_dump()


def raw_inputs(samples: Sequence[Sample], sizes: FileSizes) -> Any:
    """Return the files of all sweeps with their transforms and time lags, or None if no sample has any."""
    if not any(sample.sweeps for sample in samples):
        return None
    return [
        tokens(samples),
        [
            [[sizes((sweep.cloud_path,)), sweep.keyframe_from_sweep.tolist(), sweep.lag_s] for sweep in sample.sweeps]
            for sample in samples
        ],
    ]


def build(inputs: ShardInputs) -> Arrays:
    """Read the sweeps, move them into the frame of the sample's cloud, and join them, latest first.

    Raises:
        BadSamplesError: naming every sample of which a sweep cannot be read.
    """

    def read(sample: Sample) -> list[Cloud]:
        return [inputs.adapter.read_sweep(sweep) for sweep in sample.sweeps]

    clouds = each_sample(inputs.samples, read)
    joined = [cloud for of_sample in clouds for cloud in of_sample]
    described = [sweep for sample in inputs.samples for sweep in sample.sweeps]
    moved = [
        transform_points(cloud.xyz, sweep.keyframe_from_sweep) for cloud, sweep in zip(joined, described, strict=True)
    ]
    lags = [np.full(len(cloud.xyz), sweep.lag_s, np.float32) for cloud, sweep in zip(joined, described, strict=True)]
    arrays: Arrays = {
        "xyz": np.concatenate(moved),
        "lag": np.concatenate(lags),
        "offsets": offsets([sum(len(cloud.xyz) for cloud in of_sample) for of_sample in clouds]),
    }
    intensities = [cloud.intensity for cloud in joined if cloud.intensity is not None]
    if len(intensities) == len(joined):
        arrays["intensity"] = np.concatenate(intensities)
    return arrays


SWEEPS = Stage(
    name="sweeps",
    description="clouds between keyframes, in the keyframe's frame",
    version=1,
    build=build,
    settings=settings,
    raw_inputs=raw_inputs,
)

"""Stage `pairs`: which point lies behind which pixel (eq 2), and whether the camera sees it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelgen.errors import DatasetError
from labelgen.geometry import Pairs, pair_points
from labelgen.pictures import read_depth, read_image, resize
from labelgen.samples import Cloud, Sample
from labelgen.settings import shaping
from labelgen.stages.inputs import Arrays, ResolvedSettings, ShardInputs, each_sample, offsets
from labelgen.stages.points import TASK
from labelgen.stages.raw_files import FileSizes, calibrations
from labelgen.stages.stage import Stage
from labelgen.visibility import visible_in_depth_maps, visible_in_superpixels, visible_in_zbuffer


def settings(resolved: ResolvedSettings) -> Any:
    """Return the smallest depth, the rule of visibility, and the size of the images."""
    return [shaping(resolved.settings.points), shaping(resolved.settings.images)]


def raw_inputs(samples: Sequence[Sample], sizes: FileSizes) -> Any:
    """Return the calibrations, and those of the depth pictures with their file sizes where there are any."""
    depths = [
        [
            sizes(tuple(camera.depth.path for camera in sample.cameras if camera.depth)),
            [[c.depth.intrinsics.tolist(), c.depth.metres_per_unit] for c in sample.cameras if c.depth],
        ]
        for sample in samples
    ]
    return [calibrations(samples), depths] if any(files for files, _ in depths) else calibrations(samples)


def build(inputs: ShardInputs) -> Arrays:
    """Project the points into the images; points and images are counted over the whole shard.

    Raises:
        BadSamplesError: naming every sample whose cloud, or picture that the rule of visibility needs, cannot be read.
        DatasetError: if a camera has no depth picture that the rule of visibility needs.
    """
    size, points = inputs.settings.images.size, inputs.settings.points
    clouds = {sample.token: cloud for sample, cloud in zip(inputs.samples, inputs.clouds, strict=True)}
    parts = [pair_points(clouds[s.token].xyz, s.cameras, size, points.min_depth_m) for s in inputs.samples]
    first_point = offsets([len(cloud.xyz) for cloud in inputs.clouds])
    first_image = offsets([len(sample.cameras) for sample in inputs.samples])
    arrays: Arrays = {
        "point": np.concatenate([part.point + first_point[i] for i, part in enumerate(parts)]).astype(np.int32),
        "image": np.concatenate([part.image + first_image[i] for i, part in enumerate(parts)]).astype(np.uint16),
        "row": np.concatenate([part.row for part in parts]),
        "col": np.concatenate([part.col for part in parts]),
        "offsets": offsets([len(part.point) for part in parts]),
    }
    if points.visibility == "none":
        return arrays
    pairs = {sample.token: part for sample, part in zip(inputs.samples, parts, strict=True)}

    def tell(sample: Sample) -> NDArray[np.bool_]:
        return _visible(inputs, sample, clouds[sample.token], pairs[sample.token])

    seen = each_sample(inputs.samples, tell)
    return arrays | {
        "depth": np.concatenate([part.depth for part in parts]),
        "visible": np.concatenate(seen).astype(np.uint8),
    }


def _visible(inputs: ShardInputs, sample: Sample, cloud: Cloud, pairs: Pairs) -> NDArray[np.bool_]:
    """Return which pairs (N,) of a sample the rule of the settings calls visible."""
    points = inputs.settings.points
    if points.visibility == "zbuffer":
        margin = points.zbuffer_margin_m, points.zbuffer_margin_share
        return visible_in_zbuffer(cloud.xyz, sample.cameras, pairs, margin)
    if points.visibility == "slic":
        size = inputs.settings.images.size
        pictures = [resize(read_image(inputs.adapter, camera), size) for camera in sample.cameras]
        return visible_in_superpixels(pictures, pairs, points.slic_superpixels, points.slic_margin_share)
    without = [camera.channel for camera in sample.cameras if camera.depth is None]
    if without:
        raise DatasetError(
            f"points.visibility=depth_map, but {without[0]} of sample {sample.token} has no depth picture; "
            "choose points.visibility=zbuffer or none"
        )
    depth_maps = [read_depth(inputs.adapter, camera) for camera in sample.cameras]
    tolerance = points.depth_tolerance_m, points.depth_tolerance_share
    return visible_in_depth_maps(cloud.xyz, sample.cameras, pairs, depth_maps, tolerance)


def also_reads(resolved: ResolvedSettings) -> tuple[str, ...]:
    """Return the group whose pictures the rule of visibility reads."""
    return ("images",) if resolved.settings.points.visibility == "slic" else ()


PAIRS = Stage(
    name="pairs",
    description="pixel-point pairs (eq 2)",
    version=1,
    build=build,
    settings=settings,
    made_from=("points",),
    raw_inputs=raw_inputs,
    also_reads=also_reads,
    task=TASK,
)

"""Stage `time`: labels on which the keyframes of a shard agree. Only made if `time.enabled` is set."""

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_schemas.taxonomy import IGNORE
from labelgen.confidence import SCALE, as_bytes
from labelgen.errors import DatasetError
from labelgen.geometry import invert_rigid
from labelgen.stages.inputs import Arrays, ResolvedSettings, ShardInputs
from labelgen.stages.stage import Stage
from labelgen.time_agreement.pixels import PointVotes, label_picture
from labelgen.time_agreement.votes import vote_in_cells
from labelgen.time_agreement.voxels import cells_of_points
from labelgen.visibility import visible_pairs


def settings(resolved: ResolvedSettings) -> Any:
    """Return the side of the voxels."""
    chosen = resolved.settings.time
    return chosen.voxel_m if chosen.enabled else None


def build(inputs: ShardInputs) -> Arrays:
    """Let the labelled points vote in voxels of the world, and carry the result to masks and pixels.

    Raises:
        DatasetError: if the points have no poses.
    """
    voted = inputs.read("labels", "point")["point"]
    weight = np.ones(len(voted))
    if "point_confidence" in inputs.array_names("labels"):
        weight = inputs.read("labels", "point_confidence")["point_confidence"] / SCALE
    point, confidence = vote_in_cells(_cells(inputs), voted, weight, len(inputs.resolved.taxonomy.names))
    image = _label_pictures(inputs, point, confidence)
    return {"point": point, "point_confidence": as_bytes(confidence), "image": image}


def _cells(inputs: ShardInputs) -> NDArray[np.int64]:
    """Return the cell (P,) of each point of the shard."""
    if "world_from_cloud" not in inputs.array_names("points"):
        raise DatasetError(
            f"time.enabled=true, but the points of shard {inputs.shard_key} have no poses; give each of its samples "
            f"one and delete {inputs.cache.url}/shards/{inputs.shard_key}/points, or set time.enabled=false"
        )
    points = inputs.read("points", "xyz", "offsets", "world_from_cloud")
    poses = points["world_from_cloud"]
    clouds = [points["xyz"][start:stop] for start, stop in itertools.pairwise(points["offsets"])]
    # Counted from the first cloud, coordinates are small, and float32 is exact enough.
    return cells_of_points(clouds, invert_rigid(poses[0]) @ poses, inputs.settings.time.voxel_m)


def _label_pictures(
    inputs: ShardInputs, point: NDArray[np.uint8], confidence: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """Return the labels (I, H, W) of all pictures."""
    pairs, classes = visible_pairs(inputs.read("pairs")), len(inputs.resolved.taxonomy.names)
    labels, mask_ids = inputs.read("labels", "image_raw", "image"), inputs.read("sam", "mask_ids")["mask_ids"]
    of_pair = point[pairs["point"]]
    labelled = np.flatnonzero(of_pair != IGNORE)
    # Pairs are sorted by image.
    ends = np.searchsorted(pairs["image"][labelled], np.arange(len(labels["image"]) + 1))
    found = np.empty_like(labels["image"])
    for number, (start, stop) in enumerate(itertools.pairwise(ends)):
        own = labelled[start:stop]
        seen = PointVotes(pairs["row"][own], pairs["col"][own], of_pair[own], confidence[pairs["point"][own]])
        picture = labels["image_raw"][number], labels["image"][number], mask_ids[number]
        found[number] = label_picture(*picture, seen, classes)
    return found


TIME = Stage(
    name="time",
    description="labels on which keyframes agree",
    version=1,
    build=build,
    settings=settings,
    made_from=("points", "pairs", "sam", "labels"),
)

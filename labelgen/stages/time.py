"""Stage `time`: labels on which the keyframes of a shard agree. Only made if `time.enabled` is set."""

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelgen.confidence import as_bytes
from labelgen.errors import DatasetError
from labelgen.geometry import invert_rigid
from labelgen.stages.inputs import Arrays, ResolvedSettings, ShardInputs
from labelgen.stages.stage import Stage
from labelgen.time_agreement.agreement import agree
from labelgen.time_agreement.labels import confidence_of_cells, label_cells, label_pictures
from labelgen.time_agreement.views import find_views
from labelgen.time_agreement.voxels import cells_of_points
from labelgen.visibility import visible_pairs


def settings(resolved: ResolvedSettings) -> Any:
    """Return the side of the voxels and the rounds."""
    chosen = resolved.settings.time
    return [chosen.voxel_m, chosen.rounds] if chosen.enabled else None


def build(inputs: ShardInputs) -> Arrays:
    """Let the views of all keyframes agree in voxels of the world and in masks, and label points and pixels.

    Raises:
        DatasetError: if the points have no poses.
    """
    cell, mask_ids = _cells(inputs), inputs.read("sam", "mask_ids")["mask_ids"]
    views = find_views(visible_pairs(inputs.read("pairs")), inputs.read("clip", "logits")["logits"], mask_ids)
    agreement = agree(views, cell, inputs.settings.time.rounds)
    labels = label_cells(agreement)
    voted = inputs.read("labels", "image")["image"]
    return {
        "point": labels[cell],
        "point_confidence": as_bytes(confidence_of_cells(labels, views, cell))[cell],
        "image": label_pictures(agreement, views, labels[cell], mask_ids, voted),
    }


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
    # Coordinates relative to the first cloud are small, so float32 is exact enough.
    return cells_of_points(clouds, invert_rigid(poses[0]) @ poses, inputs.settings.time.voxel_m)


TIME = Stage(
    name="time",
    description="labels on which keyframes agree",
    version=1,
    build=build,
    settings=settings,
    made_from=("points", "pairs", "clip", "sam", "labels"),
)

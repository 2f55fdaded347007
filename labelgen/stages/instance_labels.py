"""Stage `instance_labels`: classes of instances and points by CLIPInstance and affinity (Affinity3D)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_schemas.errors import ConfigError
from cache_schemas.taxonomy import IGNORE
from labelgen.instances.affinity import classify
from labelgen.instances.point_labels import label_points
from labelgen.instances.regions import PairedPixels, score_regions
from labelgen.stages.inputs import Arrays, ResolvedSettings, ShardInputs
from labelgen.stages.stage import Stage
from labelgen.visibility import visible_pairs


def settings(resolved: ResolvedSettings) -> Any:
    """Return the steps of affinity, and the ids of the things.

    Raises:
        ConfigError: if a thing is not a class of the taxonomy.
    """
    chosen, names = resolved.settings.instances, resolved.taxonomy.names
    if not chosen.enabled:
        return None
    if unknown := [name for name in chosen.things if name not in names]:
        raise ConfigError(f"instances.things: {unknown[0]!r} is not a class of {resolved.taxonomy.name}: {list(names)}")
    return [chosen.steps, [names.index(name) for name in chosen.things]]


def build(inputs: ShardInputs) -> Arrays:
    """Score the instances by their pixels, spread classes over the shard, and label the points."""
    found, pairs = inputs.read("instances"), visible_pairs(inputs.read("pairs"))
    instance = _shard_wide(found["point"], inputs.read("points", "offsets")["offsets"], found["offsets"])
    regions = score_regions(
        instance,
        len(found["extent"]),
        PairedPixels(*(pairs[name] for name in ("point", "image", "row", "col"))),
        inputs.read("clip", "logits")["logits"],
        inputs.read("sam", "mask_ids")["mask_ids"],
    )
    steps = inputs.settings.instances.steps
    raw, spread = (classify(regions.scores, regions.pixels, found["extent"], count, IGNORE) for count in (1, steps))
    return {
        "scores": regions.scores,
        "pixels": regions.pixels.astype(np.uint32),
        "instance_raw": raw,
        "instance": spread,
        "point": label_points(instance, spread, inputs.read("labels", "point")["point"], _things(inputs)),
    }


def _shard_wide(ids: NDArray[np.uint16], points: NDArray[np.int64], instances: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return ids (P,) that count the instances of the whole shard, from 1, given the offsets of both."""
    first = np.repeat(instances[:-1], np.diff(points))
    return np.where(ids > 0, ids + first, 0)


def _things(inputs: ShardInputs) -> NDArray[np.bool_]:
    """Return (C,) whether each class is a thing; all are if the settings name none."""
    names, things = inputs.resolved.taxonomy.names, inputs.settings.instances.things
    return np.array([not things or name in things for name in names])


INSTANCE_LABELS = Stage(
    name="instance_labels",
    description="classes of instances and their points (CLIPInstance, affinity)",
    version=1,
    build=build,
    settings=settings,
    made_from=("instances", "clip", "sam", "pairs", "labels"),
)

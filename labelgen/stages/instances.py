"""Stage `instances`: the points of a cloud as instances, without semantics. Only made if `instances.enabled` is set."""

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelgen.instances.clustering import find_instances
from labelgen.stages.inputs import Arrays, ResolvedSettings, ShardInputs, offsets
from labelgen.stages.stage import Stage


def settings(resolved: ResolvedSettings) -> Any:
    """Return the height of the sensor and the size of the smallest instance."""
    chosen = resolved.settings.instances
    return [chosen.sensor_height_m, chosen.min_points] if chosen.enabled else None


def build(inputs: ShardInputs) -> Arrays:
    """Cluster each cloud on its own; ids begin at 1 in every sample."""
    points = inputs.read("points")
    ends = points["offsets"]
    parts, extents = [], []
    for start, stop in itertools.pairwise(ends):
        xyz = points["xyz"][start:stop]
        intensity = points["intensity"][start:stop] if "intensity" in points else None
        parts.append(find_instances(xyz, intensity, inputs.settings.instances))
        extents.append(_extents(xyz, parts[-1]))
    return {
        "point": np.concatenate(parts),
        "extent": np.concatenate(extents),
        "offsets": offsets([len(extent) for extent in extents]),
    }


def _extents(xyz: NDArray[np.float32], ids: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return the sides (K, 3) of the box around each instance 1..K of points (P, 3), along the sensor's axes."""
    count = int(ids.max(initial=0))
    low, high = np.full((count + 1, 3), np.inf, np.float32), np.full((count + 1, 3), -np.inf, np.float32)
    np.minimum.at(low, ids, xyz)
    np.maximum.at(high, ids, xyz)
    return (high - low)[1:]


INSTANCES = Stage(
    name="instances",
    description="instances of points, from geometry alone",
    version=1,
    build=build,
    settings=settings,
    made_from=("points",),
)

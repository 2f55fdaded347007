"""Points to instances, without semantics: the ground is removed, and the rest is clustered.

Ground: Patchwork++ (S. Lee et al., IROS 2022). Clusters: HDBSCAN (R. Campello et al., PAKDD 2013), which needs no
distance, so that it works for near and far points alike.
"""

import numpy as np
from numpy.typing import NDArray

from labelgen.settings import InstanceSettings

MAX_INSTANCES = 65_535
"""Ids of instances are u16."""


def find_instances(
    xyz: NDArray[np.float32], intensity: NDArray[np.float32] | None, settings: InstanceSettings
) -> NDArray[np.uint16]:
    """Return the instance of each point, (P,) u16 from 1; 0 for the ground and for points of no cluster.

    Args:
        xyz: (P, 3) f32 points in the sensor frame with z up, metres.
        intensity: (P,) f32 in 0..1, or None.
        settings: the height of the sensor, and the size of the smallest instance.
    """
    ids = np.zeros(len(xyz), np.uint16)
    above = np.flatnonzero(~is_ground(xyz, intensity, settings.sensor_height_m))
    if len(above) >= settings.min_points:
        clusters = cluster_points(xyz[above], settings.min_points)
        ids[above] = np.where(clusters < MAX_INSTANCES, clusters + 1, 0)
    return ids


def is_ground(
    xyz: NDArray[np.float32], intensity: NDArray[np.float32] | None, sensor_height_m: float
) -> NDArray[np.bool_]:
    """Return (P,) whether each point is on the ground."""
    import pypatchworkpp

    parameters = pypatchworkpp.Parameters()
    parameters.sensor_height = sensor_height_m
    parameters.verbose = False
    parameters.enable_RNR = False  # The removal of reflected noise depends on the sensor's scale of intensities.
    estimator = pypatchworkpp.patchworkpp(parameters)
    strength = np.zeros(len(xyz), np.float32) if intensity is None else intensity
    estimator.estimateGround(np.column_stack([xyz, strength]))
    low = np.zeros(len(xyz), bool)
    low[estimator.getGroundIndices()] = True
    return low


def cluster_points(xyz: NDArray[np.float32], min_points: int) -> NDArray[np.intp]:
    """Return the cluster of each point, (P,) from 0, -1 for none."""
    from sklearn.cluster import HDBSCAN

    neighbours = min(NEIGHBOURS, len(xyz))
    found: NDArray[np.intp] = HDBSCAN(min_cluster_size=min_points, min_samples=neighbours, copy=True).fit_predict(xyz)
    return found


NEIGHBOURS = 5
"""HDBSCAN's `min_samples`: a point is dense if it has so many neighbours near it."""

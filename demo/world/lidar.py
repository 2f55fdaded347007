"""Sweeps of the 32-beam lidar."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demo.world.casting import cast, turned
from demo.world.scene import Scene
from demo.world.sensors import ego_from_lidar, lidar_rays
from demo.world.shading import surface_table

RANGE_M = (1.5, 82.0)
RANGE_NOISE_M = 0.02


@dataclass(frozen=True)
class Sweep:
    """One sweep of the lidar, all points at one time, as after motion compensation.

    Attributes:
        points: (P, 5) f32 x, y, z in the lidar frame, intensity 0..255, ring.
        class_ids: (P,) u8 of nuscenes16.
        instance_ids: (P,) u16, 1 + index into the scene's things.
    """

    points: NDArray[np.float32]
    class_ids: NDArray[np.uint8]
    instance_ids: NDArray[np.uint16]


def scan(scene: Scene, time: float) -> Sweep:
    """Return the sweep at `time` seconds; the same arguments give the same bytes."""
    rng = np.random.default_rng([scene.seed, 5, round(time * 1e6) + 10**9])
    rays, ring = lidar_rays()
    scene_from_lidar = scene.scene_from_ego(time) @ ego_from_lidar(scene.seed)
    directions = turned(rays, scene_from_lidar[:3, :3])
    origins = np.tile(scene_from_lidar[:3, 3].astype(np.float32), (len(rays), 1))
    hits = cast((scene.still, scene.moving(time)), origins, directions)
    table = surface_table(scene.surfaces)
    facing = np.abs(np.einsum("ij,ij->i", hits.normals, directions[hits.ray]))
    strength = table.intensity[hits.surface] * (0.25 + 0.75 * facing)
    seen = strength * (1 - 0.6 * hits.distance / RANGE_M[1])
    drop = 0.015 + 0.9 * np.exp(-seen / 0.006) + 0.25 * (hits.distance / RANGE_M[1]) ** 2
    kept = rng.uniform(0, 1, len(drop)) > drop
    kept &= (hits.distance > RANGE_M[0]) & (hits.distance < RANGE_M[1])
    rows = np.flatnonzero(kept)
    reach = hits.distance[rows] + rng.normal(0, RANGE_NOISE_M, len(rows)).astype(np.float32)
    brightness = 255 * strength[rows] * rng.uniform(0.8, 1.2, len(rows)) * np.exp(-reach / 90)
    points = np.empty((len(rows), 5), np.float32)
    points[:, :3] = rays[hits.ray[rows]] * reach[:, None]
    points[:, 3] = np.clip(np.round(brightness), 0, 255)
    points[:, 4] = ring[hits.ray[rows]]
    thing = hits.thing[rows]
    return Sweep(points, scene.class_ids[thing], (thing + 1).astype(np.uint16))

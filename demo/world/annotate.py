"""3D boxes of the movable things in one keyframe."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demo.world.lidar import Sweep
from demo.world.scene import Scene
from demo.world.sensors import LIDAR_PLACE_M
from demo.world.tables import Row, token

_MARGIN_M = 0.03
_PROBES = 160


@dataclass(frozen=True)
class Box:
    """One annotated thing.

    Attributes:
        thing: index into the scene's things.
        global_from_box: (4, 4) f64; the box frame lies at its centre, x forward, y left, z up.
        size: (3,) f64 length, width, height in metres.
        points: number of lidar points on it.
        visible: unoccluded share of the surface that faces the lidar, 0..1.
    """

    thing: int
    global_from_box: NDArray[np.float64]
    size: NDArray[np.float64]
    points: int
    visible: float


def boxes(scene: Scene, sweep: Sweep, time: float) -> list[Box]:
    """Return the boxes of all movable things with at least one lidar point, as in the official data set."""
    counts = np.bincount(sweep.instance_ids, minlength=len(scene.things) + 1)[1:]
    eye = (scene.scene_from_ego(time) @ [*LIDAR_PLACE_M, 1])[:3]
    found = []
    for index, thing in enumerate(scene.things):
        if not thing.has_box or not counts[index]:
            continue
        low, high = thing.extent[0] - _MARGIN_M, thing.extent[1] + _MARGIN_M
        pose = thing.motion.scene_from_object(scene.street, time)
        centre = np.eye(4)
        centre[:3, 3] = (low + high) / 2
        visible = _visible_share(scene, index, pose, eye, time)
        found.append(Box(index, scene.global_from_scene @ pose @ centre, high - low, int(counts[index]), visible))
    return found


def _visible_share(scene: Scene, index: int, pose: NDArray[np.float64], eye: NDArray[np.float64], time: float) -> float:
    """Return the share of a thing's triangles facing `eye` (3,) that no other thing occludes."""
    corners = np.concatenate([patch.triangles for patch in scene.things[index].model])
    corners = corners @ pose[:3, :3].T + pose[:3, 3]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    middle = corners.mean(axis=1)
    facing = np.flatnonzero(np.einsum("ij,ij->i", normals, eye - middle) > 0)
    chosen = facing[np.linspace(0, len(facing) - 1, min(_PROBES, len(facing))).astype(int)]
    rays = (middle[chosen] - eye).astype(np.float32)
    origins = np.tile(eye.astype(np.float32), (len(rays), 1))
    near = np.full(len(rays), 1.05, np.float32)
    hidden = np.zeros(len(rays), bool)
    for caster in (scene.still, scene.moving(time)):
        distance, triangle, _, _ = caster.nearest(origins, rays, near)
        blocked = triangle >= 0
        blocked[blocked] = caster.thing[triangle[blocked]] != index
        hidden |= blocked & (distance < 0.97)
    return float(1 - hidden.mean()) if len(hidden) else 0.0


def annotation_row(world: str, scene: Scene, name: str, sample_token: str, box: Box) -> Row:
    """Return a row of sample_annotation without prev and next."""
    yaw = float(np.arctan2(box.global_from_box[1, 0], box.global_from_box[0, 0]))
    length, width, height = box.size.tolist()
    attribute = attribute_of(scene, box.thing)
    level = int(np.searchsorted((0.4, 0.6, 0.8), box.visible, side="right")) + 1
    return {
        "token": token(world, sample_token, box.thing),
        "sample_token": sample_token,
        "instance_token": token(world, name, "instance", box.thing),
        "visibility_token": str(level),
        "attribute_tokens": [token(world, attribute)] if attribute else [],
        "translation": box.global_from_box[:3, 3].tolist(),
        "size": [width, length, height],
        "rotation": [float(np.cos(yaw / 2)), 0.0, 0.0, float(np.sin(yaw / 2))],
        "num_lidar_pts": box.points,
        "num_radar_pts": 0,
    }


def attribute_of(scene: Scene, thing: int) -> str:
    """Return the name of a thing's attribute, or ""."""
    category, moves = scene.things[thing].category, scene.things[thing].motion.moves
    if category.startswith("human."):
        return "pedestrian.moving" if moves else "pedestrian.standing"
    if category in ("vehicle.bicycle", "vehicle.motorcycle"):
        return "cycle.with_rider" if moves else "cycle.without_rider"
    if category.startswith("vehicle."):
        return "vehicle.moving" if moves else "vehicle.parked"
    return ""

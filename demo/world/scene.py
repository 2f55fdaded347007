"""A scene: its things, their positions over time, and the light."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from demo.world.casting import Caster
from demo.world.lighting import Mood
from demo.world.mesh import Model, Surface, bounds, rotated
from demo.world.street import Street

Floats = NDArray[np.float32]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Motion:
    """Position of a thing in street coordinates, and its motion.

    Attributes:
        s, t, z: position at time 0, metres.
        yaw: angle to the direction of the street, radians.
        speed: along the street, m/s; negative is oncoming.
        drift: to the left across the street, m/s.
        fixed: s, t and yaw are scene coordinates x, y and yaw instead.
    """

    s: float
    t: float
    z: float = 0.0
    yaw: float = 0.0
    speed: float = 0.0
    drift: float = 0.0
    fixed: bool = False

    @property
    def moves(self) -> bool:
        """Whether the position changes over time."""
        return self.speed != 0 or self.drift != 0

    def scene_from_object(self, street: Street, time: float) -> Matrix:
        """Return the rigid transform (4, 4) at `time` seconds."""
        s, t = self.s + self.speed * time, self.t + self.drift * time
        (x, y), yaw = ((s, t), self.yaw) if self.fixed else (street.xy(s, t), float(street.yaw(s)) + self.yaw)
        cos, sin = np.cos(yaw), np.sin(yaw)
        return np.array([[cos, -sin, 0, x], [sin, cos, 0, y], [0, 0, 1, self.z], [0, 0, 0, 1]])


@dataclass(frozen=True)
class Thing:
    """One object or stuff segment.

    Attributes:
        model: its patches in its own frame.
        class_id: of nuscenes16.
        category: the official category name.
        motion: its position over time.
        name: unique in the scene.
        has_box: whether it is annotated with a 3D box.
    """

    model: Model
    class_id: int
    category: str
    motion: Motion
    name: str
    has_box: bool = False

    @cached_property
    def extent(self) -> tuple[Matrix, Matrix]:
        """Lowest and highest corner (3,), (3,) in its own frame."""
        return bounds(self.model)


@dataclass(frozen=True)
class Ego:
    """Motion of the recording car: along a lane at constant speed, with small changes of pitch and roll."""

    lane_t: float
    speed: float
    start_s: float = 0.0

    def scene_from_ego(self, street: Street, time: float) -> Matrix:
        """Return the rigid transform (4, 4) at `time` seconds; the ego frame lies on the ground."""
        pose = Motion(self.start_s, self.lane_t, speed=self.speed).scene_from_object(street, time)
        pitch, roll = 0.006 * np.sin(2.1 * time), 0.005 * np.sin(1.3 * time + 1)
        cp, sp, cr, sr = np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
        tilt = np.eye(4)
        tilt[:3, :3] = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]]) @ np.array(
            [[1, 0, 0], [0, cr, -sr], [0, sr, cr]]
        )
        return pose @ tilt


@dataclass(frozen=True)
class Scene:
    """One street with its things, light and drive; instance ids are 1 + index into `things`."""

    seed: int
    street: Street
    things: tuple[Thing, ...]
    mood: Mood
    ego: Ego
    origin: tuple[float, float]
    description: str = ""
    _movers: dict[float, Caster] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def surfaces(self) -> tuple[Surface, ...]:
        """All surfaces in the scene, without duplicates."""
        return tuple(dict.fromkeys(patch.surface for thing in self.things for patch in thing.model))

    @cached_property
    def class_ids(self) -> NDArray[np.uint8]:
        """Class of each thing (T,)."""
        return np.array([thing.class_id for thing in self.things], np.uint8)

    @cached_property
    def still(self) -> Caster:
        """All things that do not move."""
        return self._caster([index for index, thing in enumerate(self.things) if not thing.motion.moves], 0.0)

    def moving(self, time: float) -> Caster:
        """Return all things that move, at their positions at `time` seconds."""
        if time not in self._movers:
            if len(self._movers) > 1:
                self._movers.clear()
            self._movers[time] = self._caster([i for i, thing in enumerate(self.things) if thing.motion.moves], time)
        return self._movers[time]

    def scene_from_ego(self, time: float) -> Matrix:
        """Return the pose (4, 4) of the recording car."""
        return self.ego.scene_from_ego(self.street, time)

    @cached_property
    def global_from_scene(self) -> Matrix:
        """Rigid transform (4, 4) to map coordinates, whose origin is about a kilometre away."""
        pose = np.eye(4)
        pose[:2, 3] = self.origin
        return pose

    @cached_property
    def _parts(self) -> tuple[Caster, ...]:
        """All triangles of each thing, in its own frame."""
        surface_ids = {surface: index for index, surface in enumerate(self.surfaces)}
        parts = []
        for index, thing in enumerate(self.things):
            sizes = [len(patch.triangles) for patch in thing.model]
            surface = np.repeat(np.array([surface_ids[patch.surface] for patch in thing.model], np.int32), sizes)
            triangles = np.concatenate([patch.triangles for patch in thing.model])
            normals = np.concatenate([patch.normals for patch in thing.model])
            coords = [patch.triangles if patch.coords is None else patch.coords for patch in thing.model]
            whose = np.full(len(surface), index, np.int32)
            parts.append(Caster(*_without_duplicates(triangles), normals, np.concatenate(coords), surface, whose))
        return tuple(parts)

    def _caster(self, indices: list[int], time: float) -> Caster:
        placed, count = [], 0
        for index in indices:
            pose = self.things[index].motion.scene_from_object(self.street, time).astype(np.float32)
            turn, shift = pose[:3, :3], pose[:3, 3]
            part = self._parts[index]
            vertices, corners = part.vertices @ turn.T + shift, part.corners + np.int32(count)
            placed.append((vertices, corners, rotated(part.normals, turn), part.coords, part.surface, part.thing))
            count += len(vertices)
        return Caster(*(np.concatenate(column) for column in zip(*placed, strict=True))) if placed else Caster.empty()


def _without_duplicates(triangles: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return the vertices (V, 3) of triangles (F, 3, 3), without duplicates, and the corners (F, 3) as indices."""
    points = np.ascontiguousarray(triangles).view(np.dtype((np.void, 3 * triangles.itemsize)))
    vertices, corners = np.unique(points, return_inverse=True)
    return vertices.view(np.float32).reshape(-1, 3), corners.reshape(-1, 3).astype(np.int32)

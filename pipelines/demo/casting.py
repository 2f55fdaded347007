"""Ray casting against triangle meshes (embree)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

FAR = np.float32(1e6)


@dataclass(frozen=True)
class Caster:
    """Triangles in scene coordinates and what each of them is.

    Attributes:
        triangles, normals, coords: (F, 3, 3) f32 at the corners.
        surface, thing: (F,) i32 indices into the scene's surfaces and things.
    """

    triangles: Floats
    normals: Floats
    coords: Floats
    surface: Ints
    thing: Ints

    @classmethod
    def empty(cls) -> "Caster":
        """Return a caster that no ray hits."""
        corners, index = np.zeros((0, 3, 3), np.float32), np.zeros(0, np.int32)
        return cls(corners, corners, corners, index, index)

    @cached_property
    def _embree(self) -> EmbreeScene:
        scene = EmbreeScene()
        TriangleMesh(scene, np.ascontiguousarray(self.triangles, np.float32))
        return scene

    def nearest(self, origins: Floats, directions: Floats, limit: Floats) -> tuple[Floats, Ints, Floats, Floats]:
        """Return distance (in lengths of `directions`), triangle (-1: none) and corner weights u, v; each (N,)."""
        if not len(self.triangles):
            none = np.zeros(len(origins), np.float32)
            return limit, np.full(len(origins), -1, np.int32), none, none
        found = self._embree.run(origins, directions, dists=limit.copy(), output=True)
        return found["tfar"], found["primID"], found["u"], found["v"]

    def blocks(self, origins: Floats, directions: Floats, limit: Floats) -> NDArray[np.bool_]:
        """Return for each ray (N,) whether anything lies on it nearer than `limit`."""
        if not len(self.triangles) or not len(origins):
            return np.zeros(len(origins), bool)
        return self._embree.run(origins, directions, dists=limit.copy(), query="OCCLUDED") >= 0


@dataclass(frozen=True)
class Hits:
    """What N rays hit first; rows of `ray` only, in order.

    Attributes:
        ray: (H,) index of the ray.
        distance: (H,) f32 in lengths of the ray's direction.
        points, normals, coords: (H, 3) f32; normals face the ray's origin.
        surface, thing: (H,) i32.
    """

    ray: NDArray[np.int64]
    distance: Floats
    points: Floats
    normals: Floats
    coords: Floats
    surface: Ints
    thing: Ints


def cast(casters: Sequence[Caster], origins: Floats, directions: Floats) -> Hits:
    """Return the first hits of rays (N, 3) over all casters."""
    limit = np.full(len(origins), FAR, np.float32)
    owner = np.full(len(origins), -1, np.int8)
    triangle = np.full(len(origins), -1, np.int32)
    u, v = np.zeros(len(origins), np.float32), np.zeros(len(origins), np.float32)
    for index, caster in enumerate(casters):
        far, found, found_u, found_v = caster.nearest(origins, directions, limit)
        hit = found >= 0
        limit = np.where(hit, far, limit)
        owner[hit] = index
        for target, value in ((triangle, found), (u, found_u), (v, found_v)):
            np.copyto(target, value, where=hit)
    ray = np.flatnonzero(owner >= 0)
    shape = (len(ray), 3)
    normals, coords = np.empty(shape, np.float32), np.empty(shape, np.float32)
    surface, thing = np.empty(len(ray), np.int32), np.empty(len(ray), np.int32)
    for index, caster in enumerate(casters):
        rows = np.flatnonzero(owner[ray] == index)
        if not len(rows):
            continue
        face, a, b = triangle[ray[rows]], u[ray[rows], None], v[ray[rows], None]
        normals[rows] = _blend(caster.normals[face], a, b)
        coords[rows] = _blend(caster.coords[face], a, b)
        surface[rows], thing[rows] = caster.surface[face], caster.thing[face]
    heading = directions[ray]
    normals /= np.maximum(np.sqrt(np.einsum("ij,ij->i", normals, normals)), 1e-9)[:, None]
    normals *= -np.sign(np.einsum("ij,ij->i", normals, heading) + np.float32(1e-12))[:, None]
    points = origins[ray] + heading * limit[ray, None]
    return Hits(ray, limit[ray], points, normals, coords, surface, thing)


def turned(vectors: Floats, matrix: NDArray[np.floating]) -> Floats:
    """Return `matrix` (3, 3) applied to vectors (N, 3); far faster than a thin product of matrices in many threads."""
    columns = matrix.T.astype(np.float32)
    result = vectors[:, :1] * columns[0]
    result += vectors[:, 1:2] * columns[1]
    result += vectors[:, 2:] * columns[2]
    return result


def _blend(corners: Floats, u: Floats, v: Floats) -> Floats:
    return corners[:, 0] * (1 - u - v) + corners[:, 1] * u + corners[:, 2] * v

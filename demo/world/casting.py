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
    """Triangles in scene coordinates, with the surface and the thing of each.

    Attributes:
        vertices: (V, 3) f32, without duplicates within a thing: embree builds shared vertices in half the time.
        corners: (F, 3) i32 indices into them.
        normals, coords: (F, 3, 3) f32 at the corners.
        surface, thing: (F,) i32 indices into the scene's surfaces and things.
    """

    vertices: Floats
    corners: Ints
    normals: Floats
    coords: Floats
    surface: Ints
    thing: Ints

    @classmethod
    def empty(cls) -> "Caster":
        """Return a caster that no ray hits."""
        at_corners, index = np.zeros((0, 3, 3), np.float32), np.zeros(0, np.int32)
        return cls(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32), at_corners, at_corners, index, index)

    @cached_property
    def _embree(self) -> EmbreeScene:
        scene = EmbreeScene()
        TriangleMesh(scene, self.vertices, self.corners)
        return scene

    def nearest(self, origins: Floats, directions: Floats, limit: Floats) -> tuple[Floats, Ints, Floats, Floats]:
        """Return distance (in lengths of `directions`), triangle (-1: none) and corner weights u, v; each (N,)."""
        if not len(self.corners):
            none = np.zeros(len(origins), np.float32)
            return limit, np.full(len(origins), -1, np.int32), none, none
        found = self._embree.run(origins, directions, dists=limit.copy(), output=True)
        return found["tfar"], found["primID"], found["u"], found["v"]

    def blocks(self, origins: Floats, directions: Floats, limit: Floats) -> NDArray[np.bool_]:
        """Return for each ray (N,) whether it hits anything nearer than `limit`."""
        if not len(self.corners) or not len(origins):
            return np.zeros(len(origins), bool)
        blocked: NDArray[np.bool_] = self._embree.run(origins, directions, dists=limit.copy(), query="OCCLUDED") >= 0
        return blocked


@dataclass(frozen=True)
class Hits:
    """The first hits of N rays, in order; rays that hit nothing are left out.

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
    whose = owner.take(ray)  # `take` is several times as fast as indexing
    for index, caster in enumerate(casters):
        rows = np.flatnonzero(whose == index)
        if not len(rows):
            continue
        here = ray.take(rows)
        face, a, b = triangle.take(here), u.take(here), v.take(here)
        normals[rows] = _blend(caster.normals, face, a, b)
        coords[rows] = _blend(caster.coords, face, a, b)
        surface[rows], thing[rows] = caster.surface.take(face), caster.thing.take(face)
    heading, distance = directions.take(ray, axis=0), limit.take(ray)
    normals /= np.maximum(np.sqrt(np.einsum("ij,ij->i", normals, normals)), 1e-9)[:, None]
    normals *= -np.sign(np.einsum("ij,ij->i", normals, heading) + np.float32(1e-12))[:, None]
    points = origins.take(ray, axis=0) + heading * distance[:, None]
    return Hits(ray, distance, points, normals, coords, surface, thing)


def turned(vectors: Floats, matrix: NDArray[np.floating]) -> Floats:
    """Return `matrix` (3, 3) applied to vectors (N, 3), much faster than a matrix product in many threads."""
    return _weighted_sums(tuple(vectors.T), matrix.astype(np.float32))


def _blend(corners: Floats, face: Ints, u: Floats, v: Floats) -> Floats:
    """Interpolate corner values in each `face` (H,), at weights u, v (H,) of its second and third corner: (H, 3)."""
    at_face = corners.reshape(-1, 9).take(face, axis=0)
    return _weighted_sums((1 - u - v, u, v), at_face.T.reshape(3, 3, -1).swapaxes(0, 1))


def _weighted_sums(weights: Sequence[Floats], values: Floats) -> Floats:
    """Return the sums (N, 3) of three weights (N,) times `values` (3, 3) or (3, 3, N), weights along its second axis.

    Column by column: numpy is twice as slow at rows of three.
    """
    sums = np.empty((len(weights[0]), 3), np.float32)
    for column, (first, second, third) in zip(sums.T, values, strict=True):
        total = weights[0] * first
        total += weights[1] * second
        total += weights[2] * third
        column[:] = total
    return sums

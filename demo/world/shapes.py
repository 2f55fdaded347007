"""Meshes of simple shapes; sizes in metres, x forward, y left, z up."""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from demo.world.mesh import Patch, Surface, flat, quads, split_quads

Point = Sequence[float] | NDArray[np.floating]

_BOX_SIDES = np.array(
    [
        [[0, 0, 0], [0, 1, 0], [1, 1, 0], [1, 0, 0]],
        [[0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]],
        [[0, 0, 0], [1, 0, 0], [1, 0, 1], [0, 0, 1]],
        [[1, 1, 0], [0, 1, 0], [0, 1, 1], [1, 1, 1]],
        [[1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 0, 1]],
        [[0, 1, 0], [0, 0, 0], [0, 0, 1], [0, 1, 1]],
    ],
    np.float64,
)


def box(surface: Surface, low: Point, high: Point, taper: Sequence[float] = (1.0, 1.0), lean: float = 0.0) -> Patch:
    """Return a box between two corners; its top is `taper` times as long and wide, and shifted by `lean` along x."""
    lowest, highest = np.asarray(low, np.float64), np.asarray(high, np.float64)
    centre = (lowest + highest) / 2
    corners = lowest + _BOX_SIDES * (highest - lowest)
    top = _BOX_SIDES[..., 2] > 0.5
    for axis in (0, 1):
        shrunk = centre[axis] + (corners[..., axis] - centre[axis]) * taper[axis]
        corners[..., axis] = np.where(top, shrunk, corners[..., axis])
    corners[..., 0] += np.where(top, lean, 0.0)
    return quads(corners, surface)


def facade_box(surface: Surface, size: Point, seed: float) -> Patch:
    """Return four walls of (length, width, height) round the origin; coords are along the wall, up, and wall id."""
    length, width, height = size
    ground = np.array([[1, -1], [1, 1], [-1, 1], [-1, -1]]) * (length / 2, width / 2)
    corners, coords = [], []
    for wall in range(4):
        (x0, y0), (x1, y1) = ground[wall], ground[(wall + 1) % 4]
        along = math.hypot(x1 - x0, y1 - y0)
        corners.append([[x0, y0, 0], [x1, y1, 0], [x1, y1, height], [x0, y0, height]])
        coords.append([[u, v, seed + wall] for u, v in ((0, 0), (along, 0), (along, height), (0, height))])
    return quads(np.array(corners), surface, np.array(coords))


def tube(
    surface: Surface, start: Point, end: Point, radius: float, end_radius: float | None = None, sides: int = 8
) -> Patch:
    """Return a smooth tube or cone from `start` to `end`, with flat ends."""
    (x0, y0, z0), (x1, y1, z1) = (map(float, point) for point in (start, end))
    length = max(math.hypot(x1 - x0, y1 - y0, z1 - z0), 1e-9)
    i, j, k = (x1 - x0) / length, (y1 - y0) / length, (z1 - z0) / length
    flat_length = math.hypot(j, k) if abs(i) < 0.8 else math.hypot(i, k)
    a = (0.0, k / flat_length, -j / flat_length) if abs(i) < 0.8 else (-k / flat_length, 0.0, i / flat_length)
    b = (j * a[2] - k * a[1], k * a[0] - i * a[2], i * a[1] - j * a[0])
    corners, normals = _unit_tube(sides)
    radii = radius + ((radius if end_radius is None else end_radius) - radius) * corners[..., 2:]
    frame = np.array([a, b])
    points = (corners[..., :2] * radii) @ frame + corners[..., 2:] * np.array([x1 - x0, y1 - y0, z1 - z0])
    return Patch(
        (points + np.array([x0, y0, z0])).astype(np.float32),
        (normals @ np.array([*a, *b, i, j, k]).reshape(3, 3)).astype(np.float32),
        surface,
    )


@cache
def _unit_tube(sides: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return corners and normals (4 * sides, 3, 3) of a tube of radius 1 along z from 0 to 1, ends included."""
    angle = np.linspace(0, 2 * np.pi, sides + 1)
    ring = np.stack([np.cos(angle), np.sin(angle), np.zeros(sides + 1)], axis=1)
    up = np.array([0.0, 0, 1])
    side = np.stack([ring[:-1], ring[1:], ring[1:] + up, ring[:-1] + up], axis=1)
    normal = np.stack([ring[:-1], ring[1:], ring[1:], ring[:-1]], axis=1)
    middle = np.zeros((sides, 3))
    bottom = np.stack([middle, ring[1:], ring[:-1]], axis=1)
    top = np.stack([middle, ring[:-1], ring[1:]], axis=1) + up
    corners = np.concatenate([split_quads(side), bottom, top])
    ends = np.repeat([-up, up], sides, axis=0)[:, None].repeat(3, axis=1)
    return corners, np.concatenate([split_quads(normal), ends])


def disc(surface: Surface, centre: Point, radius: float, half_width: float, sides: int = 18) -> Patch:
    """Return a wheel-like cylinder whose axis lies along y."""
    x, y, z = centre
    return tube(surface, (x, y - half_width, z), (x, y + half_width, z), radius, sides=sides)


def hoop(surface: Surface, centre: Point, radius: float, thickness: float, sides: int = 20, ring: int = 6) -> Patch:
    """Return a torus whose axis lies along y."""
    around, across = np.meshgrid(np.linspace(0, 2 * np.pi, sides + 1), np.linspace(0, 2 * np.pi, ring + 1))
    normal = np.stack([np.cos(around) * np.cos(across), np.sin(across), np.sin(around) * np.cos(across)], axis=-1)
    spine = np.stack([np.cos(around), np.zeros_like(around), np.sin(around)], axis=-1) * radius
    points = np.asarray(centre, np.float64) + spine + normal * thickness
    return _grid(points, normal, surface)


def blob(
    surface: Surface, centre: Point, radii: Point, bumps: NDArray[np.floating] | None = None, detail: int = 2
) -> Patch:
    """Return a smooth ellipsoid; `bumps` (V,) scale its radius at the vertices of `sphere(detail)`."""
    vertices, faces = sphere(detail)
    radius = np.asarray(radii, np.float64)
    points = vertices * radius * (1.0 if bumps is None else bumps[:, None])
    normal = vertices / radius
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    return Patch(
        (points + np.asarray(centre, np.float64))[faces].astype(np.float32), normal[faces].astype(np.float32), surface
    )


def extruded(surface: Surface, profile: NDArray[np.floating], half_width: float, tuck: float = 0.0) -> Patch:
    """Return the convex side view `profile` (N, 2) of x, z, counter-clockwise seen from -y, widened along y.

    The sides tuck in by `tuck` metres at the highest point of the profile.
    """
    profile = np.asarray(profile, np.float64)
    height = profile[:, 1]
    inset = tuck * (height - height.min()) / max(np.ptp(height), 1e-9)
    right, left = (np.stack([profile[:, 0], side * (half_width - inset), height], axis=1) for side in (-1, 1))
    following = np.roll(np.arange(len(profile)), -1)
    hull = quads(np.stack([right, left, left[following], right[following]], axis=1)[:, ::-1], surface)
    fan = [[0, index, index + 1] for index in range(1, len(profile) - 1)]
    sides = flat(np.concatenate([right[fan], left[fan][:, ::-1]]), surface)
    return Patch(
        np.concatenate([hull.triangles, sides.triangles]), np.concatenate([hull.normals, sides.normals]), surface
    )


@cache
def sphere(detail: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return a unit sphere of `detail` subdivisions of an icosahedron: vertices (V, 3), faces (F, 3)."""
    golden = (1 + math.sqrt(5)) / 2
    base = np.array([[-1, golden, 0], [1, golden, 0], [-1, -golden, 0], [1, -golden, 0]])
    points = np.concatenate([base, base[:, [2, 0, 1]], base[:, [1, 2, 0]]])
    gaps = np.linalg.norm(points[:, None] - points[None], axis=2)
    near = np.abs(gaps - 2) < 1e-6
    triples = [
        (i, j, k)
        for i in range(12)
        for j in range(i + 1, 12)
        for k in range(j + 1, 12)
        if near[i, j] and near[j, k] and near[i, k]
    ]
    triangles = points[np.array(triples)]
    outward = (np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]) * triangles[:, 0]).sum(1)
    triangles[outward < 0] = triangles[outward < 0][:, [0, 2, 1]]
    for _ in range(detail):
        a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
        ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
        parts = [np.stack(part, axis=1) for part in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))]
        triangles = np.concatenate(parts)
    triangles = triangles / np.linalg.norm(triangles, axis=2, keepdims=True)
    vertices, faces = np.unique(triangles.reshape(-1, 3).round(9), axis=0, return_inverse=True)
    return vertices, faces.reshape(-1, 3)


def _grid(points: NDArray[np.floating], normals: NDArray[np.floating], surface: Surface) -> Patch:
    """Return a smooth patch over a grid (R, C, 3) of points and normals."""
    cells = [
        np.stack([g[:-1, :-1], g[1:, :-1], g[1:, 1:], g[:-1, 1:]], axis=2).reshape(-1, 4, 3) for g in (points, normals)
    ]
    triangles, bent = (cell[:, [[0, 1, 2], [0, 2, 3]]].reshape(-1, 3, 3).astype(np.float32) for cell in cells)
    return Patch(triangles, bent, surface)

"""Construction vehicles: excavators and wheel loaders."""

import numpy as np

from demo.world.mesh import Model, Patch, Surface
from demo.world.palette import DARK_METAL, GLASS, ORANGE_LAMP, RUBBER, STEEL, Palette
from demo.world.shapes import box, disc, extruded, tube

_YELLOWS = ((0.96, 0.72, 0.06), (0.95, 0.65, 0.05), (0.93, 0.55, 0.06))


def construction_vehicle(palette: Palette) -> Model:
    """Return an excavator or, less often, a wheel loader, in machine yellow."""
    paint = Surface("worn", (palette.pick(_YELLOWS, 0.03), (0.35, 0.28, 0.18)), gloss=0.04, intensity=0.35)
    return _excavator(palette, paint) if palette.chance(0.65) else _loader(paint)


def _excavator(palette: Palette, paint: Surface) -> Model:
    parts: list[Patch] = []
    for y in (-1, 1):
        low, high = sorted((y * 0.75, y * 1.3))
        track = np.array([(-1.5, 0.0), (1.5, 0.0), (1.85, 0.4), (1.5, 0.82), (-1.5, 0.82), (-1.85, 0.4)])
        shifted = extruded(
            Surface("planks", ((0.13, 0.12, 0.12), (0.05, 0.05, 0.05)), (0.16,)), track, (high - low) / 2
        )
        parts.append(_aside(shifted, (low + high) / 2))
        parts += [
            disc(DARK_METAL, (x, (low + high) / 2, 0.42), 0.27, 0.3, sides=12) for x in np.arange(-1.3, 1.4, 0.65)
        ]
    parts.append(tube(DARK_METAL, (0, 0, 0.7), (0, 0, 1.1), 0.7, sides=14))
    body = np.array([(-2.2, 1.15), (1.2, 1.05), (1.2, 1.5), (-0.1, 1.95), (-1.9, 2.05), (-2.3, 1.8)])
    parts.append(extruded(paint, body, 1.25, tuck=0.06))
    parts.append(box(DARK_METAL, (-2.0, -1.26, 1.4), (-0.8, 1.26, 1.8)))
    cab = np.array([(-0.3, 1.5), (1.2, 1.4), (1.35, 2.1), (1.05, 3.0), (-0.3, 3.0)])
    parts.append(_aside(extruded(GLASS, cab, 0.5), 0.7))
    parts += [
        _aside(tube(paint, (a[0], s, a[1]), (b[0], s, b[1]), 0.06, sides=5), 0.7)
        for s in (-0.5, 0.5)
        for a, b in zip(cab, np.roll(cab, -1, axis=0), strict=True)
    ]
    parts.append(box(paint, (-0.35, 0.16, 2.97), (1.1, 1.24, 3.1)))
    parts.append(tube(ORANGE_LAMP, (0.0, 0.7, 3.1), (0.0, 0.7, 3.28), 0.08))
    lift = palette.between(0.0, 0.9)
    elbow = np.array([3.1, 0, 3.6 + lift])
    reach = np.array([5.2, 0, 1.9 + 0.6 * lift])
    bend = np.array([2.0, 0, 3.4 + 0.8 * lift])
    for start, end, thick in (((1.0, 0, 1.6), bend, 0.26), (bend, elbow, 0.24), (elbow, reach, 0.2)):
        parts.append(_beam(paint, np.asarray(start), end, thick))
    parts.append(tube(STEEL, (1.2, 0.0, 1.5), (bend + elbow) / 2 - (0, 0, 0.3), 0.08))
    parts.append(tube(STEEL, bend + (0.1, 0, 0.35), elbow + (0.35, 0, 0.15), 0.07))
    tip = reach - (0.1, 0, 0.1)
    bucket = np.array([(-0.75, -0.95), (-0.1, -1.1), (0.35, -0.6), (0.2, 0.05), (-0.2, 0.1)]) + tip[[0, 2]]
    parts.append(extruded(Surface("worn", ((0.25, 0.24, 0.23), (0.4, 0.3, 0.2))), bucket, 0.55))
    return tuple(parts)


def _beam(surface: Surface, start: np.ndarray, end: np.ndarray, thick: float) -> Patch:
    along = (end - start) / np.linalg.norm(end - start)
    up = np.array([-along[2], 0, along[0]]) * thick
    side_view = np.stack([start - up, end - up * 0.8, end + up * 0.8, start + up])[:, [0, 2]]
    return extruded(surface, side_view, 0.17)


def _loader(paint: Surface) -> Model:
    parts: list[Patch] = []
    rear = np.array([(-3.0, 0.8), (-0.3, 0.7), (-0.2, 1.5), (-0.6, 1.9), (-2.8, 1.8), (-3.1, 1.5)])
    parts.append(extruded(paint, rear, 0.95, tuck=0.08))
    parts.append(box(DARK_METAL, (-3.12, -0.7, 1.0), (-2.9, 0.7, 1.6)))
    parts.append(box(paint, (-0.2, -0.6, 0.7), (1.6, 0.6, 1.35), (0.8, 0.9)))
    cab = np.array([(-1.0, 1.7), (0.3, 1.6), (0.45, 2.2), (0.25, 3.1), (-1.0, 3.1)])
    parts.append(extruded(GLASS, cab, 0.68))
    parts += [
        tube(paint, (a[0], s, a[1]), (b[0], s, b[1]), 0.06, sides=5)
        for s in (-0.68, 0.68)
        for a, b in zip(cab, np.roll(cab, -1, axis=0), strict=True)
    ]
    parts.append(box(paint, (-1.1, -0.76, 3.08), (0.35, 0.76, 3.22)))
    parts.append(tube(ORANGE_LAMP, (-0.5, 0.3, 3.2), (-0.5, 0.3, 3.4), 0.08))
    for y in (-0.55, 0.55):
        parts.append(_aside(_beam(paint, np.array([0.6, 0, 1.6]), np.array([2.3, 0, 1.1]), 0.17), y))
        parts.append(_aside(_beam(paint, np.array([2.3, 0, 1.1]), np.array([3.0, 0, 0.55]), 0.17), y))
    bucket = np.array([(2.75, 0.12), (3.9, 0.08), (3.2, 0.75), (2.9, 1.1), (2.65, 0.8)])
    parts.append(extruded(Surface("worn", (paint.colours[0], (0.3, 0.25, 0.2))), bucket, 1.35))
    hubs = [disc(paint, (x, y, 0.75), 0.36, 0.3, sides=12) for x in (-1.9, 1.1) for y in (-0.98, 0.98)]
    tyres = [disc(RUBBER, (x, y, 0.75), 0.75, 0.27, sides=20) for x in (-1.9, 1.1) for y in (-0.98, 0.98)]
    return (*parts, *tyres, *hubs)


def _aside(patch: Patch, y: float) -> Patch:
    """Return the patch shifted to the left by `y`."""
    return Patch((patch.triangles + np.array([0, y, 0])).astype(np.float32), patch.normals, patch.surface)

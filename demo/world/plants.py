"""Trees, bushes and hedges."""

import numpy as np

from demo.world.mesh import Model, Patch, Surface, scaled
from demo.world.palette import Palette
from demo.world.shapes import blob, box, sphere, tube

_GREENS = ((0.25, 0.45, 0.13), (0.2, 0.4, 0.15), (0.33, 0.5, 0.15), (0.4, 0.52, 0.2), (0.18, 0.34, 0.14))
_BROWNS = ((0.45, 0.36, 0.2), (0.5, 0.38, 0.22), (0.52, 0.33, 0.16), (0.4, 0.36, 0.28))


def foliage(palette: Palette) -> Surface:
    """Return leaves; difficulty makes some of them brown."""
    brown = palette.chance(0.45 * palette.difficulty)
    colour = palette.pick(_BROWNS if brown else _GREENS, 0.04)
    colours = (colour, scaled(colour, 0.42), scaled(colour, 1.5))
    return Surface("leaves", colours, (palette.between(0.9, 1.6),), intensity=0.2)


def tree(palette: Palette) -> Model:
    """Return a broad-leaved tree, or a conifer."""
    leaves = foliage(palette)
    bark = Surface("bark", (palette.near((0.36, 0.27, 0.2), 0.04), (0.2, 0.15, 0.11)), intensity=0.18)
    return _conifer(palette, leaves, bark) if palette.chance(0.2) else _broadleaf(palette, leaves, bark)


def _broadleaf(palette: Palette, leaves: Surface, bark: Surface) -> Model:
    height = palette.between(5.0, 9.0)
    fork, spread = height * palette.between(0.32, 0.42), height * palette.between(0.22, 0.32)
    girth = palette.between(0.11, 0.2)
    lean = palette.rng.uniform(-0.2, 0.2, 2)
    top = np.array([lean[0], lean[1], fork])
    parts: list[Patch] = [tube(bark, (0, 0, 0), top, girth * 1.25, girth * 0.8, sides=8)]
    for _ in range(palette.rng.integers(5, 8)):
        angle, out = palette.between(0, 2 * np.pi), palette.between(0.25, 0.75) * spread
        centre = np.array(
            [out * np.cos(angle), out * np.sin(angle), palette.between(fork + 0.25 * spread, height - 0.45 * spread)]
        )
        parts.append(tube(bark, top, centre, girth * 0.5, girth * 0.2, sides=5))
        radius = spread * palette.between(0.5, 0.72)
        parts += _clump(palette, leaves, centre, (radius, radius, radius * 0.85))
    return tuple(parts)


def _conifer(palette: Palette, leaves: Surface, bark: Surface) -> Model:
    height, spread = palette.between(5.5, 9.5), palette.between(1.3, 1.9)
    parts: list[Patch] = [tube(bark, (0, 0, 0), (0, 0, height * 0.4), 0.15, 0.1)]
    for level in np.linspace(0.16, 0.8, 6):
        radius = spread * (1.05 - level)
        parts.append(tube(leaves, (0, 0, height * level), (0, 0, height * (level + 0.24)), radius, 0.05, sides=13))
        count = int(150 * radius)
        angle, reach = palette.rng.uniform(0, 2 * np.pi, count), palette.rng.uniform(0.55, 1.0, count) * radius
        spots = np.stack(
            [reach * np.cos(angle), reach * np.sin(angle), height * (level + 0.22 * (1 - reach / radius))], axis=1
        )
        outward = np.stack([np.cos(angle), np.sin(angle), np.full(count, 0.5)], axis=1)
        parts.append(_leaf_fans(palette, leaves, spots, outward, 0.19))
    return tuple(parts)


def bush(palette: Palette, leaves: Surface | None = None) -> Model:
    """Return a round bush, about a metre high."""
    leaves = leaves or foliage(palette)
    parts: list[Patch] = []
    for _ in range(3):
        x, y = palette.rng.uniform(-0.45, 0.45, 2)
        parts += _clump(palette, leaves, np.array([x, y, palette.between(0.3, 0.5)]), (0.6, 0.6, 0.5), 160)
    return tuple(parts)


def hedge(palette: Palette, length: float, leaves: Surface) -> Model:
    """Return a clipped hedge along x, about 1.2 m high."""
    height, half = palette.between(0.9, 1.5), palette.between(0.35, 0.5)
    parts: list[Patch] = [box(leaves, (-length / 2, -half, 0), (length / 2, half, height), (0.99, 0.85))]
    count = int(150 * length)
    along = palette.rng.uniform(-length / 2, length / 2, count)
    wall = palette.rng.integers(0, 3, count)
    across = np.where(wall == 2, palette.rng.uniform(-half, half, count), np.where(wall == 0, -half, half))
    up = np.where(wall == 2, height, palette.rng.uniform(0.05, height, count))
    spots = np.stack([along, across * (1 - 0.15 * up / height), up], axis=1)
    outward = np.stack(
        [np.zeros(count), np.where(wall == 2, 0, np.sign(across)), np.where(wall == 2, 1.0, 0.35)], axis=1
    )
    parts.append(_leaf_fans(palette, leaves, spots, outward, 0.1))
    return tuple(parts)


def _clump(
    palette: Palette, leaves: Surface, centre: np.ndarray, radii: tuple[float, ...], count: int = 110
) -> list[Patch]:
    """Return a lumpy ball with loose leaves over it."""
    vertices, _ = sphere(1)
    bumps = palette.rng.uniform(0.84, 1.08, len(vertices))
    direction = palette.rng.normal(0, 1, (count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    spots = centre + direction * np.asarray(radii) * palette.rng.uniform(0.92, 1.12, (count, 1))
    size = 0.13 * float(np.mean(radii)) ** 0.5
    return [blob(leaves, centre, radii, bumps, detail=1), _leaf_fans(palette, leaves, spots, direction, size)]


def _leaf_fans(palette: Palette, leaves: Surface, spots: np.ndarray, outward: np.ndarray, size: float) -> Patch:
    """Return one randomly oriented triangle at each spot (N, 3), with the normals `outward` (N, 3) for shading."""
    corners = spots[:, None] + palette.rng.normal(0, size, (len(spots), 3, 3))
    corners[..., 2] = np.maximum(corners[..., 2], 0.02)
    unit = outward / np.linalg.norm(outward, axis=1, keepdims=True)
    return Patch(corners.astype(np.float32), np.repeat(unit[:, None], 3, axis=1).astype(np.float32), leaves)

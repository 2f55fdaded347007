"""Surfaces and triangle patches, which all objects are made of."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Colour = tuple[float, float, float]
"""Red, green, blue as a picture shows them (sRGB), 0..1."""


def scaled(colour: Colour, factor: float, limit: float = 1.0) -> Colour:
    """Return a colour whose channels are multiplied by `factor`, and at most `limit`."""
    red, green, blue = (min(channel * factor, limit) for channel in colour)
    return red, green, blue


@dataclass(frozen=True)
class Surface:
    """How a patch looks to cameras and to the lidar.

    Attributes:
        texture: name of a function in `textures.py`.
        colours: up to three colours; the texture defines what each one is used for.
        params: up to four numbers for the texture.
        gloss: share of the sky that the surface mirrors, 0..1.
        glow: emitted light, in units of its colour.
        intensity: lidar reflectance at normal incidence, 0..1.
    """

    texture: str
    colours: tuple[Colour, ...]
    params: tuple[float, ...] = ()
    gloss: float = 0.0
    glow: float = 0.0
    intensity: float = 0.12


@dataclass(frozen=True)
class Patch:
    """Triangles of one surface.

    Attributes:
        triangles: (F, 3, 3) f32 corners in metres, in the frame of the object.
        normals: (F, 3, 3) f32 unit normals at the corners; equal for flat faces.
        surface: how it looks.
        coords: (F, 3, 3) f32 texture coordinates in metres, or None for the corners themselves.
    """

    triangles: Floats
    normals: Floats
    surface: Surface
    coords: Floats | None = None


Model = tuple[Patch, ...]
"""One object in its own frame: x forward, y left, z up, standing on z = 0."""


def flat(triangles: NDArray[np.floating], surface: Surface, coords: NDArray[np.floating] | None = None) -> Patch:
    """Return a patch of flat-shaded triangles (F, 3, 3)."""
    corners = np.ascontiguousarray(triangles, np.float32)
    a, b = (corners[:, 1] - corners[:, 0]).T, (corners[:, 2] - corners[:, 0]).T
    normal = np.stack([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]], axis=1)
    normal /= np.maximum(np.sqrt((normal * normal).sum(axis=1)), 1e-12)[:, None]
    return Patch(
        corners,
        np.repeat(normal[:, None], 3, axis=1).astype(np.float32),
        surface,
        None if coords is None else np.ascontiguousarray(coords, np.float32),
    )


def quads(corners: NDArray[np.floating], surface: Surface, coords: NDArray[np.floating] | None = None) -> Patch:
    """Return a patch of quads (Q, 4, 3) whose corners run around the edge; `coords` (Q, 4, 3) are split alike."""
    return flat(split_quads(corners), surface, None if coords is None else split_quads(coords))


def split_quads(corners: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return quads (Q, 4, 3) as triangles (2 Q, 3, 3)."""
    return np.asarray(corners)[:, [[0, 1, 2], [0, 2, 3]]].reshape(-1, 3, 3)


def moved(
    model: Iterable[Patch],
    offset: Sequence[float] = (0.0, 0.0, 0.0),
    yaw: float = 0.0,
    pitch: float = 0.0,
    scale: float = 1.0,
) -> Model:
    """Return the model scaled, pitched (nose down positive), turned by `yaw` radians, then shifted by metres."""
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    turn = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]]) @ np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    shift = np.asarray(offset, np.float64)
    return tuple(
        replace(
            patch,
            triangles=(rotated(patch.triangles * scale, turn) + shift).astype(np.float32),
            normals=rotated(patch.normals, turn).astype(np.float32),
        )
        for patch in model
    )


def rotated(corners: NDArray[np.floating], turn: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return `turn` (3, 3) applied to corners (F, 3, 3): as one product, seven times as fast as F small ones."""
    return (corners.reshape(-1, 3) @ turn.T).reshape(corners.shape)


def bounds(model: Iterable[Patch]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the lowest and highest corner (3,), (3,) of a model in its own frame."""
    corners = np.concatenate([patch.triangles.reshape(-1, 3) for patch in model]).astype(np.float64)
    return corners.min(axis=0), corners.max(axis=0)

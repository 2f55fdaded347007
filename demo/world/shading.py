"""Shading of hits: textures, sun and shadow, sky, gloss, haze."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from demo.world.casting import Hits, turned
from demo.world.facades import facade, shopfront
from demo.world.lighting import light_rays, sky_base
from demo.world.mesh import Surface
from demo.world.scene import Scene
from demo.world.textures import TEXTURES, At

Floats = NDArray[np.float32]

_FUNCTIONS = TEXTURES | {"facade": facade, "shopfront": shopfront}
_NAMES = tuple(_FUNCTIONS)


class _Table:
    """The properties of all surfaces of a scene as arrays, by surface index."""

    def __init__(self, surfaces: tuple[Surface, ...]) -> None:
        self.texture = np.array([_NAMES.index(surface.texture) for surface in surfaces], np.int16)
        self.colours = np.zeros((len(surfaces), 3, 3), np.float32)
        self.params = np.zeros((len(surfaces), 4), np.float32)
        self.gloss = np.array([surface.gloss for surface in surfaces], np.float32)
        self.glow = np.array([surface.glow for surface in surfaces], np.float32)
        self.intensity = np.array([surface.intensity for surface in surfaces], np.float32)
        for index, surface in enumerate(surfaces):
            colours = (*surface.colours, *(surface.colours[-1],) * 3)[:3]
            self.colours[index] = np.asarray(colours) ** 2.2
            self.params[index, : len(surface.params)] = surface.params


@lru_cache(maxsize=8)
def surface_table(surfaces: tuple[Surface, ...]) -> _Table:
    """Return the table of a scene's surfaces."""
    return _Table(surfaces)


def albedo(scene: Scene, hits: Hits, pixel: Floats) -> Floats:
    """Return linear colours (H, 3) of the surfaces at hits; `pixel` (H,) is the size of a pixel there, metres."""
    table = surface_table(scene.surfaces)
    colour = np.empty((len(hits.ray), 3), np.float32)
    kind = table.texture.take(hits.surface)
    order = np.argsort(kind, kind="stable")
    starts = np.searchsorted(kind[order], np.arange(len(_NAMES) + 1))
    for index, name in enumerate(_NAMES):
        rows = order[starts[index] : starts[index + 1]]
        if not len(rows):
            continue
        surface, coords = hits.surface.take(rows), hits.coords.take(rows, axis=0)
        colours, params = table.colours.take(surface, axis=0), table.params.take(surface, axis=0)
        x, y, z = coords.T
        at = At(x, y, z, hits.normals[:, 2].take(rows), pixel.take(rows), colours, params)
        colour[rows] = _FUNCTIONS[name](at)
    return colour


def shadow(scene: Scene, hits: Hits, time: float, rng: np.random.Generator) -> Floats:
    """Return the share of sunlight (H,) at each hit: the cosine to the sun, 0 in shadow."""
    rays = light_rays(scene.mood, len(hits.ray), rng)
    facing = np.einsum("ij,ij->i", hits.normals, rays)
    rows = np.flatnonzero(facing > 0.01)
    lift = (0.01 + 0.0006 * hits.distance.take(rows))[:, None]
    origins = hits.points.take(rows, axis=0) + hits.normals.take(rows, axis=0) * lift
    limit = np.full(len(rows), 120.0, np.float32)
    towards = rays.take(rows, axis=0)
    blocked = scene.still.blocks(origins, towards, limit) | scene.moving(time).blocks(origins, towards, limit)
    light = np.zeros(len(hits.ray), np.float32)
    light[rows] = facing[rows] * ~blocked
    return light


def crevice(scene: Scene, hits: Hits, rows: NDArray[np.int64], time: float, rng: np.random.Generator) -> Floats:
    """Return the ambient occlusion (R,) at hits `rows` (R,), from one short random ray each; 1 is unoccluded."""
    stray = rng.standard_normal((len(rows), 3), dtype=np.float32)
    stray /= np.sqrt(np.einsum("ij,ij->i", stray, stray))[:, None]
    normals = hits.normals.take(rows, axis=0)
    rays = normals + np.float32(0.85) * stray
    rays[:, 2] = np.maximum(rays[:, 2], 0.02)
    lift = (0.012 + 0.0006 * hits.distance.take(rows))[:, None]
    origins, limit = hits.points.take(rows, axis=0) + normals * lift, np.full(len(rows), 2.2, np.float32)
    blocked = scene.still.blocks(origins, rays, limit) | scene.moving(time).blocks(origins, rays, limit)
    return 1 - blocked.astype(np.float32)


def lit(
    scene: Scene, hits: Hits, colour: Floats, sun: Floats, open_sky: Floats, heading: Floats, metres: Floats
) -> Floats:
    """Return linear light (H, 3) towards the eye.

    `colour` (H, 3) is the surface's, `sun` (H,) and `open_sky` (H,) come from `shadow` and `crevice`, `heading` (H, 3)
    are unit view directions and `metres` (H,) distances.
    """
    mood, table = scene.mood, surface_table(scene.surfaces)
    sky_share = (0.5 + 0.5 * hits.normals[:, 2]) * (0.35 + 0.65 * open_sky)
    reach = 0.55 + 0.45 * open_sky
    weights = np.stack([(1 - sky_share) * reach, sky_share * reach, sun * np.float32(0.62)], axis=1)
    sources = np.array([mood.ground_colour, mood.sky_colour, mood.sun_colour], np.float32)
    light: Floats = colour * turned(weights, sources.T)
    gloss, glow = table.gloss.take(hits.surface), table.glow.take(hits.surface)
    if len(rows := np.flatnonzero(glow > 0)):
        light[rows] += colour[rows] * glow[rows, None] * np.float32(1.4)
    if len(rows := np.flatnonzero(gloss > 0)):
        cosine = np.einsum("ij,ij->i", hits.normals[rows], heading[rows])
        mirrored_up = heading[rows, 2] - 2 * cosine * hits.normals[rows, 2]
        share = gloss[rows] + (1 - gloss[rows]) * (1 + np.clip(cosine, -1, 0)) ** 5 * 0.6
        light[rows] += (sky_base(mood, mirrored_up) * (0.4 + 0.6 * open_sky[rows, None]) - light[rows]) * share[:, None]
    haze = (1 - np.exp(-metres / np.float32(mood.haze_m)))[:, None]
    light += (np.array(mood.horizon, np.float32) * np.float32(0.9) - light) * haze
    return light

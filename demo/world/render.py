"""Pictures of a scene with per-pixel truth."""

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demo.world.casting import Hits, cast, turned
from demo.world.lighting import sky
from demo.world.scene import Scene
from demo.world.sensors import CameraModel
from demo.world.shading import albedo, crevice, lit, shadow

Floats = NDArray[np.float32]

SKY_CLASS = 255
SUBPIXELS = ((-0.33, -0.2), (0.25, 0.33))
"""Offsets in pixels of the additional rays at edges."""


@dataclass(frozen=True)
class View:
    """A picture and its truth.

    Attributes:
        rgb: (H, W, 3) u8.
        class_ids: (H, W) u8 of nuscenes16, 255 for the sky.
        instance_ids: (H, W) u16, 0 for the sky, else 1 + index into the scene's things.
        depth: (H, W) f32 metres along the optical axis, inf for the sky.
    """

    rgb: NDArray[np.uint8]
    class_ids: NDArray[np.uint8]
    instance_ids: NDArray[np.uint16]
    depth: Floats


def render_view(scene: Scene, camera: CameraModel, time: float) -> View:
    """Return the picture of `camera` at `time` seconds; the same arguments give the same bytes.

    Truth is that of the pixel centre; colours at edges are averaged over a few rays.
    """
    height, width = camera.height_px, camera.width_px
    key = (scene.seed, zlib.crc32(camera.channel.encode()), round(time * 1e6) + 10**9, width)
    rng = np.random.default_rng(key)
    rows, columns = (grid.ravel() for grid in np.mgrid[:height, :width].astype(np.float32))
    hits, directions = _look(scene, camera, time, columns, rows)
    open_sky = _open_sky(scene, hits, time, rng, (height, width))
    light = _light(scene, camera, time, hits, directions, open_sky, rng, (height, width))
    surface = np.full(height * width, -1, np.int32)
    surface[hits.ray] = hits.surface + 1000 * hits.thing
    edges = np.flatnonzero(_edges(surface.reshape(height, width)))
    if len(edges):
        light[edges] = _refined(scene, camera, time, columns[edges], rows[edges], (light[edges], open_sky[edges]), rng)
    class_ids = np.full(height * width, SKY_CLASS, np.uint8)
    instance_ids, depth = np.zeros(height * width, np.uint16), np.full(height * width, np.inf, np.float32)
    class_ids[hits.ray], instance_ids[hits.ray] = scene.class_ids[hits.thing], hits.thing + 1
    depth[hits.ray] = hits.distance
    rgb = _develop(light.reshape(height, width, 3), scene, camera, rng)
    shape = (height, width)
    return View(rgb, class_ids.reshape(shape), instance_ids.reshape(shape), depth.reshape(shape))


def _look(scene: Scene, camera: CameraModel, time: float, columns: Floats, rows: Floats) -> tuple[Hits, Floats]:
    """Cast rays through pixels; return the hits, and all directions (N, 3), each as long as a metre of depth."""
    scene_from_cam = scene.scene_from_ego(time) @ camera.ego_from_cam
    directions = turned(camera.rays(columns, rows), scene_from_cam[:3, :3])
    origins = np.broadcast_to(scene_from_cam[:3, 3].astype(np.float32), directions.shape)
    return cast((scene.still, scene.moving(time)), np.ascontiguousarray(origins), directions), directions


def _open_sky(scene: Scene, hits: Hits, time: float, rng: np.random.Generator, size: tuple[int, int]) -> Floats:
    """Return the share of sky light (H * W,) at each pixel, sampled at a quarter of the pixels."""
    rows = np.flatnonzero((hits.ray // size[1] + hits.ray) % 4 == 0)
    plane, weight = np.zeros(size[0] * size[1], np.float32), np.zeros(size[0] * size[1], np.float32)
    plane[hits.ray[rows]], weight[hits.ray[rows]] = crevice(scene, hits, rows, time, rng), 1
    return _smoothed(plane, weight, size)


def _light(
    scene: Scene,
    camera: CameraModel,
    time: float,
    hits: Hits,
    directions: Floats,
    open_sky: Floats,
    rng: np.random.Generator,
    size: tuple[int, int] | None = None,
) -> Floats:
    """Return linear light (N, 3) along all rays; with `size`, the noise of soft shadows is smoothed."""
    length = np.sqrt(np.einsum("ij,ij->i", directions, directions))
    unit = directions / length[:, None]
    heading, metres = unit.take(hits.ray, axis=0), hits.distance * length.take(hits.ray)
    slant = np.abs(np.einsum("ij,ij->i", hits.normals, heading))
    pixel = metres / np.float32(camera.intrinsics[0, 0]) / np.sqrt(np.maximum(slant, 0.04))
    sun = shadow(scene, hits, time, rng)
    if size and scene.mood.softness > 0.1:
        plane, weight = np.zeros(len(unit), np.float32), np.zeros(len(unit), np.float32)
        plane[hits.ray], weight[hits.ray] = sun, 1
        sun = _smoothed(plane, weight, size).take(hits.ray)
    light: Floats = np.empty_like(unit)
    light[hits.ray] = lit(scene, hits, albedo(scene, hits, pixel), sun, open_sky.take(hits.ray), heading, metres)
    missed = np.ones(len(unit), bool)
    missed[hits.ray] = False
    light[missed] = sky(scene.mood, unit[missed])
    return light


def _refined(
    scene: Scene,
    camera: CameraModel,
    time: float,
    columns: Floats,
    rows: Floats,
    first: tuple[Floats, Floats],
    rng: np.random.Generator,
) -> Floats:
    """Return light (N, 3) averaged over a few more rays and `first`: light and share of sky of the pixel centre."""
    count = len(SUBPIXELS)
    more_columns = np.concatenate([columns + np.float32(u) for u, _ in SUBPIXELS])
    more_rows = np.concatenate([rows + np.float32(v) for _, v in SUBPIXELS])
    hits, directions = _look(scene, camera, time, more_columns, more_rows)
    light = _light(scene, camera, time, hits, directions, np.tile(first[1], count), rng).reshape(count, -1, 3)
    mean: Floats = (np.minimum(first[0], 1.5) + np.minimum(light, 1.5).sum(axis=0)) / (1 + count)
    return mean


def _edges(surface: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return (H, W) pixels whose right or lower neighbour shows another surface, and those neighbours."""
    edge = np.zeros(surface.shape, bool)
    for axis in (0, 1):
        near = [slice(None)] * 2
        far = [slice(None)] * 2
        near[axis], far[axis] = slice(None, -1), slice(1, None)
        differs = surface[tuple(near)] != surface[tuple(far)]
        edge[tuple(near)] |= differs
        edge[tuple(far)] |= differs
    return edge


def _smoothed(plane: Floats, weight: Floats, size: tuple[int, int]) -> Floats:
    """Return the weighted mean (H * W,) over 7 x 7 pixels; 1 where all weights are 0."""
    total, count = _box_sum((plane * weight).reshape(size)), _box_sum(weight.reshape(size))
    return np.where(count > 0.5, total / np.maximum(count, 0.5), 1).astype(np.float32).ravel()


def _box_sum(plane: Floats, reach: int = 3) -> Floats:
    for axis in (0, 1):
        padding = [(0, 0), (0, 0)]
        padding[axis] = (reach + 1, reach)
        running = np.cumsum(np.pad(plane, padding), axis=axis, dtype=np.float64)
        span = 2 * reach + 1
        low, high = [slice(None)] * 2, [slice(None)] * 2
        low[axis], high[axis] = slice(None, -span), slice(span, None)
        plane = (running[tuple(high)] - running[tuple(low)]).astype(np.float32)
    return plane


def _develop(light: Floats, scene: Scene, camera: CameraModel, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the picture (H, W, 3) after vignetting, exposure, tone curve and sensor noise."""
    height, width = light.shape[:2]
    v, u = np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)
    fall = 1 - np.float32(0.13) * (u * u + v * v)
    gain = np.float32(scene.mood.exposure * camera.exposure) * np.array(camera.tint, np.float32)
    exposed = light * fall[..., None] * gain
    toned = np.clip(exposed * (1 + exposed * np.float32(0.16)) / (1 + exposed * np.float32(0.62)), 0, 1)
    bright = np.sqrt(toned)
    noise = rng.standard_normal(light.shape, dtype=np.float32) * (
        np.float32(0.009) + np.float32(0.006) / (scene.mood.exposure + 0.3)
    )
    rgb: NDArray[np.uint8] = np.clip((bright + noise) * 255 + 0.5, 0, 255).astype(np.uint8)
    return rgb

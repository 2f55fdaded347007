"""Procedural textures: the colour of a hit from its texture coordinates.

A texture takes `at` (H hits of one texture) and returns linear colours (H, 3). Detail finer than a pixel fades out.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demo.world.noise import cell, rough, smooth

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class At:
    """The hits that a texture colours.

    Attributes:
        x, y, z: (H,) texture coordinates, metres.
        normal_z: (H,) z of the unit normals.
        pixel: (H,) size of a pixel on the surface, metres.
        colours: (H, 3, 3) up to three linear colours of the surface.
        params: (H, 4) parameters of the surface.
    """

    x: Floats
    y: Floats
    z: Floats
    normal_z: Floats
    pixel: Floats
    colours: Floats
    params: Floats

    def mix(self, share: Floats, first: int = 0, second: int = 1) -> Floats:
        """Return blends of two of the surface's colours; `share` (H,) is that of the second."""
        a = self.colours[:, first]
        return a + (self.colours[:, second] - a) * share[:, None]

    def fade(self, detail: float | np.float32 | Floats) -> Floats:
        """Return (H,) 1 where detail of this size in metres is resolved, falling to 0 where pixels are larger."""
        return np.clip(1.5 * detail / np.maximum(self.pixel, 1e-4) - 0.5, 0, 1).astype(np.float32)


def inside(value: Floats, low: float | Floats, high: float | Floats, blur: Floats) -> Floats:
    """Return 1 inside an interval and 0 outside, with edges `blur` wide."""
    width = np.maximum(blur, 1e-3)
    share = np.clip((value - low) / width + 0.5, 0, 1) * np.clip((high - value) / width + 0.5, 0, 1)
    return share.astype(np.float32, copy=False)


def plain(at: At) -> Floats:
    """One colour."""
    return at.colours[:, 0]


def cloth(at: At) -> Floats:
    """One colour in soft folds."""
    return at.colours[:, 0] * (0.75 + 0.5 * smooth(at.x + at.y, at.z * 0.5, 2.0))[:, None]


def vest(at: At) -> Floats:
    """Bright cloth with two reflecting bands."""
    band = np.maximum(inside(at.z, 1.06, 1.13, at.pixel), inside(at.z, 1.22, 1.29, at.pixel))
    return at.mix(band)


def asphalt(at: At) -> Floats:
    """Dark grain with wide stains and darker tracks along the lane."""
    grain = (rough(at.x, at.y, 5.0) - 0.5) * at.fade(0.03)
    stain = smooth(at.x, at.y, 37.0)
    track = 0.5 + 0.5 * np.cos(at.y * np.float32(2 * np.pi / 1.75))
    patch = (cell(np.floor(at.x / 7.3), np.floor(at.y / 2.9)) > 0.93).astype(np.float32)
    share = np.clip(0.9 * (stain - 0.3) + 0.18 * track * at.params[:, 0] + 0.5 * patch, 0, 1.3)
    return at.mix(share) * (1 + 0.75 * grain)[:, None]


def paint(at: At) -> Floats:
    """Worn road paint."""
    return at.mix(np.clip(1.6 * smooth(at.x, at.y, 4.0) - 0.75, 0, 0.7) * at.fade(0.08))


def slabs(at: At) -> Floats:
    """Square slabs with joints; params: their size."""
    return _masonry(at, at.x, at.y, at.params[:, 0], at.params[:, 0], 0.012, 0.0, 0.22)


def pavers(at: At) -> Floats:
    """Small paving bricks laid in rows; params: their length."""
    return _masonry(at, at.x, at.y, at.params[:, 0], at.params[:, 0] * 0.5, 0.012, 0.5, 0.5)


def brick(at: At) -> Floats:
    """A brick wall with mortar."""
    along = at.x + at.y
    return _masonry(at, along, at.z, np.float32(0.26), np.float32(0.085), 0.012, 0.5, 0.4)


def _masonry(
    at: At,
    along: Floats,
    up: Floats,
    length: Floats | np.float32,
    height: Floats | np.float32,
    joint: float,
    shift: float,
    spread: float,
) -> Floats:
    row = np.floor(up / height)
    across = along / length + shift * (row % 2)
    column = np.floor(across)
    fade = at.fade(height)
    edge = np.minimum(
        np.minimum(across - column, 1 - across + column) * length,
        np.minimum(up / height - row, 1 - up / height + row) * height,
    )
    gap = np.clip((joint - edge) / np.maximum(at.pixel, 1e-3) + 0.5, 0, 1) * fade
    tone = 1 + spread * (cell(column, row) - 0.5) * fade + 0.35 * (smooth(along, up, 9.0) - 0.5)
    tone += 0.3 * (rough(along, up, 3.0) - 0.5) * at.fade(0.02)
    return at.mix(gap) * tone[:, None]


def concrete(at: At) -> Floats:
    """Cast concrete or render with stains."""
    along = at.x + at.y
    stain = smooth(along, at.z + 0.3 * at.x, 7.0)
    return (
        at.mix(np.clip(1.5 * stain - 0.4, 0, 1)) * (1 + 0.3 * (rough(along, at.z, 2.0) - 0.5) * at.fade(0.02))[:, None]
    )


def grass(at: At) -> Floats:
    """Blades over bare spots."""
    bare = np.clip(3.2 * smooth(at.x, at.y, 26.0) - 1.95, 0, 0.75)
    blades = rough(at.x * 1.0, at.y * 2.1, 3.1) - 0.5
    tuft = smooth(at.x, at.y, 5.3) - 0.5
    colour = at.mix(bare)
    shade = np.clip(0.35 - 1.1 * blades * at.fade(0.03) - 0.9 * tuft * at.fade(0.3), 0, 1)[:, None]
    grown: Floats = colour + (at.colours[:, 2] - colour) * shade
    return grown


def dirt(at: At) -> Floats:
    """Earth with stones and tracks."""
    clod = smooth(at.x + 0.6 * at.z, at.y, 6.0)
    grain = (rough(at.x, at.y + at.z, 2.3) - 0.5) * at.fade(0.02)
    return at.mix(np.clip(1.8 * clod - 0.4, 0, 1)) * (1 + 0.8 * grain)[:, None]


def leaves(at: At) -> Floats:
    """Clumps of leaves, light and dark; params: contrast."""
    a, b = at.x + 0.71 * at.z, at.y - 0.63 * at.z
    leaf = (rough(a, b, 4.3) - 0.5) * at.fade(0.04) * 1.5
    clump = (smooth(a * 0.8 + b, b - 0.5 * a, 5.7) - 0.5) * 1.6
    tone = np.clip((leaf + clump) * at.params[:, 0] * 1.4, -1, 1)
    dark, light = np.clip(-tone, 0, 1), np.clip(tone, 0, 1)
    colour = at.mix(dark)
    lightened: Floats = colour + (at.colours[:, 2] - colour) * (0.55 * light)[:, None]
    return lightened


def bark(at: At) -> Floats:
    """Furrows along the trunk."""
    return at.mix(np.clip(1.7 * smooth(3.0 * (at.x + at.y), at.z * 0.4, 2.0) - 0.35, 0, 1))


def bands(at: At) -> Floats:
    """A cone's rings: the second colour in two rings; params: height."""
    height = at.z / at.params[:, 0]
    blur = at.pixel / at.params[:, 0]
    return at.mix(np.maximum(inside(height, 0.32, 0.52, blur), inside(height, 0.68, 0.86, blur)))


def diagonal(at: At) -> Floats:
    """Slanting stripes; params: width of a pair."""
    phase = (at.x + at.y + at.z) / at.params[:, 0]
    return at.mix(_wave(phase, at.pixel / at.params[:, 0]))


def bars(at: At) -> Floats:
    """Upright stripes along x; params: width of a pair."""
    return at.mix(_wave(at.x / at.params[:, 0], at.pixel / at.params[:, 0]))


def _wave(phase: Floats, blur: Floats) -> Floats:
    """Return a soft square wave (H,) of period 1."""
    part = phase - np.floor(phase)
    share = inside(part, 0.25, 0.75, blur * 1.5)
    wave: Floats = share + (0.5 - share) * np.clip(2 * blur - 0.6, 0, 1)
    return wave


def planks(at: At) -> Floats:
    """Boards across x; params: width of a board."""
    along = at.x / at.params[:, 0]
    part = along - np.floor(along)
    gap = (1 - inside(part, 0.14, 0.86, at.pixel / at.params[:, 0])) * at.fade(at.params[:, 0] * 0.5)
    tone = 1 + 0.35 * (cell(np.floor(along), np.zeros_like(along)) - 0.5)
    return at.mix(gap) * tone[:, None]


def panels(at: At) -> Floats:
    """Sheet metal with ribs and, with the second parameter, a coloured stripe and lettering."""
    width = at.params[:, 0]
    part = at.x / width - np.floor(at.x / width)
    rib = (1 - inside(part, 0.05, 0.95, at.pixel / width)) * at.fade(width * 0.2) * 0.25
    stripe = inside(at.z, 1.25, 1.5, at.pixel) * (at.params[:, 1] > 0.5)
    block = inside(at.z, 1.8, 2.25, at.pixel) * (cell(np.floor(at.x / 0.28), np.floor(at.z / 9.0), 3.0) > 0.42)
    block = block * (at.params[:, 1] > 0.5) * (np.abs(at.x) < 1.6) * (np.abs(at.normal_z) < 0.5)
    dirt_ = 1 - 0.16 * smooth(at.x + at.y, at.z, 5.0)
    return at.mix(np.maximum(stripe, block.astype(np.float32))) * ((1 - rib) * dirt_)[:, None]


def worn(at: At) -> Floats:
    """Paint with dirt where it is rubbed off, more of it below."""
    scratch = smooth(at.x * 1.7 + at.y, at.z * 1.3 + 0.4 * at.y, 4.0)
    return at.mix(np.clip(3 * scratch - 1.9 + 0.35 * np.clip(1.4 - at.z, 0, 1), 0, 0.8))


def tiles(at: At) -> Floats:
    """Roof tiles in rows; params: their size."""
    size = at.params[:, 0]
    row = np.floor(at.y / size)
    part = at.y / size - row
    tone = 1 + 0.3 * (cell(np.floor(at.x / 0.3), row) - 0.5) * at.fade(0.2)
    return at.mix(np.clip(0.25 - part, 0, 1) * 3 * at.fade(size * 0.6)) * tone[:, None]


def letters(at: At) -> Floats:
    """Blocks like writing on a board; params: height of a line."""
    line = at.params[:, 0]
    across, up = (at.x + at.y) / (0.3 * line), at.z / line
    filled = cell(np.floor(across), np.floor(up)) > 0.35
    inked = inside(up - np.floor(up), 0.25, 0.8, at.pixel / line) * filled
    return at.mix(inked.astype(np.float32) * (0.35 + 0.65 * at.fade(0.1 * line)))


TEXTURES: dict[str, Callable[[At], Floats]] = {
    function.__name__: function
    for function in (
        *(plain, cloth, vest, asphalt, paint, slabs, pavers, brick, concrete, grass, dirt, leaves, bark, bands),
        *(diagonal, bars, planks, panels, worn, tiles, letters),
    )
}

"""Traffic cones and barriers."""

import numpy as np

from demo.world.mesh import Model, Patch, Surface, moved
from demo.world.palette import ORANGE_LAMP, RUBBER, STEEL, Palette
from demo.world.shapes import box, extruded, tube


def traffic_cone(palette: Palette) -> Model:
    """Return an orange cone with white bands on a dark foot, 0.7 to 1 m high."""
    height = palette.between(0.7, 1.0)
    cone = Surface("bands", (palette.near((1.0, 0.36, 0.04), 0.03), (0.95, 0.95, 0.93)), (height,), intensity=0.5)
    foot = RUBBER if palette.chance(0.5) else Surface("plain", (cone.colours[0],))
    return (
        box(foot, (-0.22, -0.22, 0), (0.22, 0.22, 0.06)),
        tube(cone, (0, 0, 0.05), (0, 0, height), 0.17, 0.035, sides=14),
    )


def barrier(palette: Palette, kind: int) -> Model:
    """Return one segment: 0 red and white boards, 1 concrete, 2 plastic blocks; about 2 m along x."""
    if kind == 0:
        boards = Surface(
            "diagonal", (palette.near((0.85, 0.08, 0.08), 0.03), (0.95, 0.95, 0.93)), (0.32,), intensity=0.7
        )
        feet = [box(RUBBER, (x - 0.12, -0.35, 0), (x + 0.12, 0.35, 0.1)) for x in (-0.85, 0.85)]
        posts = [box(STEEL, (x - 0.03, -0.03, 0.1), (x + 0.03, 0.03, 1.05)) for x in (-0.85, 0.85)]
        lamps = [tube(ORANGE_LAMP, (x, 0, 1.05), (x, 0, 1.25), 0.07) for x in (-0.85,)]
        rails = [box(boards, (-1.0, -0.05, z), (1.0, 0.05, z + 0.26)) for z in (0.4, 0.78)]
        return (*feet, *posts, *lamps, *rails)
    side_view = np.array(
        [(-0.3, 0.0), (0.3, 0.0), (0.3, 0.12), (0.12, 0.4), (0.08, 0.85), (-0.08, 0.85), (-0.12, 0.4), (-0.3, 0.12)]
    )
    if kind == 1:
        body = Surface("concrete", (palette.near((0.68, 0.67, 0.64), 0.03), (0.5, 0.49, 0.47)), (1.0,), intensity=0.35)
        stripe = Surface("diagonal", ((0.95, 0.75, 0.05), (0.1, 0.1, 0.1)), (0.4,), intensity=0.5)
        slab = _lengthwise(body, side_view, 1.0)
        return (slab, box(stripe, (-0.98, -0.1, 0.62), (0.98, 0.1, 0.76)))
    red = palette.chance(0.5)
    body = Surface(
        "plain", (palette.near((0.88, 0.12, 0.08) if red else (0.94, 0.94, 0.92), 0.03),), gloss=0.05, intensity=0.4
    )
    return (_lengthwise(body, side_view * (1.1, 1.05), 0.72),)


def _lengthwise(surface: Surface, section: np.ndarray, half_length: float) -> Patch:
    hull = np.array([section[0], section[1], section[2], section[4], section[5], section[7]])
    return moved((extruded(surface, hull, half_length),), yaw=np.pi / 2)[0]

"""Bicycles and motorcycles, parked or ridden."""

import numpy as np

from demo.world.mesh import Model, Patch, Surface
from demo.world.palette import DARK_METAL, HEADLIGHT, RUBBER, STEEL, TAIL_LIGHT, Palette
from demo.world.people import rider
from demo.world.shapes import blob, box, disc, extruded, hoop, tube

_FRAMES = ((0.8, 0.1, 0.1), (0.1, 0.3, 0.7), (0.1, 0.1, 0.1), (0.1, 0.5, 0.35), (0.9, 0.75, 0.1), (0.85, 0.85, 0.85))
_TANKS = (
    (0.75, 0.06, 0.06),
    (0.08, 0.2, 0.6),
    (0.07, 0.07, 0.08),
    (0.95, 0.5, 0.05),
    (0.1, 0.45, 0.2),
    (0.85, 0.85, 0.86),
)


def bicycle(palette: Palette, ridden: bool = False) -> Model:
    """Return a bicycle: two spoked wheels, a diamond frame, handlebars, saddle, maybe a basket or a rider."""
    frame = palette.paint(_FRAMES)
    size = palette.between(0.95, 1.05)
    radius = 0.34 * size
    rear, front = (-0.53 * size, radius), (0.53 * size, radius)
    crank, seat, head = (-0.08, 0.29), (-0.24, 0.86), (0.36, 0.88)
    parts: list[Patch] = []
    for x, z in (rear, front):
        parts.append(hoop(RUBBER, (x, 0, z), radius - 0.03, 0.03))
        parts += [
            tube(STEEL, (x, 0, z), (x + radius * 0.9 * np.cos(a), 0, z + radius * 0.9 * np.sin(a)), 0.006, sides=3)
            for a in np.arange(0, 6.2, 0.7)
        ]
        parts.append(disc(STEEL, (x, 0, z), 0.045, 0.05, sides=8))
    rods = ((seat, crank), (head, crank), (seat, head), (seat, rear), (crank, rear), (head, front))
    parts += [tube(frame, (a[0], 0, a[1]), (b[0], 0, b[1]), 0.026, sides=6) for a, b in rods]
    parts.append(tube(frame, (seat[0], 0, seat[1]), (seat[0] - 0.03, 0, 0.97), 0.02, sides=6))
    parts.append(blob(DARK_METAL, (seat[0] - 0.04, 0, 1.0), (0.14, 0.08, 0.04), detail=1))
    parts.append(tube(STEEL, (head[0], 0, head[1]), (head[0] - 0.03, 0, 1.06), 0.02, sides=6))
    parts.append(tube(DARK_METAL, (head[0] - 0.03, -0.28, 1.06), (head[0] - 0.03, 0.28, 1.06), 0.02, sides=6))
    parts.append(disc(DARK_METAL, (crank[0], 0.05, crank[1]), 0.09, 0.012, sides=12))
    parts.append(box(DARK_METAL, (crank[0] + 0.1, 0.08, crank[1] - 0.1), (crank[0] + 0.2, 0.17, crank[1] - 0.07)))
    parts.append(box(DARK_METAL, (crank[0] - 0.2, -0.17, crank[1] + 0.07), (crank[0] - 0.1, -0.08, crank[1] + 0.1)))
    if palette.chance(0.4):
        basket = Surface("planks", ((0.5, 0.36, 0.22), (0.36, 0.26, 0.16)), (0.05,))
        parts.append(box(basket, (head[0] + 0.06, -0.17, 0.84), (head[0] + 0.36, 0.17, 1.06)))
    if ridden:
        parts += rider(palette, (seat[0] - 0.03, 0.98), (head[0] - 0.03, 1.08), 0.3, palette.chance(0.6))
    return tuple(parts)


def motorcycle(palette: Palette, ridden: bool = False) -> Model:
    """Return a motorcycle, or a scooter with a leg shield."""
    scooter = palette.chance(0.4)
    tank = palette.paint(_TANKS, gloss=0.2)
    radius, thickness = (0.24, 0.065) if scooter else (0.31, 0.075)
    rear, front = -0.68 if not scooter else -0.6, 0.7 if not scooter else 0.62
    seat = Surface("plain", ((0.1, 0.09, 0.09),))
    parts: list[Patch] = []
    for x in (rear, front):
        parts.append(hoop(RUBBER, (x, 0, radius), radius - thickness, thickness, ring=8))
        parts.append(disc(STEEL, (x, 0, radius), radius - thickness * 1.3, 0.03, sides=12))
        parts.append(
            extruded(
                tank,
                np.array(
                    [
                        (x - 0.2, radius * 1.85),
                        (x + 0.2, radius * 1.85),
                        (x + 0.1, radius * 2.12),
                        (x - 0.12, radius * 2.12),
                    ]
                ),
                0.09,
            )
        )
    grip = (front - 0.32, 1.08)
    parts += [tube(STEEL, (front, y, radius), (front - 0.26, y, 0.95), 0.032, sides=6) for y in (-0.1, 0.1)]
    parts.append(tube(DARK_METAL, (grip[0], -0.36, grip[1]), (grip[0], 0.36, grip[1]), 0.025, sides=6))
    parts += [
        tube(DARK_METAL, (grip[0] + 0.02, y, 1.08), (grip[0], y * 1.2, 1.26), 0.012, sides=4) for y in (-0.25, 0.25)
    ]
    parts += [blob(DARK_METAL, (grip[0], y, 1.28), (0.02, 0.07, 0.05), detail=1) for y in (-0.31, 0.31)]
    parts.append(blob(HEADLIGHT, (front - 0.14, 0, 0.93), (0.1, 0.1, 0.1)))
    if scooter:
        parts.append(box(tank, (0.22, -0.24, 0.3), (0.3, 0.24, 0.95), (1.0, 0.6), 0.08))
        parts.append(box(tank, (-0.25, -0.18, 0.22), (0.28, 0.18, 0.32)))
        parts.append(
            extruded(tank, np.array([(-0.85, 0.4), (-0.2, 0.3), (-0.18, 0.7), (-0.85, 0.72)]), 0.17, tuck=0.03)
        )
        parts.append(
            extruded(seat, np.array([(-0.85, 0.72), (-0.2, 0.7), (-0.25, 0.8), (-0.8, 0.82)]), 0.16, tuck=0.04)
        )
    else:
        parts.append(blob(tank, (0.12, 0, 0.82), (0.3, 0.16, 0.16)))
        parts.append(box(DARK_METAL, (-0.25, -0.17, 0.3), (0.3, 0.17, 0.68), (0.8, 0.8)))
        parts.append(box(STEEL, (-0.1, -0.2, 0.4), (0.16, 0.2, 0.56)))
        parts.append(
            extruded(seat, np.array([(-0.75, 0.76), (-0.1, 0.72), (-0.1, 0.82), (-0.75, 0.88)]), 0.14, tuck=0.03)
        )
        parts.append(extruded(tank, np.array([(-0.85, 0.66), (-0.3, 0.6), (-0.3, 0.74), (-0.88, 0.76)]), 0.13))
        parts += [tube(STEEL, (0.1, y, 0.3), (-0.85, y, 0.38), 0.045, 0.055) for y in (-0.19, 0.19)]
    parts.append(box(TAIL_LIGHT, (rear - 0.24, -0.08, 0.66), (rear - 0.16, 0.08, 0.74)))
    if ridden:
        parts += rider(palette, (-0.3, 0.8), (grip[0] - 0.04, grip[1]), 0.32, True)
    return tuple(parts)

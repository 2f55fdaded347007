"""Cars, buses, trucks and trailers."""

from itertools import pairwise

import numpy as np

from demo.world.mesh import Colour, Model, Patch, Surface
from demo.world.palette import (
    BUS_COLOURS,
    CAR_COLOURS,
    DARK_METAL,
    GLASS,
    HEADLIGHT,
    PLATE,
    RUBBER,
    STEEL,
    TAIL_LIGHT,
    TRUCK_COLOURS,
    Palette,
)
from demo.world.shapes import box, disc, extruded, tube

_BUMPER = Surface("plain", ((0.13, 0.13, 0.14),), intensity=0.08)
_GREYS: tuple[Colour, ...] = ((0.66, 0.65, 0.62), (0.58, 0.57, 0.55), (0.5, 0.5, 0.49))
_CARGO: tuple[Colour, ...] = ((0.93, 0.93, 0.92), (0.88, 0.9, 0.93), (0.8, 0.82, 0.84), (0.85, 0.78, 0.6))


def wheels(xs: tuple[float, ...], half_width: float, radius: float, width: float = 0.22) -> list[Patch]:
    """Return pairs of wheels at the given x, their outer faces at `half_width`."""
    parts = []
    for x in xs:
        for side in (-1, 1):
            y = side * (half_width - width / 2)
            parts.append(disc(RUBBER, (x, y, radius), radius, width / 2))
            parts.append(disc(STEEL, (x, y, radius), radius * 0.6, width / 2 + 0.015, sides=10))
            parts.append(disc(DARK_METAL, (x, y, radius), radius * 0.2, width / 2 + 0.03, sides=6))
    return parts


def car(palette: Palette) -> Model:
    """Return a saloon, hatchback, estate, off-roader or van; difficulty brings bus-like vans and concrete grey."""
    odd = palette.difficulty
    kind = palette.index((0.34, 0.24, 0.12, 0.2, 0.1 + 0.3 * odd))
    length = (4.6, 4.0, 4.6, 4.5, 4.9 + 0.9 * odd)[kind] * palette.between(0.96, 1.04)
    width = (1.8, 1.75, 1.8, 1.9, 1.95)[kind] * palette.between(0.98, 1.03)
    height = (1.45, 1.48, 1.5, 1.72, 1.85 + 0.4 * odd)[kind] * palette.between(0.98, 1.03)
    paint = palette.paint(_GREYS if palette.chance(0.3 * odd) else CAR_COLOURS, gloss=0.16 * (1 - 0.6 * odd))
    half, radius = length / 2, 0.35 if kind == 3 else 0.32
    belt, sill = height * 0.62, radius * 0.75
    hood = belt * (0.93 if kind < 4 else 0.97)
    windscreen = half - length * (0.27, 0.25, 0.26, 0.25, 0.17)[kind]
    tail = -half + length * (0.17, 0.04, 0.03, 0.03, 0.02)[kind]
    low = [(-half + 0.08, sill), (half - 0.1, sill), (half, sill + 0.2), (half - 0.04, hood - 0.14)]
    body = np.array([*low, (half - 0.25, hood - 0.03), (windscreen, belt), (-half + 0.1, belt), (-half, belt - 0.15)])
    roof_front, roof_back = windscreen - (0.62 if kind < 4 else 0.5), tail + (0.55, 0.3, 0.3, 0.22, 0.18)[kind]
    cabin = np.array(
        [(tail, belt - 0.02), (windscreen, belt - 0.02), (roof_front, height - 0.04), (roof_back, height - 0.04)]
    )
    lid = np.array(
        [
            (roof_back, height - 0.07),
            (roof_front, height - 0.07),
            (roof_front - 0.08, height),
            (roof_back + 0.06, height),
        ]
    )
    side = width / 2
    return (
        extruded(paint, body, side, tuck=0.03),
        extruded(GLASS, cabin, side - 0.06, tuck=0.17),
        extruded(paint, lid, side - 0.18, tuck=0.03),
        *_pillars(paint, cabin, side, roof_front, roof_back, belt, height),
        *_arches(half, side, radius, kind),
        *wheels((half - length * 0.19, -half + length * 0.2), side + 0.01, radius),
        *_car_lights(half, side, hood, belt, sill),
        *((_rack(side, roof_front, roof_back, height)) if kind in (2, 3) and palette.chance(0.5) else ()),
    )


def _pillars(
    paint: Surface, cabin: np.ndarray, side: float, front: float, back: float, belt: float, top: float
) -> Model:
    foot_back, foot_front = cabin[0, 0], cabin[1, 0]
    feet = ((foot_front, front), ((foot_front + foot_back) / 2 - 0.1, (front + back) / 2 - 0.1), (foot_back, back))
    return tuple(
        tube(paint, (foot, y * (side - 0.07), belt - 0.03), (head, y * (side - 0.215), top - 0.04), 0.045, sides=5)
        for foot, head in feet
        for y in (-1, 1)
    )


def _arches(half: float, side: float, radius: float, kind: int) -> Model:
    length = 2 * half
    return tuple(
        disc(_BUMPER, (x, y * (side - 0.1), radius + 0.02), radius * 1.17, 0.105, sides=16)
        for x in (half - length * 0.19, -half + length * 0.2)
        for y in (-1, 1)
    )


def _car_lights(half: float, side: float, hood: float, belt: float, sill: float) -> Model:
    parts: list[Patch] = []
    for y in (-1, 1):
        inner, outer = sorted((y * (side - 0.48), y * (side - 0.08)))
        parts.append(box(HEADLIGHT, (half - 0.2, inner, hood - 0.26), (half + 0.005, outer, hood - 0.1)))
        parts.append(box(TAIL_LIGHT, (-half - 0.012, inner, belt - 0.32), (-half + 0.12, outer, belt - 0.12)))
        inner, outer = sorted((y * side, y * (side + 0.16)))
        parts.append(box(_BUMPER, (half * 0.36, inner, belt), (half * 0.36 + 0.12, outer, belt + 0.14)))
        inner, outer = sorted((y * (side - 0.02), y * (side + 0.012)))
        parts.append(box(_BUMPER, (-half * 0.05, inner, belt - 0.16), (half * 0.03, outer, belt - 0.12)))
        parts.append(box(_BUMPER, (-half * 0.5, inner, sill), (half * 0.52, outer, sill + 0.1)))
    parts.append(box(_BUMPER, (half - 0.1, -side + 0.5, sill + 0.1), (half + 0.02, side - 0.5, hood - 0.2)))
    parts.append(box(_BUMPER, (-half - 0.03, -side + 0.05, sill), (-half + 0.1, side - 0.05, sill + 0.2)))
    parts.append(box(_BUMPER, (half - 0.12, -side + 0.06, sill - 0.02), (half + 0.02, side - 0.06, sill + 0.14)))
    parts.append(box(PLATE, (half, -0.26, sill + 0.14), (half + 0.03, 0.26, sill + 0.25)))
    parts.append(box(PLATE, (-half - 0.04, -0.26, sill + 0.28), (-half, 0.26, sill + 0.4)))
    return tuple(parts)


def _rack(side: float, front: float, back: float, height: float) -> Model:
    return tuple(
        tube(
            DARK_METAL,
            (back + 0.1, y * (side - 0.28), height + 0.05),
            (front - 0.1, y * (side - 0.28), height + 0.05),
            0.02,
        )
        for y in (-1, 1)
    )


def bus(palette: Palette) -> Model:
    """Return a city bus with a band of windows, doors on its right side and a lit destination."""
    length, width, height = palette.between(9.5, 12.5), 2.5, palette.between(2.95, 3.25)
    paint, half, side = palette.paint(BUS_COLOURS, gloss=0.08), length / 2, width / 2
    trim = Surface("plain", (palette.pick(((0.93, 0.93, 0.92), (0.2, 0.22, 0.25), (0.95, 0.85, 0.3))),), gloss=0.06)
    sign = Surface("letters", ((0.05, 0.05, 0.05), (1.0, 0.65, 0.1)), (0.5,), glow=0.6)
    body = np.array([(-half, 0.35), (half - 0.06, 0.35), (half, 0.7), (half - 0.12, height), (-half + 0.08, height)])
    window_top, window_low = height - 0.55, 1.15
    parts = [
        extruded(paint, body, side),
        box(trim, (-half - 0.01, -side - 0.012, 0.34), (half - 0.3, side + 0.012, 0.62)),
    ]
    parts.append(box(trim, (-half + 0.3, -side + 0.25, height), (half - 0.8, side - 0.25, height + 0.14)))
    bays = max(round(length / 1.5), 5)
    edges = np.linspace(-half + 0.35, half - 0.45, bays + 1)
    for left, right in pairwise(edges):
        parts.append(box(GLASS, (left + 0.05, -side - 0.015, window_low), (right - 0.05, side + 0.015, window_top)))
    for index in (bays - 1, bays // 2 - 1):
        left, right = edges[index] + 0.1, edges[index + 1] - 0.1
        middle = (left + right) / 2
        parts.append(box(DARK_METAL, (left - 0.04, -side - 0.022, 0.4), (right + 0.04, -side, window_top + 0.05)))
        parts.append(box(GLASS, (left, -side - 0.03, 0.5), (middle - 0.03, -side, window_top)))
        parts.append(box(GLASS, (middle + 0.03, -side - 0.03, 0.5), (right, -side, window_top)))
    parts.append(box(GLASS, (half - 0.2, -side + 0.12, 1.05), (half + 0.005, side - 0.12, window_top + 0.05)))
    parts.append(box(sign, (half - 0.25, -side + 0.35, window_top + 0.1), (half - 0.03, side - 0.35, height - 0.08)))
    parts.append(box(GLASS, (-half - 0.01, -side + 0.35, 1.6), (-half + 0.2, side - 0.35, window_top)))
    for y in (-1, 1):
        inner, outer = sorted((y * (side - 0.4), y * (side - 0.1)))
        parts.append(box(HEADLIGHT, (half - 0.1, inner, 0.6), (half + 0.02, outer, 0.82)))
        parts.append(box(TAIL_LIGHT, (-half - 0.02, inner, 0.8), (-half + 0.1, outer, 1.15)))
        parts.append(
            tube(DARK_METAL, (half - 0.1, y * side, height - 0.5), (half + 0.25, y * (side + 0.2), height - 0.7), 0.03)
        )
        low, high = sorted((y * (side + 0.12), y * (side + 0.3)))
        parts.append(box(DARK_METAL, (half + 0.2, low, height - 1.1), (half + 0.28, high, height - 0.65)))
    parts.append(box(PLATE, (-half - 0.025, -0.26, 0.7), (-half, 0.26, 0.82)))
    axles = (half - 2.6, -half + 2.9)
    parts += [disc(_BUMPER, (x, 0, 0.5), 0.6, side + 0.008, sides=20) for x in axles]
    return (*parts, *wheels(axles, side + 0.02, 0.48, 0.3))


def truck(palette: Palette) -> Model:
    """Return a lorry: cab and box, cab and tipper, or a pick-up sized flatbed with sides."""
    kind = palette.index((0.6, 0.25, 0.15))
    length, width = palette.between(6.2, 8.8), palette.between(2.25, 2.5)
    half, side, cab_height = length / 2, width / 2, palette.between(2.3, 2.75)
    paint = palette.paint(TRUCK_COLOURS, gloss=0.1)
    cab_back = half - 1.75
    load_low, load_high = 1.0, palette.between(2.9, 3.5)
    parts = list(_cab(paint, half, side, cab_height))
    parts.append(box(DARK_METAL, (-half, -0.45, 0.55), (cab_back, 0.45, 0.95)))
    if kind == 0:
        cargo = Surface("panels", (palette.pick(_CARGO, 0.04), palette.pick(TRUCK_COLOURS)), (1.2, 1.0), intensity=0.4)
        parts.append(box(cargo, (-half, -side, load_low), (cab_back - 0.15, side, load_high)))
        parts.append(box(STEEL, (-half - 0.02, -0.03, load_low + 0.1), (-half, 0.03, load_high - 0.1)))
    else:
        steel = Surface("panels", (paint.colours[0], palette.pick(TRUCK_COLOURS)), (0.9, 0.0), intensity=0.25)
        wall = 1.9 if kind == 1 else 1.5
        load = Surface("dirt", ((0.45, 0.36, 0.26), (0.33, 0.27, 0.2)), intensity=0.15)
        parts.append(box(DARK_METAL, (-half, -side, load_low - 0.1), (cab_back - 0.2, side, load_low + 0.05)))
        for y in (-1, 1):
            low, high = sorted((y * side, y * (side - 0.08)))
            parts.append(box(steel, (-half, low, load_low), (cab_back - 0.2, high, wall)))
        parts.append(box(steel, (cab_back - 0.3, -side, load_low), (cab_back - 0.2, side, wall + 0.35)))
        parts.append(box(steel, (-half, -side, load_low), (-half + 0.08, side, wall)))
        parts.append(
            box(load, (-half + 0.2, -side + 0.1, load_low), (cab_back - 0.4, side - 0.1, wall + 0.3), (0.6, 0.5))
        )
    parts += _rear_lights(-half, side, 0.78)
    rear = (-half + 1.3, -half + 2.4) if length > 7.4 else (-half + 1.5,)
    return (*parts, *wheels((half - 1.0, *rear), side, 0.46, 0.3))


def _cab(paint: Surface, half: float, side: float, height: float) -> Model:
    back = half - 1.75
    side_view = np.array(
        [(back, 0.55), (half, 0.55), (half, 1.3), (half - 0.22, height - 0.1), (half - 0.4, height), (back, height)]
    )
    parts = [extruded(paint, side_view, side - 0.03, tuck=0.06)]
    screen = np.array(
        [(half - 0.035, 1.38), (half + 0.012, 1.38), (half - 0.19, height - 0.2), (half - 0.25, height - 0.2)]
    )
    parts.append(extruded(GLASS, screen, side - 0.16))
    parts.append(box(GLASS, (half - 1.25, -side + 0.005, 1.4), (half - 0.35, side - 0.005, height - 0.3), (0.8, 0.985)))
    parts.append(box(_BUMPER, (half - 0.15, -side, 0.4), (half + 0.08, side, 0.78)))
    parts.append(box(_BUMPER, (half - 0.1, -side + 0.4, 0.85), (half + 0.02, side - 0.4, 1.25)))
    for y in (-1, 1):
        inner, outer = sorted((y * (side - 0.42), y * (side - 0.1)))
        parts.append(box(HEADLIGHT, (half, inner, 0.5), (half + 0.1, outer, 0.7)))
        low, high = sorted((y * (side + 0.02), y * (side + 0.22)))
        parts.append(box(_BUMPER, (half - 0.25, low, 1.5), (half - 0.17, high, 2.05)))
        parts.append(
            tube(DARK_METAL, (back + 0.2, y * (side - 0.05), 0.55), (back + 0.2, y * (side - 0.05), 0.9), 0.3, sides=12)
        )
    parts.append(box(PLATE, (half + 0.07, -0.26, 0.52), (half + 0.1, 0.26, 0.64)))
    return tuple(parts)


def _rear_lights(x: float, side: float, z: float) -> list[Patch]:
    parts = [box(_BUMPER, (x - 0.05, -side + 0.1, z - 0.2), (x + 0.05, side - 0.1, z - 0.05))]
    for y in (-1, 1):
        inner, outer = sorted((y * (side - 0.45), y * (side - 0.08)))
        parts.append(box(TAIL_LIGHT, (x - 0.06, inner, z - 0.05), (x + 0.03, outer, z + 0.12)))
    parts.append(box(PLATE, (x - 0.07, -0.26, z - 0.18), (x - 0.04, 0.26, z - 0.06)))
    return parts


def trailer(palette: Palette) -> Model:
    """Return a trailer with no cab: a box or a loaded flatbed on wheels, with a drawbar and a jockey wheel."""
    flatbed = palette.chance(0.45)
    length, width = palette.between(4.2, 7.0), palette.between(2.1, 2.45)
    half, side = length / 2, width / 2
    front, deck = half - 1.5, 0.85
    frame = Surface("plain", (palette.near((0.25, 0.27, 0.3)),), intensity=0.15)
    parts = [box(frame, (-half, -side, deck - 0.18), (front, side, deck))]
    if flatbed:
        plank = Surface("planks", ((0.55, 0.42, 0.28), (0.42, 0.31, 0.2)), (0.2,), intensity=0.2)
        parts.append(box(plank, (-half, -side, deck), (front, side, deck + 0.06)))
        bale = Surface("planks", (palette.pick(((0.7, 0.55, 0.35), (0.6, 0.62, 0.64))), (0.4, 0.32, 0.24)), (0.12,))
        for x in np.arange(-half + 0.3, front - 0.9, 1.15):
            if palette.chance(0.75):
                parts.append(
                    box(bale, (x, -side + 0.3, deck + 0.1), (x + 1.0, side - 0.3, deck + palette.between(0.6, 1.2)))
                )
        parts += [
            tube(frame, (-half + 0.05, y * (side - 0.05), deck), (-half + 0.05, y * (side - 0.05), deck + 0.9), 0.035)
            for y in (-1, 1)
        ]
        parts.append(box(plank, (front - 0.08, -side, deck), (front, side, deck + 0.9)))
    else:
        panel = Surface("panels", (palette.pick(_CARGO, 0.04), palette.pick(TRUCK_COLOURS)), (0.8, 1.0), intensity=0.4)
        parts.append(box(panel, (-half, -side, deck), (front, side, palette.between(2.2, 2.9))))
        parts.append(box(STEEL, (-half - 0.02, -0.03, deck + 0.1), (-half, 0.03, 2.0)))
    for y in (-1, 1):
        parts.append(tube(frame, (front - 0.2, y * side * 0.8, deck - 0.15), (half - 0.15, 0, 0.55), 0.06, sides=6))
        parts.append(
            box(
                _BUMPER,
                (-half * 0.55 - 0.75, y * (side + 0.12) - 0.13, 0.8),
                (-half * 0.55 + 0.75, y * (side + 0.12) + 0.13, 0.88),
            )
        )
    parts.append(tube(STEEL, (half - 0.3, 0, 0.55), (half, 0, 0.55), 0.07))
    parts.append(tube(STEEL, (half - 0.55, 0, 0.12), (half - 0.55, 0, 0.85), 0.04))
    parts.append(disc(RUBBER, (half - 0.55, 0, 0.13), 0.13, 0.05, sides=10))
    parts += _rear_lights(-half, side, deck - 0.15)
    axle = -half * 0.55 if length < 5.5 else -half * 0.4
    pairs = (axle,) if length < 5.0 else (axle - 0.42, axle + 0.42)
    return (*parts, *wheels(pairs, side + 0.2, 0.38, 0.24))

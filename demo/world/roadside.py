"""Things beyond the kerb: trees, lamps, signs, people on the sidewalk, front gardens, buildings."""

import math

import numpy as np

from demo.world.buildings import (
    backdrop,
    bin_,
    building,
    fence,
    sign,
    street_lamp,
    traffic_light,
    wall,
)
from demo.world.cycles import bicycle
from demo.world.kerbside import Kerb
from demo.world.mesh import Surface
from demo.world.people import pedestrian
from demo.world.plants import bush, foliage, hedge, tree
from demo.world.roadworks import barrier, traffic_cone
from demo.world.scene import Motion

_GROUND_M = 0.14


def plant_kerb(kerb: Kerb) -> None:
    """Put lamps, trees, signs and bins along the inner edge of a sidewalk."""
    street, palette, roster = kerb.street, kerb.palette, kerb.roster
    inner, _ = street.walk_edges(kerb.side)
    verge = street.verge[(kerb.side + 1) // 2]
    t = kerb.side * (inner - verge / 2 if verge else inner + 0.35)
    facing = 0.0 if kerb.side > 0 else math.pi
    for s in np.arange(-95, 150, 7.0) + palette.between(0, 5):
        if street.in_junction(s, 3.5):
            continue
        slot = palette.index((0.36, 0.27, 0.1, 0.1, 0.17) if verge else (0.2, 0.3, 0.14, 0.14, 0.22))
        roster.take(s, t, 0.5)
        if slot == 0:
            roster.add(tree(palette), "vegetation", Motion(s, t, _GROUND_M, palette.between(0, 6.3)), "tree")
        elif slot == 1:
            roster.add(street_lamp(palette), "manmade", Motion(s, t, _GROUND_M, facing), "lamp")
        elif slot == 2:
            roster.add(sign(palette), "manmade", Motion(s, t, _GROUND_M, kerb.along), "sign")
        elif slot == 3:
            roster.add(bin_(palette), "manmade", Motion(s, t, _GROUND_M), "bin")
    if street.junction:
        for s in (street.junction[0] - 2.2, street.junction[1] + 2.2):
            t = kerb.side * (street.half + 0.7)
            roster.take(s, t, 0.5)
            roster.add(traffic_light(palette), "manmade", Motion(s, t, _GROUND_M, kerb.along), "signal")


def people_walk(kerb: Kerb, count: int) -> None:
    """Put people, some with bicycles, on a sidewalk; most of them walk along it."""
    palette, roster = kerb.palette, kerb.roster
    inner, outer = kerb.street.walk_edges(kerb.side)
    for _ in range(count):
        s, t = palette.between(-32, 62), kerb.side * palette.between(inner + 0.7, outer - 0.4)
        if kerb.street.in_junction(s, 1) or not roster.is_free(s, t, 0.7):
            continue
        roster.take(s, t, 0.7)
        child, ahead = palette.chance(0.14), palette.chance(0.5)
        walks = palette.chance(0.7)
        speed = palette.between(0.9, 1.6) * (1 if ahead else -1) if walks else 0.0
        yaw = (0.0 if ahead else math.pi) if walks else palette.between(0, 6.3)
        category = "human.pedestrian.child" if child else ""
        motion = Motion(s, t, _GROUND_M, yaw, speed)
        roster.add(pedestrian(palette, walks, child=child), "pedestrian", motion, category=category)
    for _ in range(4):
        s, t = palette.between(-25, 55), kerb.side * (inner + 0.55)
        if not kerb.street.in_junction(s, 2) and roster.is_free(s, t, 0.9):
            roster.take(s, t, 0.9)
            roster.add(bicycle(palette), "bicycle", Motion(s, t, _GROUND_M, palette.between(-0.25, 0.25) + kerb.along))


def clutter(kerb: Kerb, count: int) -> None:
    """Scatter cones, barriers and bushes along the edge of a sidewalk."""
    palette, roster = kerb.palette, kerb.roster
    inner, _ = kerb.street.walk_edges(kerb.side)
    for _ in range(count):
        s, t = palette.between(-28, 55), kerb.side * (inner + palette.between(0.3, 0.9))
        if kerb.street.in_junction(s, 2) or not roster.is_free(s, t, 1.0):
            continue
        roster.take(s, t, 1.0)
        kind = palette.index((0.45, 0.35, 0.2))
        if kind == 0:
            roster.add(traffic_cone(palette), "traffic_cone", Motion(s, t, _GROUND_M))
        elif kind == 1:
            roster.add(
                barrier(palette, palette.index((1, 1, 1))),
                "barrier",
                Motion(s, t, _GROUND_M, palette.between(-0.2, 0.2)),
            )
        else:
            roster.add(bush(palette), "vegetation", Motion(s, t, 0.1, palette.between(0, 6.3)), "bush")


def build_lots(kerb: Kerb, lit: float) -> None:
    """Fill a side of the street with lots: each has a building, and a front garden unless the yard is a plaza."""
    street, palette, roster, side = kerb.street, kerb.palette, kerb.roster, kerb.side
    _, outer = street.walk_edges(side)
    plaza = street.yards[(side + 1) // 2] == "plaza"
    setback = palette.between(0.0, 0.8) if plaza else palette.between(4.5, 8.0)
    facing = 0.0 if side > 0 else math.pi
    tall = palette.chance(0.75 if plaza else 0.3)
    leaves = foliage(palette)
    s = -120.0
    while s < 170:
        length, depth = palette.between(10, 19), palette.between(9, 13)
        if street.junction and street.in_junction(s + length / 2, 4 + length / 2):
            s = street.junction[1] + 4.5
            continue
        middle = s + length / 2
        if plaza or palette.chance(0.85):
            model = building(palette, length, depth, tall, lit)
            motion = Motion(middle, side * (outer + setback + depth / 2), 0.12, facing)
            roster.add(model, "manmade", motion, "building")
        if not plaza:
            _front_garden(kerb, middle, length, outer, setback, leaves)
        s += length + (palette.between(0.0, 0.3) if plaza and palette.chance(0.7) else palette.between(2.0, 6.0))
    for s in np.arange(-115, 165, 11.0):
        t = side * (outer + setback + palette.between(17, 30))
        if not street.in_junction(s, 4):
            roster.add(
                tree(palette), "vegetation", Motion(s + palette.between(-3, 3), t, 0.1, palette.between(0, 6.3)), "tree"
            )


def _front_garden(kerb: Kerb, middle: float, length: float, outer: float, setback: float, leaves: Surface) -> None:
    palette, roster, side = kerb.palette, kerb.roster, kerb.side
    edge, facing = side * (outer + 0.45), 0.0 if side > 0 else math.pi
    border = palette.index((0.45, 0.15, 0.15, 0.25))
    motion = Motion(middle, edge, 0.14, facing)
    if border == 0:
        roster.add(hedge(palette, length * 0.9, leaves), "vegetation", motion, "hedge")
    elif border == 1:
        roster.add(wall(palette, length, palette.between(0.8, 1.6)), "manmade", motion, "wall")
    elif border == 2:
        roster.add(fence(palette, length), "manmade", motion, "fence")
    for _ in range(2):
        s, t = (
            middle + palette.between(-length / 2, length / 2),
            side * (outer + palette.between(1.6, max(setback - 1.2, 1.7))),
        )
        if roster.is_free(s, t, 1.0):
            roster.take(s, t, 1.0)
            plant, name = (bush(palette), "bush") if palette.chance(0.6) else (tree(palette), "tree")
            roster.add(plant, "vegetation", Motion(s, t, 0.12, palette.between(0, 6.3)), name)


def close_views(kerb: Kerb, lit: float) -> None:
    """Close the far ends of the street, and of the side street on this side, with blocks and trees."""
    street, palette, roster, side = kerb.street, kerb.palette, kerb.roster, kerb.side
    s = 182.0 if side > 0 else -132.0
    for t in (-34.0, 0.0, 34.0):
        roster.add(backdrop(palette, 33.0, lit), "manmade", Motion(s, t, 0.0, math.pi / 2 * -side), "backdrop")
    for t in np.arange(-48, 49, 9.0):
        if abs(t) > street.half + 2:
            roster.add(tree(palette), "vegetation", Motion(s - 14 * side, t, 0.1), "tree")
    if street.junction:
        middle = sum(street.junction) / 2
        roster.add(
            backdrop(palette, 40.0, lit),
            "manmade",
            Motion(middle, side * 85.0, 0.0, 0.0 if side > 0 else math.pi),
            "backdrop",
        )

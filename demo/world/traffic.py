"""Moving traffic, and people who cross the street."""

import math
from collections.abc import Callable

from demo.world.cycles import bicycle, motorcycle
from demo.world.mesh import Model
from demo.world.palette import Palette
from demo.world.people import pedestrian
from demo.world.roster import Roster
from demo.world.scene import Ego, Motion
from demo.world.street import ZEBRA_M, Street
from demo.world.vehicles import bus, car, truck

_KINDS: tuple[tuple[str, Callable[[Palette], Model], float, float], ...] = (
    ("car", car, 0.56, 5.0),
    ("truck", truck, 0.08, 9.0),
    ("bus", bus, 0.06, 13.0),
    ("motorcycle", lambda palette: motorcycle(palette, True), 0.15, 2.5),
    ("bicycle", lambda palette: bicycle(palette, True), 0.15, 2.0),
)
"""Class, builder, weight, length in metres."""


def drive(street: Street, palette: Palette, roster: Roster, ego: Ego) -> None:
    """Fill all lanes with vehicles; those of a lane have one speed, so that they never collide."""
    for side in (-1, 1):
        for lane in range(street.lanes):
            t = side * street.lane(lane)
            own = math.isclose(t, ego.lane_t)
            speed = ego.speed if own else palette.between(6, 11) * -side
            _fill_lane(street, palette, roster, (t, speed, 0.0 if side < 0 else math.pi), own)


def _fill_lane(street: Street, palette: Palette, roster: Roster, lane: tuple[float, float, float], own: bool) -> None:
    t, speed, yaw = lane
    dense = 0.6 if own else 1.0
    s = -55.0
    while s < 120:
        name, build, _, length = _KINDS[palette.index([kind[2] for kind in _KINDS])]
        middle = s + length / 2
        if not (own and -length / 2 - 7 < middle < length / 2 + 11):
            roster.add(build(palette), name, Motion(middle, t + palette.between(-0.25, 0.25), 0.0, yaw, speed))
        s += length + palette.between(7, 26 - 8 * palette.difficulty) / dense


def cross(street: Street, palette: Palette, roster: Roster, count: int) -> None:
    """Put people on the nearest zebra crossing ahead of the recording car."""
    low = ZEBRA_M[0] + 0.2 if street.junction is None else street.junction[0] - 6.8
    for _ in range(count):
        t, leftward = palette.between(-street.half, street.half), palette.chance(0.5)
        if abs(t) < street.gap * 0.9 or not roster.is_free(low + 1.5, t, 0.9):
            continue
        roster.take(low + 1.5, t, 0.6)
        yaw = math.pi / 2 if leftward else -math.pi / 2
        drift = palette.between(0.8, 1.5) * (1 if leftward else -1)
        motion = Motion(low + palette.between(0.2, 3.0), t, 0.0, yaw, drift=drift)
        roster.add(pedestrian(palette), "pedestrian", motion)

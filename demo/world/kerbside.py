"""Things along the kerb: parked vehicles, a bus stop, bicycles, and a building site."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from demo.world.buildings import shelter
from demo.world.cycles import bicycle, motorcycle
from demo.world.machines import construction_vehicle
from demo.world.mesh import Model
from demo.world.palette import Palette
from demo.world.people import pedestrian
from demo.world.roadworks import barrier, traffic_cone
from demo.world.roster import Roster
from demo.world.scene import Motion
from demo.world.street import Street
from demo.world.vehicles import bus, car, trailer, truck

MUST_BE_SEEN_M = (-16.0, 62.0)


@dataclass(frozen=True)
class Kerb:
    """One side of the street to be filled: side -1 is right, 1 is left."""

    street: Street
    palette: Palette
    roster: Roster
    side: int

    @property
    def along(self) -> float:
        """Yaw of a vehicle parked in driving direction on this side, radians."""
        return 0.0 if self.side < 0 else math.pi

    def at(self, s: float, out: float = 0.0, yaw: float = 0.0, z: float = 0.0) -> Motion:
        """Return a place `out` metres outward from the middle of the parking lane."""
        return Motion(s, self.side * (self.street.parking + out), z, self.along + yaw)


def fill_kerb(kerb: Kerb, wanted: list[str]) -> None:
    """Park the `wanted` kinds where the recording car passes, and random kinds along the rest of the street."""
    palette, free, queue = kerb.palette, kerb.street.no_parking, list(wanted)
    s = -75.0
    while s < 130:
        end = free[0] if s < free[1] - 0.1 else 130.0
        here = MUST_BE_SEEN_M[0] < s
        fitting = [kind for kind in queue if s + LENGTHS_M[kind] < end] if here else []
        kind = fitting[0] if fitting else _USUAL[palette.index(_WEIGHTS)]
        if s + LENGTHS_M[kind] > end:
            s = free[1] if end < 130 else 130.0
            continue
        if fitting:
            queue.remove(kind)
        PARK[kind](kerb, s + LENGTHS_M[kind] / 2)
        s += LENGTHS_M[kind] + palette.between(0.4, 1.6) / (1 + palette.difficulty)


def _vehicle(build: Callable[[Palette], Model], name: str) -> Callable[[Kerb, float], None]:
    def park(kerb: Kerb, s: float) -> None:
        turned = math.pi if kerb.palette.chance(0.08) else 0.0
        kerb.roster.add(
            build(kerb.palette),
            name,
            kerb.at(s, kerb.palette.between(-0.1, 0.15), turned + kerb.palette.between(-0.03, 0.03)),
        )

    return park


def _bus_stop(kerb: Kerb, s: float) -> None:
    kerb.roster.add(bus(kerb.palette), "bus", kerb.at(s, -0.1))
    inner, outer = kerb.street.walk_edges(kerb.side)
    t = kerb.side * (outer - 0.9)
    facing = 0.0 if kerb.side > 0 else math.pi
    kerb.roster.add(shelter(kerb.palette), "manmade", Motion(s + 3, t, 0.14, facing), "shelter")
    kerb.roster.take(s + 3, t, 2.4)
    for _ in range(3):
        spot = s + kerb.palette.between(-3, 6), kerb.side * (inner + kerb.palette.between(0.2, 1.0))
        if kerb.roster.is_free(*spot, 0.45):
            kerb.roster.take(*spot, 0.45)
            kerb.roster.add(
                pedestrian(kerb.palette, False), "pedestrian", Motion(*spot, 0.14, kerb.palette.between(0, 6.3))
            )


def _motorcycles(kerb: Kerb, s: float) -> None:
    for offset in np.arange(-1.5, 1.6, 1.5):
        motion = kerb.at(s + offset, 0.1, math.pi / 2 * kerb.side + kerb.palette.between(-0.35, 0.35))
        kerb.roster.add(motorcycle(kerb.palette), "motorcycle", motion)


def _bicycles(kerb: Kerb, s: float) -> None:
    for offset in np.arange(-1.8, 1.9, 0.9):
        motion = kerb.at(s + offset, 0.2, kerb.palette.between(0.4, 0.9) * kerb.side)
        kerb.roster.add(bicycle(kerb.palette), "bicycle", motion)


def _gap(kerb: Kerb, s: float) -> None:
    """Leave the place empty."""


def _site(kerb: Kerb, s: float) -> None:
    """Add a building site: a machine behind barriers, a row of cones, two workers."""
    palette, roster = kerb.palette, kerb.roster
    yaw = palette.between(-0.35, 0.35) + (math.pi if palette.chance(0.4) else 0.0)
    roster.add(construction_vehicle(palette), "construction_vehicle", kerb.at(s + 1.5, 0.35, yaw))
    kind = palette.index((0.45, 0.3, 0.25))
    pitch = 2.1 if kind < 2 else 1.55
    for offset in np.arange(-6.5, 8.0, pitch):
        roster.add(barrier(palette, kind), "barrier", kerb.at(s + offset, -1.65, palette.between(-0.04, 0.04)))
    for end, other in ((-8.2, palette.index((1, 1, 1))), (8.6, kind)):
        roster.add(barrier(palette, other), "barrier", kerb.at(s + end, -0.4, math.pi / 2 + palette.between(-0.2, 0.2)))
    for index, offset in enumerate(np.linspace(-9.8, -14.5, 5)):
        roster.add(
            traffic_cone(palette),
            "traffic_cone",
            kerb.at(s + offset * (1 if kerb.side < 0 else -1), -1.3 + 0.5 * index),
        )
    for offset in (-5.0, 7.4):
        roster.add(traffic_cone(palette), "traffic_cone", kerb.at(s + offset, -0.9))
    for offset in (-5.9, -4.3):
        worker = pedestrian(palette, palette.chance(0.4), worker=True)
        motion = kerb.at(s + offset, palette.between(-0.6, 0.8), palette.between(0, 6.3))
        roster.add(worker, "pedestrian", motion, "worker", "human.pedestrian.construction_worker")


LENGTHS_M = {
    "car": 5.4,
    "truck": 9.4,
    "trailer": 7.6,
    "bus": 13.4,
    "motorcycles": 4.6,
    "bicycles": 5.2,
    "gap": 4.0,
    "site": 31.0,
}
_USUAL = ("car", "truck", "trailer", "bus", "motorcycles", "bicycles", "gap")
_WEIGHTS = (0.42, 0.04, 0.04, 0.03, 0.06, 0.06, 0.35)
PARK: dict[str, Callable[[Kerb, float], None]] = {
    "car": _vehicle(car, "car"),
    "truck": _vehicle(truck, "truck"),
    "trailer": _vehicle(trailer, "trailer"),
    "bus": _bus_stop,
    "motorcycles": _motorcycles,
    "bicycles": _bicycles,
    "gap": _gap,
    "site": _site,
}

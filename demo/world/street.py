"""Coordinates along a street: `s` metres along its middle line, `t` metres to the left of it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

LANE_M = 3.5
PARKING_M = 2.7
KERB_M = 0.15
ZEBRA_M = (12.0, 15.5)
"""Range of s of the zebra crossing in a street without a junction."""


@dataclass(frozen=True)
class Street:
    """The plan of one street.

    Attributes:
        heading: direction of the middle line at s = 0, radians.
        curvature: curvature of the middle line, 1/m; positive to the left.
        gap: half the distance between the two directions of traffic, metres.
        lanes: number of lanes in each direction.
        verge: width of the strip between kerb and sidewalk (right, left), metres; 0 for none.
        walk: width of the sidewalks, metres.
        junction: where a side street crosses, (from s, to s), or None.
        median: whether the whole gap is a raised median.
        islands: stretches (from s, to s) of the gap that are raised.
        yards: ground behind the sidewalks (right, left): lawn, dirt or plaza.
    """

    heading: float
    curvature: float
    gap: float
    lanes: int
    verge: tuple[float, float]
    walk: float
    junction: tuple[float, float] | None
    median: bool
    islands: tuple[tuple[float, float], ...]
    yards: tuple[str, str]

    @property
    def half(self) -> float:
        """Half the width of the road between the kerbs."""
        return self.gap + self.lanes * LANE_M + PARKING_M

    @property
    def parking(self) -> float:
        """Distance of the middle of the parking lanes from the middle line."""
        return self.half - PARKING_M / 2

    def lane(self, index: int) -> float:
        """Return the distance of a lane's middle from the middle line; 0 is the inner lane."""
        return self.gap + LANE_M * (index + 0.5)

    def walk_edges(self, side: int) -> tuple[float, float]:
        """Return where the sidewalk of a side (-1 right, 1 left) begins and ends, as distances."""
        inner = self.half + KERB_M + self.verge[(side + 1) // 2]
        return inner, inner + self.walk

    def yaw(self, s: ArrayLike) -> NDArray[np.float64]:
        """Return the direction of the middle line at `s`."""
        return self.heading + self.curvature * np.asarray(s, np.float64)

    def xy(self, s: ArrayLike, t: ArrayLike) -> NDArray[np.float64]:
        """Return scene coordinates (..., 2) of street coordinates."""
        s, t = np.broadcast_arrays(np.asarray(s, np.float64), np.asarray(t, np.float64))
        half_turn = self.curvature * s / 2
        reach = s * np.sinc(half_turn / np.pi)
        middle, yaw = self.heading + half_turn, self.yaw(s)
        x = reach * np.cos(middle) - t * np.sin(yaw)
        return np.stack([x, reach * np.sin(middle) + t * np.cos(yaw)], axis=-1)

    @property
    def no_parking(self) -> tuple[float, float]:
        """Range of s where nothing is parked: around the junction, otherwise around the zebra crossing."""
        return (self.junction[0] - 9, self.junction[1] + 9.5) if self.junction else (ZEBRA_M[0] - 1.5, ZEBRA_M[1] + 1.5)

    def in_junction(self, s: float, margin: float = 0.0) -> bool:
        """Return whether `s` lies in the side street, widened by `margin` metres."""
        return self.junction is not None and self.junction[0] - margin < s < self.junction[1] + margin

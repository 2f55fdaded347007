"""The things placed in a scene so far, with their classes and categories, and the ground that they occupy."""

from dataclasses import dataclass, field

import numpy as np

from cache_schemas.taxonomy import load_taxonomy
from demo.world.mesh import Model
from demo.world.scene import Motion, Thing

CLASS_IDS = {name: index for index, name in enumerate(load_taxonomy("nuscenes16").names)}
CATEGORY_OF_CLASS = {
    "barrier": "movable_object.barrier",
    "bicycle": "vehicle.bicycle",
    "bus": "vehicle.bus.rigid",
    "car": "vehicle.car",
    "construction_vehicle": "vehicle.construction",
    "motorcycle": "vehicle.motorcycle",
    "pedestrian": "human.pedestrian.adult",
    "traffic_cone": "movable_object.trafficcone",
    "trailer": "vehicle.trailer",
    "truck": "vehicle.truck",
    "driveable_surface": "flat.driveable_surface",
    "other_flat": "flat.other",
    "sidewalk": "flat.sidewalk",
    "terrain": "flat.terrain",
    "manmade": "static.manmade",
    "vegetation": "static.vegetation",
}
STUFF = frozenset({"driveable_surface", "other_flat", "sidewalk", "terrain", "manmade", "vegetation"})


@dataclass
class Roster:
    """Things placed so far, and the circles (s, t, radius) that they occupy."""

    things: list[Thing] = field(default_factory=list)
    _taken: list[tuple[float, float, float]] = field(default_factory=list)

    def add(self, model: Model, class_name: str, motion: Motion, name: str = "", category: str = "") -> None:
        """Add a thing; movable ones get a box."""
        self.things.append(
            Thing(
                model,
                CLASS_IDS[class_name],
                category or CATEGORY_OF_CLASS[class_name],
                motion,
                f"{name or class_name} #{len(self.things)}",
                class_name not in STUFF,
            )
        )

    def is_free(self, s: float, t: float, radius: float) -> bool:
        """Return whether a circle overlaps no occupied one."""
        if not self._taken:
            return True
        taken = np.array(self._taken)
        return bool((np.hypot(taken[:, 0] - s, taken[:, 1] - t) > taken[:, 2] + radius).all())

    def take(self, s: float, t: float, radius: float) -> None:
        """Mark a circle as occupied."""
        self._taken.append((s, t, radius))

"""One street scene from a seed."""

import numpy as np

from demo.world.ground import make_ground
from demo.world.kerbside import Kerb, fill_kerb
from demo.world.lighting import make_mood
from demo.world.palette import Palette
from demo.world.roadside import build_lots, close_views, clutter, people_walk, plant_kerb
from demo.world.roster import Roster
from demo.world.scene import Ego, Motion, Scene
from demo.world.street import Street
from demo.world.traffic import cross, drive


def make_scene(seed: int, difficulty: float = 0.0) -> Scene:
    """Return the scene of a seed; `difficulty` is 0 for typical scenes, 1 for unusual, dark and crowded ones.

    Raises:
        ValueError: if the difficulty is not in 0..1.
    """
    if not 0 <= difficulty <= 1:
        raise ValueError(f"difficulty {difficulty} is not in 0..1")
    palette = Palette(np.random.default_rng([seed, 1]), difficulty)
    street, mood, roster = make_street(palette), make_mood(palette), Roster()
    ego = Ego(-street.lane(street.lanes - 1), palette.between(5.0, 12.0))
    for piece in make_ground(street, palette):
        roster.add(piece.patches, piece.class_name, Motion(0, 0, fixed=True), piece.key)
    _furnish(street, palette, roster, mood.lit)
    drive(street, palette, roster, ego)
    cross(street, palette, roster, int(palette.between(2, 5)))
    origin = (palette.between(600, 1600), palette.between(600, 1800))
    words = f"{mood.name}, {street.lanes} lane(s) each way, {'junction' if street.junction else 'no junction'}"
    return Scene(seed, street, tuple(roster.things), mood, ego, origin, words)


def make_street(palette: Palette) -> Street:
    """Return the plan of a street."""
    junction = None
    if palette.chance(0.6):
        start = palette.between(30, 50)
        junction = (start, start + palette.between(8, 12))
    median = palette.chance(0.5)
    first = palette.between(16.5, 20) if junction is None else junction[1] + 9
    islands = () if median else ((-14.0, palette.between(-4, 4)), (first, first + palette.between(8, 14)))
    right, left = (palette.between(1.6, 2.6) if palette.chance(0.55) else 0.0 for _ in range(2))
    right_yard, left_yard = (("lawn", "dirt", "plaza")[palette.index((0.45, 0.1, 0.45))] for _ in range(2))
    if "plaza" in (right_yard, left_yard) and not (right or left):
        right, left = (2.0, left) if palette.chance(0.5) else (right, 2.0)
    return Street(
        heading=palette.between(-np.pi, np.pi),
        curvature=palette.between(-1 / 220, 1 / 220),
        gap=palette.between(1.0, 1.5),
        lanes=1 if palette.chance(0.6) else 2,
        verge=(right, left),
        walk=palette.between(2.6, 4.2),
        junction=junction,
        median=median,
        islands=islands,
        yards=(right_yard, left_yard),
    )


def _furnish(street: Street, palette: Palette, roster: Roster, lit: float) -> None:
    small = [("trailer", "motorcycles", "bicycles")[index] for index in palette.rng.permutation(3)]
    sides = [["site", *small[:2]], ["truck", "bus", small[2], "car", "car"]]
    if palette.chance(0.35):
        sides.reverse()
    for index, side in enumerate((-1, 1)):
        kerb = Kerb(street, palette, roster, side)
        wanted = [sides[index][item] for item in palette.rng.permutation(len(sides[index]))]
        fill_kerb(kerb, wanted)
        plant_kerb(kerb)
        people_walk(kerb, int(palette.between(7, 13) * (1 + palette.difficulty)))
        clutter(kerb, int(4 + 14 * palette.difficulty))
        build_lots(kerb, lit)
        close_views(kerb, lit)

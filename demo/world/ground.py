"""The ground of a street: road, median, kerbs, verges, sidewalks, yards, and paint on the road."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demo.world.mesh import Patch, Surface, quads, scaled
from demo.world.palette import Palette
from demo.world.street import KERB_M, LANE_M, PARKING_M, ZEBRA_M, Street

Floats = NDArray[np.float64]

REACH_M = (-170.0, 230.0)
SIDE_M = 110.0
PAINT_M = 0.012
_HEIGHTS = {"road": 0.0, "median": 0.16, "kerb": 0.14, "verge": 0.13, "walk": 0.14, "yard": 0.15}


@dataclass(frozen=True)
class Ground:
    """A piece of ground in scene coordinates; `key` identifies its segment."""

    patches: tuple[Patch, ...]
    class_name: str
    key: str


def make_ground(street: Street, palette: Palette) -> list[Ground]:
    """Return the whole ground of a street."""
    looks = _looks(palette, street)
    s_edges, t_edges = _edges(street)
    s_mid, t_mid = (s_edges[1:] + s_edges[:-1]) / 2, (t_edges[1:] + t_edges[:-1]) / 2
    kinds = np.array([[_kind(street, s, t) for t in t_mid] for s in s_mid])
    keys = np.array(
        [
            [_key(street, kind, s, t) for kind, t in zip(row, t_mid, strict=True)]
            for row, s in zip(kinds, s_mid, strict=True)
        ]
    )
    heights = np.vectorize(_HEIGHTS.get)(kinds).astype(float)
    pieces: dict[str, list[Patch]] = {}
    for key in dict.fromkeys(keys.ravel().tolist()):
        here = keys == key
        for kind in dict.fromkeys(kinds[here].tolist()):
            cells = np.argwhere(here & (kinds == kind))
            corners = _tops(cells, s_edges, t_edges, heights)
            look = looks[f"{kind} {'left' if 'left' in key else 'right'}"]
            pieces.setdefault(key, []).append(_in_scene(street, corners, look))
            if len(walls := _walls(cells, s_edges, t_edges, heights)):
                pieces[key].append(_in_scene(street, walls, looks["kerb right"] if kind != "median" else looks["edge"]))
    pieces["road"] += paint(street, palette)
    return [Ground(tuple(patches), _class_of(key, street), key) for key, patches in pieces.items()]


def _looks(palette: Palette, street: Street) -> dict[str, Surface]:
    hard = palette.difficulty
    grey = palette.near((0.38, 0.38, 0.39), 0.03)
    stone = palette.near((0.62, 0.6, 0.57), 0.04)
    if palette.chance(0.5 * hard):
        grey, stone = stone, grey
    road = Surface("asphalt", (grey, scaled(grey, 0.75)), (palette.between(0.5, 1.0),), intensity=0.07)
    walk = Surface("slabs", (stone, scaled(stone, 0.62)), (palette.between(0.45, 0.8),), intensity=0.16)
    kerb = Surface("concrete", (scaled(stone, 1.12), stone), (1.0,), intensity=0.22)
    brick = palette.near((0.6, 0.3, 0.22) if palette.chance(0.6) else (0.72, 0.56, 0.32), 0.04)
    median = Surface("pavers", (brick, scaled(brick, 0.55)), (0.2,), intensity=0.2)
    edge = Surface("bars", ((0.95, 0.8, 0.1), (0.12, 0.12, 0.12)), (0.8,), intensity=0.4)
    green = palette.pick(((0.3, 0.45, 0.14), (0.36, 0.48, 0.18), (0.42, 0.47, 0.2)), 0.03)
    grass = Surface("grass", (green, (0.45, 0.36, 0.24), scaled(green, 0.5)), (0.35,), intensity=0.22)
    bare = palette.near((0.52, 0.41, 0.28), 0.03)
    dirt = Surface("dirt", (bare, scaled(bare, 0.72)), (1.0,), intensity=0.18)
    looks = {"edge": edge}
    for side, name in ((-1, "right"), (1, "left")):
        yard = street.yards[(side + 1) // 2]
        looks |= {
            f"{kind} {name}": look
            for kind, look in (("road", road), ("median", median), ("kerb", kerb), ("verge", grass), ("walk", walk))
        }
        looks[f"yard {name}"] = {"lawn": grass, "dirt": dirt, "plaza": walk}[yard]
    return looks


def _edges(street: Street) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    s_edges = set(np.arange(REACH_M[0], REACH_M[1] + 1, 5.0).tolist())
    if street.junction:
        low, high = street.junction
        s_edges |= {low, high, low - KERB_M, high + KERB_M, low - 3, high + 3, low - 9, high + 9}
    for low, high in street.islands:
        s_edges |= {low, high}
    t_edges = {-SIDE_M, SIDE_M, -0.001 - street.gap * 0.85, street.gap * 0.85, 0.0}
    for side in (-1, 1):
        inner, outer = street.walk_edges(side)
        t_edges |= {side * value for value in (street.half, street.half + KERB_M, inner, outer, 40.0, 70.0)}
    return np.array(sorted(s_edges)), np.array(sorted(t_edges))


def _kind(street: Street, s: float, t: float) -> str:
    distance, side = abs(t), 1 if t > 0 else -1
    inner, outer = street.walk_edges(side)
    if street.in_junction(s):
        return "road"
    if distance < street.half:
        raised = (street.median and not street.in_junction(s, 9)) or any(a < s < b for a, b in street.islands)
        return "median" if raised and distance < street.gap * 0.85 else "road"
    if distance < street.half + KERB_M or (street.in_junction(s, KERB_M) and distance > street.half):
        return "kerb"
    if inner < distance < outer or street.in_junction(s, 3):
        return "walk"
    return "verge" if distance < inner else "yard"


def _key(street: Street, kind: str, s: float, t: float) -> str:
    if kind == "road":
        return "road"
    side = "left" if t > 0 else "right"
    part = 0 if street.junction is None or s < street.junction[0] else 1
    if kind == "median":
        island = next((index for index, (a, b) in enumerate(street.islands) if a < s < b), part)
        return f"median {island}"
    plaza = street.yards[0 if t < 0 else 1] == "plaza"
    name = "walk" if kind in ("kerb", "walk") or (kind == "yard" and plaza) else kind
    return f"{name} {side} {part}"


def _class_of(key: str, street: Street) -> str:
    kind = key.split()[0]
    return {"road": "driveable_surface", "median": "other_flat", "walk": "sidewalk"}.get(kind, "terrain")


def _tops(cells: NDArray[np.int64], s_edges: Floats, t_edges: Floats, heights: Floats) -> NDArray[np.float64]:
    """Return the tops (Q, 4, 3) of grid cells (Q, 2) in street coordinates."""
    i, j = cells.T
    z = heights[i, j]
    s0, s1, t0, t1 = s_edges[i], s_edges[i + 1], t_edges[j], t_edges[j + 1]
    corners = [(s0, t0, z), (s1, t0, z), (s1, t1, z), (s0, t1, z)]
    return np.stack([np.stack(corner, axis=-1) for corner in corners], axis=1)


def _walls(cells: NDArray[np.int64], s_edges: Floats, t_edges: Floats, heights: Floats) -> NDArray[np.float64]:
    """Return the vertical sides (Q, 4, 3) of cells that are higher than their neighbours."""
    quads_: list[list[tuple[float, float, float]]] = []
    for i, j in cells:
        z = heights[i, j]
        s0, s1, t0, t1 = s_edges[i], s_edges[i + 1], t_edges[j], t_edges[j + 1]
        for di, dj, (a, b) in (
            (0, -1, ((s0, t0), (s1, t0))),
            (0, 1, ((s1, t1), (s0, t1))),
            (-1, 0, ((s0, t1), (s0, t0))),
            (1, 0, ((s1, t0), (s1, t1))),
        ):
            k, m = i + di, j + dj
            if 0 <= k < heights.shape[0] and 0 <= m < heights.shape[1] and heights[k, m] < z:
                low = heights[k, m]
                quads_.append([(*a, low), (*b, low), (*b, z), (*a, z)])
    return np.array(quads_).reshape(-1, 4, 3)


def _in_scene(street: Street, corners: NDArray[np.float64], look: Surface) -> Patch:
    """Return quads (Q, 4, 3) of street coordinates in scene coordinates; textures use the street coordinates."""
    xy = street.xy(corners[..., 0], corners[..., 1])
    return quads(np.concatenate([xy, corners[..., 2:]], axis=-1), look, corners)


def paint(street: Street, palette: Palette) -> list[Patch]:
    """Return lane lines, zebra crossings, stop lines and parking bays."""
    white = Surface("paint", (palette.near((0.9, 0.9, 0.88), 0.03), (0.5, 0.5, 0.5)), intensity=0.55)
    middle = white if palette.chance(0.5) else Surface("paint", ((0.93, 0.74, 0.16), (0.5, 0.45, 0.3)), intensity=0.5)
    strips: list[tuple[float, float, float, float]] = []
    for side in (-1, 1):
        edge = side * (street.half - PARKING_M)
        for s in np.arange(*REACH_M, 6.0):
            if street.in_junction(s + 3, 7):
                continue
            strips += [
                (s, s + 3, side * (street.gap + lane * LANE_M) - 0.07, side * (street.gap + lane * LANE_M) + 0.07)
                for lane in range(1, street.lanes)
            ]
            strips.append((s, s + 6, edge - 0.05, edge + 0.05))
            inner, outer = sorted((edge, side * street.half))
            strips.append((s, s + 0.1, inner, outer))
    middles = [
        (s, s + 5, side * street.gap * 0.93 - 0.06, side * street.gap * 0.93 + 0.06)
        for side in (-1, 1)
        for s in np.arange(*REACH_M, 5.0)
        if not street.in_junction(s + 2.5, 9)
    ]
    zebras = (
        [ZEBRA_M]
        if street.junction is None
        else [(street.junction[0] - 7, street.junction[0] - 3.5), (street.junction[1] + 3.5, street.junction[1] + 7)]
    )
    for low, high in zebras:
        strips += [(low, high, t, t + 0.5) for t in np.arange(-street.half + 0.4, street.half - 0.5, 1.0)]
        lane_edge = street.half - PARKING_M
        strips += [(low - 1.6, low - 1.2, -lane_edge, -street.gap), (high + 1.2, high + 1.6, street.gap, lane_edge)]
    if street.junction:
        low, high = street.junction
        for side in (-1, 1):
            t0, t1 = sorted((side * (street.half + 1.5), side * (street.half + 4.5)))
            strips += [(s, s + 0.5, t0, t1) for s in np.arange(low + 0.5, high - 0.5, 1.0)]
    return [_in_scene(street, _strips(rows), look) for rows, look in ((strips, white), (middles, middle)) if rows]


def _strips(rows: list[tuple[float, float, float, float]]) -> NDArray[np.float64]:
    s0, s1, t0, t1 = np.array(rows).T
    z = np.full_like(s0, PAINT_M)
    return np.stack(
        [np.stack(corner, axis=-1) for corner in ((s0, t0, z), (s1, t0, z), (s1, t1, z), (s0, t1, z))], axis=1
    )

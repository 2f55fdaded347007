"""Buildings, walls and street furniture: everything manmade that does not move."""

import numpy as np

from demo.world.mesh import Model, Patch, Surface, quads, scaled
from demo.world.palette import DARK_METAL, GLASS, STEEL, WALLS, Palette
from demo.world.shapes import box, facade_box, tube

_ROOFS = ((0.45, 0.22, 0.16), (0.3, 0.28, 0.28), (0.5, 0.3, 0.22), (0.22, 0.24, 0.28))
_SHOPS = (
    (0.6, 0.12, 0.12),
    (0.12, 0.3, 0.25),
    (0.15, 0.2, 0.4),
    (0.8, 0.65, 0.2),
    (0.25, 0.25, 0.26),
    (0.75, 0.73, 0.7),
)


def building(palette: Palette, length: float, depth: float, tall: bool, lit: float) -> Model:
    """Return a house or a block, its front towards -y, `length` along x; `lit` is the share of lit windows."""
    storeys = int(palette.rng.integers(4, 9)) if tall else int(palette.rng.integers(2, 4))
    storey, base = palette.between(2.9, 3.4), palette.between(3.2, 4.2) if palette.chance(0.65) else 0.0
    height = base + storeys * storey
    glassy = tall and palette.chance(0.25)
    wall = palette.pick(((0.5, 0.55, 0.6), (0.35, 0.4, 0.45)) if glassy else WALLS)
    frame = palette.pick(((0.93, 0.92, 0.9), (0.3, 0.28, 0.26), (0.75, 0.72, 0.68)))
    bay, share = (1.6, 0.84) if glassy else (palette.between(2.2, 3.6), palette.between(0.38, 0.62))
    brick = 0.0 if glassy or palette.chance(0.45) else 1.0
    look = Surface("facade", (wall, (0.13, 0.17, 0.22), frame), (storey, bay, share + brick, lit), intensity=0.25)
    parts: list[Patch] = []
    seed = float(palette.rng.integers(0, 900))
    upper = facade_box(look, (length, depth, height - base), seed)
    parts.append(_raised(upper, base))
    if base:
        shop = Surface(
            "shopfront", (palette.pick(_SHOPS), (0.1, 0.13, 0.16), frame), (base, palette.between(2.8, 4.5), lit)
        )
        parts.append(facade_box(shop, (length - 0.1, depth - 0.1, base), seed + 7))
        parts.append(
            box(
                Surface("plain", (frame,)),
                (-length / 2, -depth / 2 - 0.12, base - 0.12),
                (length / 2, depth / 2, base + 0.12),
            )
        )
        if palette.chance(0.5):
            parts += _awnings(palette, length, depth, base)
    elif palette.chance(0.9):
        parts += _door(palette, depth)
    trim = Surface("plain", (scaled(wall, 0.85),))
    if not tall and palette.chance(0.6):
        parts.append(
            _gable(
                Surface("tiles", (palette.pick(_ROOFS), (0.15, 0.1, 0.09)), (0.35,)), length + 0.8, depth + 0.8, height
            )
        )
        parts.append(_gable_ends(look, length, depth, height))
        parts.append(box(trim, (length * 0.2, -0.4, height), (length * 0.2 + 0.7, 0.4, height + depth * 0.33 + 0.7)))
    else:
        parts.append(
            box(
                trim,
                (-length / 2 - 0.15, -depth / 2 - 0.15, height - 0.15),
                (length / 2 + 0.15, depth / 2 + 0.15, height + 0.35),
            )
        )
    if not base and not glassy and palette.chance(0.4):
        parts += _balconies(palette, length, depth, storey, storeys, bay)
    return tuple(parts)


def _raised(patch: Patch, z: float) -> Patch:
    return Patch((patch.triangles + np.array([0, 0, z])).astype(np.float32), patch.normals, patch.surface, patch.coords)


def _awnings(palette: Palette, length: float, depth: float, base: float) -> list[Patch]:
    cloth = Surface("bars", (palette.pick(_SHOPS), (0.92, 0.9, 0.86)), (0.5,))
    parts = []
    for x in np.arange(-length / 2 + 0.6, length / 2 - 3.0, 4.5):
        y, low, high = -depth / 2, base - 0.95, base - 0.45
        corners = [[x, y, high], [x, y - 1.1, low], [x + 3.2, y - 1.1, low], [x + 3.2, y, high]]
        drop = [[x, y - 1.1, low], [x, y - 1.1, low - 0.22], [x + 3.2, y - 1.1, low - 0.22], [x + 3.2, y - 1.1, low]]
        parts.append(quads(np.array([corners, drop]), cloth))
    return parts


def _door(palette: Palette, depth: float) -> list[Patch]:
    x, y = palette.between(-2, 2), -depth / 2
    paint = palette.paint(_SHOPS)
    step = Surface("concrete", ((0.6, 0.59, 0.57), (0.5, 0.5, 0.5)), (1.0,))
    return [
        box(Surface("plain", ((0.9, 0.89, 0.86),)), (x - 0.7, y - 0.06, 0.0), (x + 0.7, y, 2.4)),
        box(paint, (x - 0.5, y - 0.09, 0.1), (x + 0.5, y, 2.2)),
        box(GLASS, (x - 0.3, y - 0.1, 1.4), (x + 0.3, y, 2.0)),
        box(step, (x - 0.9, y - 0.9, 0.0), (x + 0.9, y, 0.16)),
    ]


def _balconies(palette: Palette, length: float, depth: float, storey: float, storeys: int, bay: float) -> list[Patch]:
    slab = Surface("concrete", ((0.7, 0.69, 0.66), (0.6, 0.6, 0.58)), (1.0,))
    parts = []
    for x in np.arange(-length / 2 + bay, length / 2 - 2 * bay, 2 * bay):
        for level in range(1, storeys):
            y, z = -depth / 2, level * storey
            parts.append(box(slab, (x, y - 1.0, z - 0.12), (x + bay * 1.4, y, z + 0.05)))
            parts.append(box(DARK_METAL, (x, y - 1.0, z + 0.95), (x + bay * 1.4, y - 0.95, z + 1.02)))
            parts += [
                box(DARK_METAL, (px, y - 1.0, z), (px + 0.03, y - 0.97, z + 1.0))
                for px in np.arange(x, x + bay * 1.4, 0.35)
            ]
    return parts


def _gable(tiles: Surface, length: float, depth: float, z: float) -> Patch:
    half, side, top = length / 2, depth / 2, z + depth * 0.33
    slopes = [
        [[-half, -side, z], [half, -side, z], [half, 0, top], [-half, 0, top]],
        [[half, side, z], [-half, side, z], [-half, 0, top], [half, 0, top]],
    ]
    return quads(np.array(slopes), tiles)


def _gable_ends(look: Surface, length: float, depth: float, z: float) -> Patch:
    plain = Surface("concrete", (look.colours[0], look.colours[0]), (1.0,), intensity=0.25)
    half, side, top = length / 2, depth / 2, z + depth * 0.31
    ends = [[[x, -side, z], [x, side, z], [x, 0, top], [x, 0, top]] for x in (-half, half)]
    return quads(np.array(ends), plain)


def wall(palette: Palette, length: float, height: float) -> Model:
    """Return a garden wall along x, of brick or rendered, with a coping."""
    brick = palette.chance(0.6)
    colour = palette.pick(WALLS[:3] if brick else WALLS[3:])
    look = Surface("brick" if brick else "concrete", (colour, (0.6, 0.57, 0.52)), (1.0,), intensity=0.25)
    cap = Surface("concrete", ((0.62, 0.6, 0.57), (0.5, 0.5, 0.5)), (1.0,))
    return (
        box(look, (-length / 2, -0.12, 0), (length / 2, 0.12, height)),
        box(cap, (-length / 2, -0.17, height), (length / 2, 0.17, height + 0.09)),
    )


def fence(palette: Palette, length: float) -> Model:
    """Return a picket or iron fence along x."""
    look = Surface("plain", (palette.pick(((0.9, 0.9, 0.88), (0.1, 0.12, 0.12), (0.4, 0.28, 0.18))),))
    rails = [box(look, (-length / 2, -0.025, z), (length / 2, 0.025, z + 0.06)) for z in (0.25, 0.95)]
    bars = [box(look, (x, -0.03, 0), (x + 0.07, 0.03, 1.15)) for x in np.arange(-length / 2, length / 2, 0.22)]
    return (*rails, *bars)


def street_lamp(palette: Palette) -> Model:
    """Return a lamp post with its arm towards -y."""
    height, look = (
        palette.between(6.0, 8.0),
        Surface("plain", (palette.pick(((0.45, 0.47, 0.48), (0.15, 0.17, 0.17))),)),
    )
    head = Surface("plain", ((1.0, 0.93, 0.75),), glow=0.5)
    return (
        tube(look, (0, 0, 0), (0, 0, 1.1), 0.12),
        tube(look, (0, 0, 1.0), (0, 0, height), 0.085, 0.055),
        tube(look, (0, 0, height), (0, -1.6, height + 0.35), 0.05),
        box(look, (-0.16, -2.2, height + 0.3), (0.16, -1.5, height + 0.42)),
        box(head, (-0.13, -2.15, height + 0.26), (0.13, -1.55, height + 0.3)),
    )


def traffic_light(palette: Palette) -> Model:
    """Return a signal post; its lamps look towards -x."""
    lit = palette.index((0.4, 0.2, 0.4))
    colours = ((0.9, 0.08, 0.05), (0.95, 0.65, 0.05), (0.1, 0.8, 0.35))
    lamps = []
    for row, colour in enumerate(colours):
        shade = colour if row == lit else scaled(colour, 0.25)
        look = Surface("plain", (shade,), glow=1.0 if row == lit else 0.0)
        z = 3.28 - 0.3 * row
        lamps.append(tube(look, (-0.16, 0, z), (-0.19, 0, z), 0.115, sides=12))
    case = Surface("plain", ((0.1, 0.1, 0.1),))
    return (tube(STEEL, (0, 0, 0), (0, 0, 3.5), 0.07), box(case, (-0.16, -0.19, 2.45), (0.1, 0.19, 3.5)), *lamps)


def sign(palette: Palette) -> Model:
    """Return a traffic sign on a post, its face towards -x."""
    faces = (
        ((0.85, 0.06, 0.06), (0.95, 0.95, 0.95)),
        ((0.1, 0.3, 0.75), (0.95, 0.95, 0.95)),
        ((0.95, 0.8, 0.1), (0.1, 0.1, 0.1)),
    )
    rim, field = faces[palette.index((1, 1, 1))]
    outer = Surface("plain", (palette.near(rim, 0.02),), intensity=0.95)
    inner = Surface("plain", (palette.near(field, 0.02),), intensity=0.95)
    post = tube(STEEL, (0, 0, 0), (0, 0, 2.75), 0.035)
    if palette.chance(0.3):
        board = Surface("letters", (rim, field), (0.28,), intensity=0.95)
        return (post, box(board, (-0.05, -0.6, 2.0), (-0.02, 0.6, 2.8)))
    return (
        post,
        tube(outer, (-0.04, 0, 2.4), (-0.06, 0, 2.4), 0.34, sides=20),
        tube(inner, (-0.06, 0, 2.4), (-0.065, 0, 2.4), 0.24, sides=20),
    )


def shelter(palette: Palette) -> Model:
    """Return a bus shelter along x, open towards -y."""
    pane = Surface("plain", ((0.35, 0.42, 0.45),), gloss=0.3, intensity=0.05)
    poster = Surface("letters", (palette.pick(_SHOPS), (0.95, 0.9, 0.8)), (0.5,), glow=0.1)
    posts = [tube(DARK_METAL, (x, y, 0), (x, y, 2.4), 0.05) for x in (-1.8, 1.8) for y in (-0.6, 0.6)]
    return (
        *posts,
        box(DARK_METAL, (-2.0, -0.8, 2.38), (2.0, 0.75, 2.52)),
        box(pane, (-1.75, 0.58, 0.3), (0.6, 0.62, 2.3)),
        box(poster, (0.7, 0.56, 0.3), (1.75, 0.64, 2.3)),
        box(STEEL, (-1.4, 0.15, 0.45), (0.6, 0.5, 0.52)),
        *[tube(STEEL, (x, 0.35, 0), (x, 0.35, 0.45), 0.03) for x in (-1.2, 0.4)],
    )


def bin_(palette: Palette) -> Model:
    """Return a litter bin."""
    paint = palette.paint(((0.15, 0.35, 0.2), (0.3, 0.3, 0.32), (0.1, 0.2, 0.4)))
    return (
        tube(paint, (0, 0, 0), (0, 0, 0.95), 0.26, 0.3, sides=12),
        tube(DARK_METAL, (0, 0, 0.95), (0, 0, 1.02), 0.31, sides=12),
    )


def backdrop(palette: Palette, length: float, lit: float) -> Model:
    """Return a big far block that closes a street, its front towards -y."""
    return building(palette, length, 14.0, True, lit)

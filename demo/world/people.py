"""Pedestrians, standing or walking."""

import math
from dataclasses import dataclass

import numpy as np

from demo.world.mesh import Model, Patch, Surface, moved
from demo.world.palette import SKIN, Palette
from demo.world.shapes import blob, box, tube

_HAIR = ((0.08, 0.06, 0.05), (0.25, 0.16, 0.1), (0.5, 0.38, 0.22), (0.6, 0.58, 0.56))
_SHOES = Surface("plain", ((0.1, 0.09, 0.09),))
_HIGH_VIS = ((1.0, 0.45, 0.05), (0.85, 0.95, 0.1))


@dataclass(frozen=True)
class Outfit:
    """Surfaces of one person's clothes and skin."""

    top: Surface
    legs: Surface
    skin: Surface
    hair: Surface


def outfit(palette: Palette, worker: bool = False) -> Outfit:
    """Return clothes at random; workers wear a high-visibility vest and a helmet."""
    top = palette.cloth(_HIGH_VIS) if worker else palette.cloth()
    if worker:
        top = Surface("vest", (top.colours[0], (0.92, 0.93, 0.9)), intensity=0.6)
    hair = palette.near((1.0, 0.85, 0.1)) if worker else palette.pick(_HAIR)
    return Outfit(top, palette.cloth(), Surface("plain", (palette.pick(SKIN, 0.03),)), Surface("plain", (hair,)))


def pedestrian(palette: Palette, walking: bool = True, worker: bool = False, child: bool = False) -> Model:
    """Return a person of about 1.75 m, or a child of about 1.2 m, facing forward."""
    wear = outfit(palette, worker)
    stride = palette.between(0.25, 0.5) * (1 if palette.chance(0.5) else -1) if walking else 0.05
    parts = [*_legs(wear, stride), *_upper(palette, wear, stride)]
    if palette.chance(0.3) and not (worker or child):
        bag = palette.cloth()
        parts.append(box(bag, (-0.32, -0.16, 0.98), (-0.13, 0.16, 1.42), (0.8, 0.9)))
    if palette.chance(0.2) and not (worker or child):
        parts.append(box(palette.cloth(), (-0.16, -0.24, 0.55), (0.16, 0.24, 0.98), (0.7, 0.75)))
    scale = palette.between(0.62, 0.78) if child else palette.between(0.94, 1.07)
    return moved(parts, scale=scale)


def _legs(wear: Outfit, stride: float) -> list[Patch]:
    parts: list[Patch] = []
    for side in (-1, 1):
        swing = stride * side
        hip = (0.0, side * 0.09, 0.92)
        knee = (0.42 * math.sin(swing) + 0.04, side * 0.095, 0.92 - 0.42 * math.cos(swing))
        back = swing - (0.45 if swing < -0.1 else 0.0)
        foot = (knee[0] + 0.42 * math.sin(back), side * 0.1, max(knee[2] - 0.42 * math.cos(back), 0.07))
        parts.append(tube(wear.legs, hip, knee, 0.088, 0.065))
        parts.append(tube(wear.legs, knee, foot, 0.064, 0.05))
        parts.append(
            box(
                _SHOES,
                (foot[0] - 0.08, foot[1] - 0.05, foot[2] - 0.07),
                (foot[0] + 0.19, foot[1] + 0.05, foot[2] + 0.03),
                (0.8, 0.9),
            )
        )
    return parts


def _upper(palette: Palette, wear: Outfit, stride: float) -> list[Patch]:
    parts = [blob(wear.top, (0, 0, 1.2), (0.13, 0.195, 0.33)), blob(wear.top, (0, 0, 1.4), (0.115, 0.225, 0.12))]
    parts.append(blob(wear.legs, (0, 0, 0.93), (0.125, 0.165, 0.13)))
    parts.append(tube(wear.skin, (0, 0, 1.42), (0.01, 0, 1.56), 0.055))
    parts.append(blob(wear.skin, (0.015, 0, 1.635), (0.098, 0.08, 0.125)))
    parts.append(blob(wear.hair, (-0.015, 0, 1.67), (0.1, 0.09, 0.105)))
    if palette.chance(0.3):
        parts.append(blob(wear.hair, (-0.075, 0, 1.56), (0.05, 0.08, 0.15), detail=1))
    for side in (-1, 1):
        swing = -0.8 * stride * side + palette.between(-0.1, 0.1)
        shoulder = (0.0, side * 0.225, 1.42)
        elbow = (0.28 * math.sin(swing), side * 0.27, 1.42 - 0.28 * math.cos(swing))
        bend = swing + 0.35
        hand = (elbow[0] + 0.25 * math.sin(bend), side * 0.255, elbow[2] - 0.25 * math.cos(bend))
        parts.append(blob(wear.top, shoulder, (0.07, 0.07, 0.07), detail=1))
        parts.append(tube(wear.top, shoulder, elbow, 0.06, 0.05))
        parts.append(tube(wear.top, elbow, hand, 0.048, 0.04))
        parts.append(blob(wear.skin, hand, (0.045, 0.035, 0.06), detail=1))
    return parts


def rider(
    palette: Palette, saddle: tuple[float, float], grip: tuple[float, float], pedal: float, helmet: bool
) -> Model:
    """Return a person sitting at `saddle` (x, z), hands at `grip` (x, z), feet at height `pedal`."""
    wear = outfit(palette)
    shell = palette.paint(((0.1, 0.1, 0.1), (0.9, 0.9, 0.9), (0.8, 0.1, 0.1), (0.15, 0.3, 0.7)))
    hip = np.array([saddle[0], 0, saddle[1] + 0.1])
    neck = hip + (0.3, 0, 0.5)
    parts: list[Patch] = [tube(wear.top, hip, neck, 0.16, 0.19, sides=10), blob(wear.top, neck, (0.14, 0.22, 0.12))]
    parts.append(blob(wear.skin, neck + (0.09, 0, 0.24), (0.1, 0.085, 0.13)))
    parts.append(blob(shell if helmet else wear.hair, neck + (0.06, 0, 0.28), (0.13, 0.11, 0.12)))
    for side in (-1, 1):
        knee = np.array([saddle[0] + 0.42, side * 0.14, saddle[1] - 0.06 - 0.12 * side])
        foot = np.array([saddle[0] + 0.2, side * 0.14, pedal + 0.1 - 0.1 * side])
        parts.append(tube(wear.legs, hip + (0, side * 0.09, 0), knee, 0.085, 0.065))
        parts.append(tube(wear.legs, knee, foot, 0.062, 0.05))
        parts.append(box(_SHOES, foot - (0.08, 0.05, 0.06), foot + (0.18, 0.05, 0.04)))
        hand = np.array([grip[0], side * 0.24, grip[1]])
        elbow = (neck + hand) / 2 + (-0.05, side * 0.16, -0.08)
        parts.append(tube(wear.top, neck + (0, side * 0.19, 0), elbow, 0.058, 0.05))
        parts.append(tube(wear.top, elbow, hand, 0.048, 0.04))
    return tuple(parts)

"""Named colours and surfaces, and random draws of them; difficulty makes the draws less typical."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from demo.world.mesh import Colour, Surface

BLACK: Colour = (0.06, 0.06, 0.07)
RUBBER = Surface("plain", ((0.09, 0.09, 0.095),), intensity=0.04)
STEEL = Surface("plain", ((0.55, 0.56, 0.58),), gloss=0.12, intensity=0.3)
DARK_METAL = Surface("plain", ((0.17, 0.17, 0.18),), gloss=0.05, intensity=0.1)
GLASS = Surface("plain", ((0.05, 0.07, 0.09),), gloss=0.38, intensity=0.02)
HEADLIGHT = Surface("plain", ((0.95, 0.95, 0.88),), gloss=0.15, glow=0.35, intensity=0.5)
TAIL_LIGHT = Surface("plain", ((0.8, 0.04, 0.05),), gloss=0.1, glow=0.25, intensity=0.6)
PLATE = Surface("plain", ((0.92, 0.92, 0.86),), intensity=0.95)
ORANGE_LAMP = Surface("plain", ((1.0, 0.55, 0.05),), glow=0.6, intensity=0.5)

CAR_COLOURS: tuple[Colour, ...] = (
    *((0.92, 0.92, 0.92), (0.9, 0.9, 0.9), (0.72, 0.74, 0.77), (0.42, 0.44, 0.47), (0.1, 0.1, 0.11)),
    *((0.72, 0.07, 0.08), (0.08, 0.18, 0.5), (0.15, 0.35, 0.68), (0.06, 0.32, 0.22), (0.5, 0.09, 0.12)),
    *((0.85, 0.72, 0.5), (0.9, 0.45, 0.1), (0.3, 0.55, 0.6), (0.35, 0.22, 0.15)),
)
CLOTHES: tuple[Colour, ...] = (
    *((0.1, 0.12, 0.2), (0.15, 0.15, 0.16), (0.75, 0.12, 0.15), (0.85, 0.85, 0.82), (0.2, 0.35, 0.65)),
    *((0.9, 0.75, 0.2), (0.2, 0.45, 0.3), (0.55, 0.25, 0.5), (0.45, 0.33, 0.24), (0.85, 0.5, 0.55)),
)
SKIN: tuple[Colour, ...] = ((0.87, 0.68, 0.56), (0.78, 0.57, 0.44), (0.6, 0.41, 0.29), (0.4, 0.26, 0.18))
WALLS: tuple[Colour, ...] = (
    *((0.72, 0.42, 0.32), (0.62, 0.35, 0.28), (0.82, 0.74, 0.6), (0.85, 0.82, 0.76), (0.75, 0.68, 0.62)),
    *((0.66, 0.6, 0.52), (0.88, 0.78, 0.58), (0.78, 0.62, 0.55), (0.62, 0.64, 0.66), (0.9, 0.88, 0.85)),
)
BUS_COLOURS: tuple[Colour, ...] = (
    *((0.78, 0.1, 0.12), (0.1, 0.45, 0.3), (0.95, 0.72, 0.1), (0.1, 0.35, 0.7), (0.9, 0.9, 0.88)),
    (0.55, 0.2, 0.55),
)
TRUCK_COLOURS: tuple[Colour, ...] = (
    *((0.9, 0.9, 0.9), (0.15, 0.3, 0.6), (0.75, 0.12, 0.1), (0.2, 0.5, 0.3), (0.95, 0.6, 0.1), (0.3, 0.32, 0.36)),
)


@dataclass(frozen=True)
class Palette:
    """A source of random choices for one scene.

    Attributes:
        rng: the scene's generator.
        difficulty: 0 for typical colours, 1 for the most unusual ones.
    """

    rng: np.random.Generator
    difficulty: float = 0.0

    def pick(self, options: Sequence[Colour], spread: float = 0.05) -> Colour:
        """Return one of the colours with a small random change, which difficulty makes larger."""
        chosen = options[int(self.rng.integers(len(options)))]
        return self.near(chosen, spread)

    def near(self, colour: Colour, spread: float = 0.05) -> Colour:
        """Return a colour near the given one; difficulty fades it to grey or changes its hue."""
        lightness = float(self.rng.uniform(1 - 2 * spread, 1 + 2 * spread))
        moved = np.clip(np.asarray(colour) * lightness + self.rng.uniform(-spread, spread, 3) * 0.6, 0.02, 0.98)
        odd, grey, hue = self.rng.uniform(0, 1, 3)
        if odd < 0.7 * self.difficulty:
            level = float(moved.mean())
            _, saturation, value = colorsys.rgb_to_hsv(*moved)
            other = colorsys.hsv_to_rgb(float(hue), max(saturation, 0.35), value)
            target = np.full(3, level) if grey < 0.55 else np.asarray(other)
            moved = moved + (target - moved) * self.difficulty * 0.85
        return (float(moved[0]), float(moved[1]), float(moved[2]))

    def chance(self, probability: float) -> bool:
        """Return true with the given probability."""
        return bool(self.rng.uniform() < probability)

    def between(self, low: float, high: float) -> float:
        """Return a number drawn uniformly from low to high."""
        return float(self.rng.uniform(low, high))

    def index(self, weights: Sequence[float]) -> int:
        """Return an index drawn by weight."""
        return int(np.searchsorted(np.cumsum(weights) / sum(weights), self.rng.uniform()))

    def paint(self, options: Sequence[Colour], gloss: float = 0.12) -> Surface:
        """Return a glossy coat of one of the colours."""
        colour = self.pick(options)
        return Surface("plain", (colour,), gloss=gloss, intensity=0.08 + 0.3 * float(np.mean(colour)))

    def cloth(self, options: Sequence[Colour] = CLOTHES) -> Surface:
        """Return matt cloth."""
        return Surface("cloth", (self.pick(options),), intensity=0.15)

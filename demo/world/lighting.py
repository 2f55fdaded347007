"""Light: sun, sky and haze at several times of day."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from demo.world.mesh import Colour, scaled
from demo.world.noise import smooth
from demo.world.palette import Palette

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Mood:
    """Light of one scene; colours are linear.

    Attributes:
        name: used in the description of the scene.
        sun: (3,) unit direction towards the light.
        softness: standard deviation of shadow rays around it; 0 gives hard shadows.
        sun_colour, sky_colour, ground_colour: radiance of direct light, of light from above and from below.
        zenith, horizon: colours of the sky.
        cloud: share of the sky under clouds.
        haze_m: distance at which haze makes up 63 % of the light (1 - 1/e).
        lit: share of lit windows.
        exposure: exposure of all cameras.
    """

    name: str
    sun: tuple[float, float, float]
    softness: float
    sun_colour: Colour
    sky_colour: Colour
    ground_colour: Colour
    zenith: Colour
    horizon: Colour
    cloud: float
    haze_m: float
    lit: float
    exposure: float


NOON = Mood(
    *("noon", (0, 0, 1), 0.0, (3.0, 2.85, 2.55), (0.5, 0.62, 0.84), (0.24, 0.23, 0.2)),
    *((0.1, 0.24, 0.6), (0.42, 0.6, 0.85), 0.35, 900, 0.0, 1.45),
)
OVERCAST = Mood(
    *("overcast", (0, 0, 1), 0.5, (0.95, 0.96, 0.98), (0.9, 0.95, 1.02), (0.3, 0.3, 0.29)),
    *((0.5, 0.54, 0.6), (0.66, 0.69, 0.73), 0.9, 450, 0.03, 1.6),
)
LOW_SUN = Mood(
    *("low sun", (0, 0, 1), 0.0, (3.4, 2.4, 1.4), (0.42, 0.52, 0.74), (0.22, 0.19, 0.15)),
    *((0.14, 0.26, 0.55), (0.8, 0.62, 0.42), 0.3, 650, 0.03, 1.45),
)
DUSK = Mood(
    *("dusk", (0, 0, 1), 0.4, (0.3, 0.24, 0.28), (0.4, 0.42, 0.58), (0.15, 0.14, 0.16)),
    *((0.08, 0.11, 0.26), (0.5, 0.34, 0.3), 0.5, 450, 0.4, 2.3),
)


def make_mood(palette: Palette) -> Mood:
    """Return a mood; difficulty makes dusk, hard contrast and thick haze more likely."""
    hard = palette.difficulty
    index = palette.index((0.4 - 0.2 * hard, 0.25 - 0.05 * hard, 0.23 + 0.07 * hard, 0.12 + 0.2 * hard))
    base = (NOON, OVERCAST, LOW_SUN, DUSK)[index]
    low, high = ((0.8, 1.25), (1.2, 1.5), (0.22, 0.42), (0.5, 0.9))[index]
    height, around = palette.between(low, high), palette.between(0, 2 * np.pi)
    sun = (
        float(np.cos(height) * np.cos(around)),
        float(np.cos(height) * np.sin(around)),
        float(np.sin(height)),
    )
    dim = 1 - hard * palette.between(0.0, 0.5)
    return replace(
        base,
        sun=sun,
        sky_colour=scaled(base.sky_colour, 1 - 0.35 * hard, limit=np.inf),
        haze_m=base.haze_m * palette.between(0.7, 1.4) * (1 - 0.7 * hard * palette.between(0, 1)),
        cloud=float(np.clip(base.cloud + palette.between(-0.25, 0.25), 0.05, 1)),
        exposure=base.exposure * palette.between(0.9, 1.12) * dim,
    )


def sky(mood: Mood, directions: Floats) -> Floats:
    """Return the sky's linear colour (N, 3) along unit directions (N, 3)."""
    up = np.clip(directions[:, 2], 0, 1)
    horizon, zenith = np.array(mood.horizon, np.float32), np.array(mood.zenith, np.float32)
    colour = horizon + (zenith - horizon) * (1 - (1 - up[:, None]) ** 3.5)
    reach = 1 / (up + 0.12)
    x, y = directions[:, 0] * reach, directions[:, 1] * reach
    cover = smooth(x, y, 9.0) * 0.75 + smooth(y, x, 3.1) * 0.25
    cloud = np.clip((cover - 0.82 + 0.62 * mood.cloud) * 3.2, 0, 0.92) * np.clip(up * 9, 0, 1)
    sun_colour, sky_colour = np.array(mood.sun_colour, np.float32), np.array(mood.sky_colour, np.float32)
    bright = np.float32(0.35) * sun_colour + np.float32(0.62) * sky_colour
    colour += (np.minimum(bright, 1.05) * (1.04 - 0.3 * cloud[:, None]) - colour) * cloud[:, None]
    glow = np.clip(directions @ np.array(mood.sun, np.float32), 0, 1) ** 60
    strength = np.float32(0.5 * (1 - mood.cloud * 0.8))
    colour += (glow * strength)[:, None] * sun_colour
    return colour


def sky_base(mood: Mood, up: Floats) -> Floats:
    """Return the cloudless sky (N, 3) for reflections, at directions whose z is `up` (N,); dark below the horizon."""
    horizon, zenith = np.array(mood.horizon, np.float32), np.array(mood.zenith, np.float32)
    above = horizon + (zenith - horizon) * (1 - (1 - np.clip(up, 0, 1)[:, None]) ** 2.5)
    ground = np.float32(0.22) * horizon
    colour: Floats = ground + (above - ground) * np.clip(up * 5 + 0.5, 0, 1)[:, None]
    return colour


def light_rays(mood: Mood, count: int, rng: np.random.Generator) -> Floats:
    """Return unit directions (count, 3) towards the sun, each randomly deviated by the mood's softness."""
    sun = np.array(mood.sun, np.float32)
    if mood.softness == 0:
        return np.broadcast_to(sun, (count, 3))
    stray = rng.standard_normal((count, 3), dtype=np.float32) * np.float32(mood.softness)
    rays = sun + stray
    rays[:, 2] = np.maximum(rays[:, 2], 0.05)
    rays /= np.sqrt(np.einsum("ij,ij->i", rays, rays))[:, None]
    return rays

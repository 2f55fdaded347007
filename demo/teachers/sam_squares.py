"""Training input of the demo SAM: square images with point prompts on their segments.

SAM pads pictures to a square. Half of the squares are padded; the other half show a second picture in place of the
padding, because a step costs the same in both cases.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from demo.teachers.sam_stages import Stage
from demo.teachers.views import Light, Views, relight
from labelgen.teachers.sam.resampling import nearest_index

PADDING = -1
"""Segment id of pixels that show no picture."""


@dataclass(frozen=True)
class Square:
    """A training input: `rgb` (S, S, 3) u8, `segments` (S, S) i64, and prompts (P,) at `rows` and `columns`.

    `pictures` (S, S) says which of its pictures each pixel shows, PADDING for none.
    """

    rgb: NDArray[np.uint8]
    pictures: NDArray[np.int64]
    segments: NDArray[np.int64]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]


def at_width(views: Views, width: int) -> Views:
    """Return the views (N, H, W) resized to `width`: pictures by box filter, ids by nearest neighbour."""
    height, columns = views.rgb.shape[1] * width // views.rgb.shape[2], nearest_index(views.rgb.shape[2], width)
    rows = nearest_index(views.rgb.shape[1], height)
    resized = [Image.fromarray(picture).resize((width, height), Image.Resampling.BOX) for picture in views.rgb]
    rgb = np.stack([np.asarray(picture) for picture in resized])
    return Views(rgb, views.class_ids[:, rows][:, :, columns], views.instance_ids[:, rows][:, :, columns])


def draw_squares(views: Views, stage: Stage, rng: np.random.Generator) -> list[Square]:
    """Draw the squares of one step; the views have the width of the stage's squares."""
    return [_draw(views, stage, rng) for _ in range(stage.squares)]


def _draw(views: Views, stage: Stage, rng: np.random.Generator) -> Square:
    """Draw a square with one or two pictures, and prompts on its segments."""
    side = stage.side
    rgb = np.zeros((side, side, 3), np.uint8)
    pictures, segments = np.full((side, side), PADDING), np.full((side, side), PADDING)
    top = 0
    for number in range(int(rng.integers(1, 3))):
        picture, ids = _picture(views, rng)
        rows = slice(top, min(side, top + len(picture)))
        rgb[rows] = picture[: rows.stop - top]
        pictures[rows] = number
        segments[rows] = ids[: rows.stop - top] + (segments.max() + 1)
        top = rows.stop
    _, flat, sizes = np.unique(segments, return_inverse=True, return_counts=True)
    flat = flat.ravel()
    usable = sizes >= stage.smallest
    usable[0] &= segments.min() != PADDING
    order, ends = np.argsort(flat, kind="stable"), np.cumsum(sizes)
    chosen = rng.choice(np.flatnonzero(usable), int(stage.points * stage.by_segment))
    on_segments = order[ends[chosen] - 1 - (rng.random(len(chosen)) * sizes[chosen]).astype(np.int64)]
    anywhere = rng.choice(np.flatnonzero(usable[flat]), stage.points - len(chosen))
    return Square(rgb, pictures, segments, *np.divmod(np.concatenate([on_segments, anywhere]), side))


def _picture(views: Views, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw a picture (H, W, 3) and its segments (H, W), mirrored and relit at random."""
    index, flip = int(rng.integers(len(views.rgb))), slice(None, None, int(rng.choice([-1, 1])))
    rgb = relight(views.rgb[index][:, flip], rng, Light(contrast=0.2, brightness=12))
    return rgb, views.instance_ids[index][:, flip].astype(np.int64)

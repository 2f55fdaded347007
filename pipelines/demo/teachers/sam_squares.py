"""Draw what a step of the demo SAM's training sees: squares that show pictures, with points on their segments.

SAM pads pictures to a square. Half of the squares are drawn so; the other half show a second picture in the place of
the padding, since a step costs the same either way.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from labelgen.teachers.sam.resampling import nearest_index
from pipelines.demo.teachers.sam_course import Course
from pipelines.demo.teachers.views import Light, Views, relight

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
    """Return the views (N, H, W) at SAM's input width: pictures averaged, ids of the nearest pixel."""
    height, columns = views.rgb.shape[1] * width // views.rgb.shape[2], nearest_index(views.rgb.shape[2], width)
    rows = nearest_index(views.rgb.shape[1], height)
    rgb = np.stack([Image.fromarray(picture).resize((width, height), Image.Resampling.BOX) for picture in views.rgb])
    return Views(rgb, *(ids[:, rows][:, :, columns] for ids in (views.class_ids, views.instance_ids)))


def draw_squares(views: Views, course: Course, rng: np.random.Generator) -> list[Square]:
    """Draw a step's squares from pictures of the course's width."""
    return [_draw(views, course, rng) for _ in range(course.squares)]


def _draw(views: Views, course: Course, rng: np.random.Generator) -> Square:
    """Draw a square with one or two pictures, maybe mirrored, and prompts on its segments."""
    side = course.side
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
    usable = sizes >= course.smallest
    usable[0] &= segments.min() != PADDING
    order, ends = np.argsort(flat, kind="stable"), np.cumsum(sizes)
    chosen = rng.choice(np.flatnonzero(usable), int(course.points * course.by_segment))
    on_segments = order[ends[chosen] - 1 - (rng.random(len(chosen)) * sizes[chosen]).astype(np.int64)]
    anywhere = rng.choice(np.flatnonzero(usable[flat]), course.points - len(chosen))
    return Square(rgb, pictures, segments, *np.divmod(np.concatenate([on_segments, anywhere]), side))


def _picture(views: Views, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw a picture (H, W, 3) and its segments (H, W), mirrored and relit at random."""
    index, flip = int(rng.integers(len(views.rgb))), slice(None, None, int(rng.choice([-1, 1])))
    rgb = relight(views.rgb[index][:, flip], rng, Light(contrast=0.2, brightness=12))
    return rgb, views.instance_ids[index][:, flip].astype(np.int64)

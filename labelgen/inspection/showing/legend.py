"""Say which colour is which class: a legend, and the numbers of classes whose colours look alike."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cache_schemas.taxonomy import Taxonomy

Picture = NDArray[np.uint8]
"""An RGB picture (H, W, 3)."""

BACKGROUND = (20, 20, 20)
_TEXT = (240, 240, 240)
_ROW_PX, _SWATCH_PX, _GAP_PX = 17, 18, 4

ALIKE_BELOW = 25.0
"""Colours nearer than this in CIELAB (1976) look alike: blended over a picture, they are nearer still."""

NUMBER_RADIUS_PX = 7
"""A number is written into regions that hold a circle of this radius."""


def alike_classes(taxonomy: Taxonomy) -> list[int]:
    """Return the ids of the classes whose colour looks like that of another class, in order."""
    import cv2

    colours = np.array([taxonomy.colours], np.float32) / 255
    lab = np.asarray(cv2.cvtColor(colours, cv2.COLOR_RGB2Lab))[0]
    distances = np.linalg.norm(lab[:, None] - lab, axis=-1)
    np.fill_diagonal(distances, np.inf)
    return np.flatnonzero(distances.min(axis=1) < ALIKE_BELOW).tolist()


def number_regions(picture: Picture, ids: NDArray[np.uint8], classes: list[int]) -> Picture:
    """Write the id of its class into each large region of one of `classes`; `ids` (H, W) are the labels of pixels."""
    import cv2

    image = Image.fromarray(picture)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(10)
    for class_id in np.intersect1d(ids, classes).tolist():
        region_mask = np.pad((ids == class_id).astype(np.uint8), 1)
        depth_px = np.asarray(cv2.distanceTransform(region_mask, cv2.DIST_L2, 3))[1:-1, 1:-1]
        regions = np.asarray(cv2.connectedComponents(region_mask)[1])[1:-1, 1:-1]
        while depth_px.max() >= NUMBER_RADIUS_PX:
            row, col = np.unravel_index(depth_px.argmax(), depth_px.shape)
            centre = (float(col), float(row))
            draw.text(centre, str(class_id), fill="white", stroke_fill="black", stroke_width=1, font=font, anchor="mm")
            depth_px[regions == regions[row, col]] = 0
    return np.asarray(image)


def draw_legend(taxonomy: Taxonomy, teachers: str, width: int) -> Picture:
    """Draw the name of the teachers and below it the classes, in as many rows as a picture of this width needs.

    Classes whose colour looks like another one have their id before the name.
    """
    entries, alike = taxonomy.classes, alike_classes(taxonomy)
    names = [f"{i} {entry.name}" if i in alike else entry.name for i, entry in enumerate(entries)]
    font = ImageFont.load_default(12)
    column_px = _SWATCH_PX + math.ceil(max(font.getlength(name) for name in names)) + 2 * _GAP_PX
    columns = max(1, width // column_px)
    rows = math.ceil(len(entries) / columns)
    strip = Image.new("RGB", (width, (1 + rows) * _ROW_PX), BACKGROUND)
    draw = ImageDraw.Draw(strip)
    draw.text((_GAP_PX, 1), f"teachers: {teachers}", fill="white", font=font)
    for index, (entry, name) in enumerate(zip(entries, names, strict=True)):
        left = index // rows * column_px + _GAP_PX
        top = (1 + index % rows) * _ROW_PX
        draw.rectangle((left, top + 3, left + 10, top + 13), fill=entry.colour)
        draw.text((left + _SWATCH_PX - _GAP_PX, top + 1), name, fill=_TEXT, font=font)
    return np.asarray(strip)

"""Draw points over a picture, coloured by depth: near ones red, far ones blue."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from labelgen.geometry import Pairs

WIDTH_PX = 1000
"""Pictures are drawn at this width."""

STOPS = np.array([[220, 20, 20], [255, 190, 0], [60, 220, 60], [0, 190, 230], [40, 40, 220]], np.float64)
"""Colours from the nearest to the farthest point, RGB."""

MOST_HEIGHT_PX = 4000
"""The greatest height of the drawing of one picture, in pixels."""


def draw_sheet(image: NDArray[np.uint8], pairs: Pairs, depth_m: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return a picture (H, `WIDTH_PX`, 3) with points over it, the nearest on top.

    A picture that would be higher than `MOST_HEIGHT_PX` is drawn narrower, on black.

    Args:
        image: (H0, W0, 3) RGB.
        pairs: N points and their pixels in the image.
        depth_m: (N,) depth of each point.
    """
    scale = min(WIDTH_PX / image.shape[1], MOST_HEIGHT_PX / image.shape[0])
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    drawn = np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    sheet = np.pad(drawn, ((0, 0), (0, WIDTH_PX - width), (0, 0)))
    if not len(depth_m):
        return sheet
    order = np.argsort(-depth_m)
    row = (pairs.row[order] + 0.5) * height / image.shape[0] - 0.5
    col = (pairs.col[order] + 0.5) * width / image.shape[1] - 0.5
    colours = colours_of_depth(depth_m[order])
    for down in (0, 1):
        for right in (0, 1):
            rows = np.clip(row + down, 0, height - 1).astype(int)
            cols = np.clip(col + right, 0, width - 1).astype(int)
            sheet[rows, cols] = colours
    return sheet


def colours_of_depth(depth_m: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return colours (N, 3) of depths (N,), by the logarithm of depth between the nearest and the farthest."""
    logarithm = np.log(depth_m)
    span = np.ptp(logarithm) or 1.0
    place = (logarithm - logarithm.min()) / span * (len(STOPS) - 1)
    channels = [np.interp(place, np.arange(len(STOPS)), STOPS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=1).astype(np.uint8)

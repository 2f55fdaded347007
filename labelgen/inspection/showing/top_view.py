"""Draw a lidar cloud from above."""

import numpy as np
from numpy.typing import NDArray

from cache_schemas.taxonomy import Taxonomy
from labelgen.inspection.counting.samples import Sample
from labelgen.inspection.declarations import top_view_reach_m
from labelgen.inspection.showing.instance_colours import instance_colours
from labelgen.inspection.showing.legend import Picture
from labelgen.inspection.showing.sample_pictures import colour_table

_SIDE_PX = 420
_NO_LABEL = (205, 205, 205)


def draw_top_views(sample: Sample, taxonomy: Taxonomy) -> dict[str, Picture]:
    """Draw the sample's cloud by voted label, over time, by truth and by instance; nothing without a cloud."""
    if not sample.has_points:
        return {}
    reach_m = top_view_reach_m(sample.dataset)
    labels = {"voted labels": sample["labels"]["point"]}
    if "time" in sample.groups:
        labels["labels over time"] = sample["time"]["point"]
    if "point" in sample["truth"]:
        labels["truth"] = sample["truth"]["point"]
    if "instance_labels" in sample.groups:
        labels["labels with instances"] = sample["instance_labels"]["point"]
    xyz = sample["points"]["xyz"]
    views = {name: draw_top_view(xyz, ids, taxonomy, reach_m) for name, ids in labels.items()}
    if "instances" in sample.groups:
        instance = sample["instances"]["point"]
        colours = np.where(instance[:, None] > 0, instance_colours(instance, xyz), _NO_LABEL).astype(np.uint8)
        views["instances"] = _draw(xyz, colours, instance > 0, reach_m)
    return views


def draw_top_view(xyz: NDArray[np.float32], ids: NDArray[np.uint8], taxonomy: Taxonomy, reach_m: float) -> Picture:
    """Draw points (P, 3) in metres by label (P,): the cloud's x to the right, y up; higher points hide lower ones.

    Points up to `reach_m` from the middle along x and y are shown; `middle_of` says where the middle is.
    """
    classes = len(taxonomy.classes)
    colours = colour_table(taxonomy)
    colours[classes:] = _NO_LABEL
    return _draw(xyz, colours[ids], ids < classes, reach_m)


def _draw(xyz: NDArray[np.float32], colours: Picture, on_top: NDArray[np.bool_], reach_m: float) -> Picture:
    """Draw points (P, 3) in their colours (P, 3); those that are `on_top` (P,) hide the others."""
    picture = np.full((_SIDE_PX, _SIDE_PX, 3), 255, np.uint8)
    order = np.lexsort((xyz[:, 2], on_top))
    px_per_m = _SIDE_PX / (2 * reach_m)
    col, row = (px_per_m * ((xyz[order, :2] - middle_of(xyz)) * (1, -1) + reach_m)).astype(np.intp).T
    inside = (col >= 1) & (col < _SIDE_PX) & (row >= 1) & (row < _SIDE_PX)
    for down in (0, -1):
        for right in (0, -1):
            picture[row[inside] + down, col[inside] + right] = colours[order][inside]
    return picture


def middle_of(xyz: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return x, y in metres of the middle of a view of points (P, 3): the origin, where the sensor is.

    Along an axis with at least nine tenths of the points on one side of the origin, it is the middle of their bounding
    box: meshes of rooms begin near the origin, and some lidars look only ahead.
    """
    if not len(xyz):
        return np.zeros(2, np.float32)
    xy = xyz[:, :2]
    low, high = np.quantile(xy, (0.1, 0.9), axis=0)
    middle: NDArray[np.float32] = np.where((low < 0) & (high > 0), 0, (xy.min(axis=0) + xy.max(axis=0)) / 2)
    return middle

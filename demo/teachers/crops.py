"""Crops of the training views, each named after one class: the only input of the demo's CLIP and backbone."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from demo.teachers.views import Light, Views, relight

CROP_PX = 64
SMALLEST_CROP_PX, LARGEST_CROP_PX = 40, 120
LEAST_SHARE = 0.3
"""Least share of a crop that its class fills."""


def places_by_class(views: Views, classes: int) -> list[NDArray[np.int64]]:
    """Return for each class sampled pixels (N, 3) as view, row, column; at most 300 of a class in each view."""
    rng = np.random.default_rng(1)
    places: list[list[NDArray[np.int64]]] = [[] for _ in range(classes)]
    for index, ids in enumerate(views.class_ids):
        for label in np.unique(ids[ids < classes]):
            rows, columns = np.nonzero(ids == label)
            sampled = rng.choice(len(rows), min(300, len(rows)), replace=False)
            places[label].append(np.stack([np.full(len(sampled), index), rows[sampled], columns[sampled]], axis=1))
    return [np.concatenate(found) if found else np.zeros((0, 3), np.int64) for found in places]


def draw_crops(
    views: Views, places: list[NDArray[np.int64]], rng: np.random.Generator, count: int, light: Light
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw crops (count, CROP_PX, CROP_PX, 3) and their classes (count,), uniform over classes, with augmentation."""
    present = [label for label, found in enumerate(places) if len(found)]
    crops: list[NDArray[np.uint8]] = []
    classes: list[int] = []
    while len(crops) < count:
        label = present[int(rng.integers(len(present)))]
        index, row, column = places[label][int(rng.integers(len(places[label])))]
        side = int(np.exp(rng.uniform(np.log(SMALLEST_CROP_PX), np.log(LARGEST_CROP_PX))))
        height, width = views.class_ids.shape[1:]
        top = int(np.clip(row - rng.integers(side // 4, side - side // 4), 0, height - side))
        left = int(np.clip(column - rng.integers(side // 4, side - side // 4), 0, width - side))
        window = (index, slice(top, top + side), slice(left, left + side))
        if (views.class_ids[window] == label).mean() < LEAST_SHARE:
            continue
        crop = np.asarray(Image.fromarray(views.rgb[window]).resize((CROP_PX, CROP_PX), Image.Resampling.BILINEAR))
        lit = relight(crop, rng, light)
        crops.append(lit[:, :: -1 if rng.random() < 0.5 else 1])
        classes.append(label)
    return np.stack(crops), np.array(classes)

"""Confusion pictures: dark where labels go, a panel for each kind of label, nothing where there is no truth."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from labelgen.inspection.confusion_picture import write_confusions

NAMES = ("car", "road")


def agreement(*rows: tuple[int, int]) -> dict[str, Any]:
    return {"miou": 0.5, "iou": dict.fromkeys(NAMES, 0.5), "confusion": [list(row) for row in rows]}


def blue_share(picture: np.ndarray) -> float:
    """Return the share of pixels that are clearly blue, as full cells are."""
    red, _, blue = np.moveaxis(picture.astype(int), -1, 0)
    return float((blue - red > 60).mean())


def test_each_target_with_truth_gets_a_picture_of_raw_and_voted_labels(tmp_path: Path) -> None:
    right, none = agreement((5, 0), (0, 5)), agreement((0, 0), (0, 0))
    found = {"truth": {"image": {"raw": none, "refined": right}, "point": None}}
    (file,) = write_confusions(found, tmp_path / "new")
    assert file == tmp_path / "new" / "confusion-image.png"
    picture = np.asarray(Image.open(file))
    left, right_half = np.split(picture, 2, axis=1)
    assert blue_share(left) == 0 < blue_share(right_half)


def test_rows_are_true_classes(tmp_path: Path) -> None:
    found = {"truth": {"image": {"raw": agreement((0, 7), (0, 7)), "refined": agreement((7, 0), (7, 0))}}}
    (file,) = write_confusions(found, tmp_path)
    blue = np.split(np.asarray(Image.open(file)).astype(int), 2, axis=1)
    columns = [np.flatnonzero((panel[..., 2] - panel[..., 0] > 60).any(axis=0)).mean() for panel in blue]
    assert columns[0] > columns[1], "all cars and roads called road fill the right column, all called car the left"


def test_a_cache_without_finished_shards_has_no_pictures(tmp_path: Path) -> None:
    assert write_confusions({}, tmp_path) == []

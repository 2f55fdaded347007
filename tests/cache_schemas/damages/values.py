"""Impossible values under a correct seal."""

from pathlib import Path
from typing import Any

import numpy as np

from cache_schemas.problems import ProblemKind as K
from tests.cache_schemas.damages.registry import SHARD, makes
from tests.cache_schemas.editing import put, reseal


def impossible_value(group: str, array: str, index: Any, value: float, what: str) -> None:
    """Register the damage of one value of an array, under a correct seal."""

    def damage(folder: Path) -> None:
        reseal(folder, group, **{array: put(index, value)})

    damage.__name__ = f"{group.rsplit('/', 1)[-1]}_{array}_{what}"
    makes(K.VALUE_OUT_OF_RANGE, f"{group}/{array}")(damage)


for _array, _index, _id in (
    ("image_raw", (-1, -1, -1), 3),
    ("image", (0, 0, 0), 254),
    ("point_raw", -1, 3),
    ("point", 0, 254),
):
    impossible_value(f"{SHARD}/labels", _array, _index, _id, f"{_id}_outside_the_taxonomy")
impossible_value(f"{SHARD}/truth", "point", 2, 3, "3_outside_the_taxonomy")
for _array, _value in (("point", 7), ("point", -1), ("point", 3), ("image", 3), ("image", 1), ("row", 4), ("col", 6)):
    impossible_value(f"{SHARD}/pairs", _array, 4, _value, f"{_value}_outside_its_sample_or_picture")
impossible_value(f"{SHARD}/pairs", "visible", 1, 2, "2_is_neither_yes_nor_no")
impossible_value(f"{SHARD}/pairs", "depth", 0, np.nan, "that_is_not_a_number")
for _group, _total in (("images", 3), ("points", 7), ("pairs", 5)):
    impossible_value(f"{SHARD}/{_group}", "offsets", 0, 1, "that_start_late")
    impossible_value(f"{SHARD}/{_group}", "offsets", 2, _total - 1, "that_end_early")
    impossible_value(f"{SHARD}/{_group}", "offsets", 1, _total + 1, "that_fall")
impossible_value(f"{SHARD}/sam", "mask_ids", (0, 0, 0), 5, "5_beyond_the_count")
impossible_value(f"{SHARD}/sam", "features_scale", (0, 0), np.nan, "that_is_not_a_number")
impossible_value(f"{SHARD}/clip", "logits", (0, 1, 1, 2), np.nan, "that_is_not_a_number")
impossible_value(f"{SHARD}/points", "xyz", (0, 1), np.inf, "that_is_infinite")
impossible_value(f"{SHARD}/points", "xyz", (2, 0), -6e4, "60_km_away")
impossible_value(f"{SHARD}/points", "xyz", (2, 0), 3e38, "beyond_any_distance")
impossible_value(f"{SHARD}/points", "intensity", 3, -0.1, "of_another_column")
impossible_value(f"{SHARD}/images", "intrinsics", (0, 0, 0), np.nan, "that_is_not_a_number")
impossible_value("text", "embeddings", (2, 2), 1.01, "that_is_not_of_unit_norm")
impossible_value("text", "embeddings", (0, 0), np.nan, "that_is_not_a_number")

"""The map from raw label ids to the 19 classes, as semantic-kitti.yaml of semantic-kitti-api defines it.

A label is a u32: the low 16 bits are the raw id, the high 16 bits the instance. Raw id 255 is a class, a moving
motorcyclist, so raw ids are mapped before 255 stands for "no class".
"""

import numpy as np
from numpy.typing import NDArray

from cache_schemas.taxonomy import IGNORE, load_taxonomy

TAXONOMY = "semantickitti19"

RAW_IDS_OF_CLASS = {
    "car": (10, 252),
    "bicycle": (11,),
    "motorcycle": (15,),
    "truck": (18, 258),
    "other-vehicle": (13, 16, 20, 256, 257, 259),
    "person": (30, 254),
    "bicyclist": (31, 253),
    "motorcyclist": (32, 255),
    "road": (40, 60),
    "parking": (44,),
    "sidewalk": (48,),
    "other-ground": (49,),
    "building": (50,),
    "fence": (51,),
    "vegetation": (70,),
    "trunk": (71,),
    "terrain": (72,),
    "pole": (80,),
    "traffic-sign": (81,),
}
RAW_IDS_WITHOUT_CLASS = (0, 1, 52, 99)
"""Unlabeled, outlier, other-structure, other-object."""

REMAPPED_BELOW = 20
"""`remap_semantic_labels.py` writes class numbers 0..19 in place of raw ids. The street of every real sequence has
raw ids from 20 on."""

_RAW_ID_BITS = 0xFFFF


def raw_ids(labels: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return the raw ids (P,) of labels (P,)."""
    return labels & np.uint32(_RAW_ID_BITS)


def classes_of(ids: NDArray[np.uint32]) -> tuple[NDArray[np.uint8], list[int]]:
    """Return the class ids (P,) of raw ids (P,), 255 where there is none, and the raw ids that are unknown, sorted."""
    table = np.full(_RAW_ID_BITS + 1, IGNORE, np.uint8)
    known = np.zeros(_RAW_ID_BITS + 1, bool)
    known[list(RAW_IDS_WITHOUT_CLASS)] = True
    for number, name in enumerate(load_taxonomy(TAXONOMY).names):
        table[list(RAW_IDS_OF_CLASS[name])] = number
        known[list(RAW_IDS_OF_CLASS[name])] = True
    return table[ids], np.unique(ids[~known[ids]]).tolist()

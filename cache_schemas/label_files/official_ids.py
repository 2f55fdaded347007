"""The ids that an official format has for the classes of a taxonomy, both ways."""

import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_schemas.errors import LabelFileError
from cache_schemas.taxonomy import IGNORE, Taxonomy

FREE_FORMATS = ("pointcept", "coco-panoptic")
"""Formats for any taxonomy; the last one is of pictures, and only `labelgen export` has it."""


@dataclass(frozen=True)
class OfficialIds:
    """The official ids of a taxonomy's classes.

    `ids_of_class` has the ids of each class in the order of the taxonomy. The first is the one that is written; the
    others are read as this class too. `unlabelled` are those of no class, and the first is written.
    """

    ids_of_class: tuple[tuple[int, ...], ...]
    unlabelled: tuple[int, ...]

    def encode(self, labels: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return official ids (P,) of label ids (P,); 255 becomes the id of no class.

        Raises:
            ValueError: if a label is neither a class nor 255.
        """
        table = np.full(256, np.iinfo(np.int64).max)
        table[: len(self.ids_of_class)] = [ids[0] for ids in self.ids_of_class]
        table[IGNORE] = self.unlabelled[0]
        known = labels < len(self.ids_of_class)
        if not np.all(known | (labels == IGNORE)):
            wrong = int(labels[~known & (labels != IGNORE)][0])
            raise ValueError(f"label id {wrong} is neither below {len(self.ids_of_class)} nor {IGNORE}")
        return table[labels]

    def decode(self, official: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return label ids (P,) of official ids (P,); an id of no class, and one that is unknown, becomes 255."""
        unique, place = np.unique(official, return_inverse=True)
        class_of = {own: label for label, ids in enumerate(self.ids_of_class) for own in ids}
        labels = np.array([class_of.get(int(own), IGNORE) for own in unique], np.uint8)
        return labels[place.reshape(official.shape)]

    def unknown(self, official: NDArray[np.int64]) -> set[int]:
        """Return the ids among `official` (P,) that the format does not have."""
        known = {own for ids in (*self.ids_of_class, self.unlabelled) for own in ids}
        return set(np.unique(official).tolist()) - known


def official_ids(file_format: str, taxonomy: Taxonomy) -> OfficialIds:
    """Return the ids that `file_format` has for the classes of a taxonomy.

    Raises:
        LabelFileError: if the format has no ids for the taxonomy, or for one of its classes.
    """
    table: dict[str, Any] = json.loads(
        (resources.files(__package__) / f"{file_format}.json").read_text(encoding="utf-8")
    )
    others = f"formats for any taxonomy: {', '.join(FREE_FORMATS)}"
    if taxonomy.name != table["taxonomy"]:
        raise LabelFileError(
            f"{file_format} has no ids for taxonomy {taxonomy.name!r}, only for {table['taxonomy']!r}; {others}"
        )
    classes: dict[str, list[int]] = table["classes"]
    names = [name.replace(" ", "_") for name in taxonomy.names]
    if missing := [name for name in names if name not in classes]:
        raise LabelFileError(f"{file_format} has no id for class {missing[0]!r} of {taxonomy.name!r}; {others}")
    return OfficialIds(tuple(tuple(classes[name]) for name in names), tuple(table["unlabelled"]))

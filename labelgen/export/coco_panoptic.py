"""The panoptic format of COCO, for pictures of any taxonomy.

`panoptic_<split>.json` lists the pictures, the categories, and the segments of each picture. The id of a category is
that of the class plus 1. In `panoptic_<split>/<picture>.png`, red + 256 green + 65536 blue is the segment of a pixel;
0 is none. `<split>/<picture>.png` is the picture at the same size.

A segment is the part of a SAM mask that has one label. Pixels under no mask, and those of classes that are no things,
form one segment a class. `things.json` names the things of each taxonomy; in another one all classes are things.
"""

import io
import json
from collections.abc import Iterator
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cache_schemas.documents import CacheManifest, ShardRecord
from cache_schemas.group_path import GroupPath
from cache_schemas.label_files.point_format import Steps
from cache_schemas.store import Cache
from cache_schemas.taxonomy import IGNORE, Taxonomy
from labelgen.export.shards import cloud_names
from labelgen.inspection.counting.samples import picture_names

PNG_LEVEL = 2
"""This level takes a quarter of the time of the default level, and the files are a tenth larger."""

MASKS = 1 << 16
"""Mask ids are smaller than this."""


class CocoPanoptic:
    """Collects the pictures and segments of an export."""

    name = "coco-panoptic"
    groups = ("images", "sam", "labels")
    """The groups of a shard that are read."""

    def __init__(self, manifest: CacheManifest) -> None:
        """Begin an export of a cache."""
        self._manifest = manifest
        self._is_thing = things(manifest.taxonomy)
        self._splits: dict[str, dict[str, list[dict[str, Any]]]] = {}
        self.labelled = 0
        self.unlabelled = 0

    def files_of_shard(self, cache: Cache, key: str, record: ShardRecord, labels: str) -> Iterator[tuple[Steps, bytes]]:
        """Yield the pictures of a shard and their segments; `labels` is the array of the group `labels` to take."""
        images = cache.read(GroupPath(key, "images"), "rgb", "offsets")
        ids = cache.read(GroupPath(key, "labels"), labels)[labels]
        masks = cache.read(GroupPath(key, "sam"), "mask_ids")["mask_ids"]
        split = self._manifest.split_of(record)
        for index, sample in enumerate(cloud_names(self._manifest, record)):
            first, end = images["offsets"][index : index + 2].tolist()
            pictures = record.pictures_at(first, end)
            for number, picture, camera in zip(range(first, end), pictures, picture_names(pictures), strict=True):
                name = f"{sample.unique}_{camera}.png"
                segments, infos = find_segments(ids[number], masks[number], self._is_thing)
                self._note(split, name, picture.file, infos, ids[number])
                yield (f"panoptic_{split}", name), _png(_as_colours(segments))
                yield (split, name), _png(images["rgb"][number])

    def documents(self) -> Iterator[tuple[Steps, bytes]]:
        """Yield the JSON file of each split, with all its pictures so far."""
        categories = [
            {"id": label + 1, "name": own.name, "isthing": int(thing), "color": list(own.colour)}
            for label, (own, thing) in enumerate(zip(self._manifest.taxonomy.classes, self._is_thing, strict=True))
        ]
        for split, found in self._splits.items():
            yield (f"panoptic_{split}.json",), json.dumps({**found, "categories": categories}).encode()

    def _note(
        self, split: str, name: str, source: str | None, infos: list[dict[str, Any]], labels: NDArray[np.uint8]
    ) -> None:
        found = self._splits.setdefault(split, {"images": [], "annotations": []})
        number, (height, width) = len(found["images"]) + 1, labels.shape
        size = {"width": width, "height": height}
        found["images"].append({"id": number, "file_name": name, "source_file": source, **size})
        found["annotations"].append({"image_id": number, "file_name": name, "segments_info": infos})
        self.labelled += int(np.count_nonzero(labels != IGNORE))
        self.unlabelled += int(np.count_nonzero(labels == IGNORE))


def things(taxonomy: Taxonomy) -> NDArray[np.bool_]:
    """Return which classes (C,) of a taxonomy are things, whose objects can be counted."""
    table = json.loads((resources.files(__package__) / "things.json").read_text(encoding="utf-8"))
    named = table.get(taxonomy.name, [name.replace(" ", "_") for name in taxonomy.names])
    return np.array([name.replace(" ", "_") in named for name in taxonomy.names])


def find_segments(
    labels: NDArray[np.uint8], masks: NDArray[np.uint16], is_thing: NDArray[np.bool_]
) -> tuple[NDArray[np.uint32], list[dict[str, Any]]]:
    """Return the segment of each pixel (H, W), counted from 1, 0 for none, and the entry of each in `segments_info`.

    `labels` (H, W) are label ids, `masks` (H, W) mask ids, 0 for no mask. The box of a segment is x, y, width, height.
    """
    apart = np.zeros(256, bool)
    apart[: len(is_thing)] = is_thing
    keys = labels.astype(np.int64) * MASKS + np.where(apart[labels], masks, 0)
    unique, segments = np.unique(np.where(labels == IGNORE, -1, keys), return_inverse=True)
    segments = segments.reshape(labels.shape) + (0 if unique[0] == -1 else 1)
    infos = []
    for number, key in enumerate(unique[unique >= 0].tolist(), start=1):
        rows, columns = np.nonzero(segments == number)
        top, left = int(rows.min()), int(columns.min())
        infos.append(
            {
                "id": number,
                "category_id": key // MASKS + 1,
                "area": len(rows),
                "bbox": [left, top, int(columns.max()) - left + 1, int(rows.max()) - top + 1],
                "iscrowd": 0,
            }
        )
    return segments.astype(np.uint32), infos


def _as_colours(segments: NDArray[np.uint32]) -> NDArray[np.uint8]:
    return np.stack([segments & 255, segments >> 8 & 255, segments >> 16], axis=-1).astype(np.uint8)


def _png(picture: NDArray[np.uint8]) -> bytes:
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "PNG", compress_level=PNG_LEVEL)
    return content.getvalue()

"""A cache at nuScenes' sizes, made from the demo's: one shard of several samples, with SAM features of full width.

The demo's shards hold one sample each, and its SAM has a quarter of the official channels, so that its caches are
smaller than real ones in just the array that weighs most there. The features are random: near Gaussian, as those of
an untrained SAM. All else is the demo's own.
"""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cache_schemas.array_storage import encode_group
from cache_schemas.documents import CacheManifest
from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from labelgen.teachers.quantisation import quantise

TEXT = GroupPath.root("text")

SAM_GRID = (36, 64, 256)
"""The valid part of the official SAM's embedding of a 1600x900 picture, channels last."""

Groups = dict[str, dict[str, NDArray[Any]]]


def write_nuscenes_size(source: Cache, manifest: CacheManifest, url: str, samples: int) -> None:
    """Write a cache at `url` whose one shard holds the first `samples` samples of the demo's cache `source`."""
    keys = source.shard_keys()[:samples]
    records = source.shard_records(keys)
    groups = _end_to_end(
        [{group: source.read(GroupPath(key, group)) for group in source.shard_seals(key)} for key in keys]
    )
    images = len(groups["images"]["rgb"])
    features = torch.randn(images, *SAM_GRID, generator=torch.Generator().manual_seed(0))
    groups["sam"]["features"], groups["sam"]["features_scale"] = (part.numpy() for part in quantise(features))

    made, scene = Cache.create(url, manifest), records[keys[0]].scene
    text = source.seals([TEXT])[TEXT]
    made.write_group(TEXT, source.read(TEXT), text.provenance)
    tokens = tuple(token for record in records.values() for token in record.samples)
    pictures = tuple(picture for record in records.values() for picture in record.pictures)
    record = records[keys[0]].model_copy(update={"samples": tokens, "clouds": (), "pictures": pictures})
    made.write_shard_record(f"{scene}-000", record)
    for name, seal in source.shard_seals(keys[0]).items():
        made.write_group(
            GroupPath(f"{scene}-000", name), groups[name], replace(seal.provenance, samples=tokens, counts={})
        )


def repeat_shard(url: str, shards: int) -> None:
    """Give the local cache at `url`, which has one shard, copies of it under other names: `shards` in all.

    The copies share the files of arrays, so they take little room.
    """
    cache = Cache(url, "a")
    (first,) = cache.shard_keys()
    record, seals = cache.shard_records([first])[first], cache.shard_seals(first)
    for number in range(1, shards):
        scene = f"{record.scene}-{number:04}"
        tokens = tuple(f"{token}-{number:04}" for token in record.samples)
        shutil.copytree(Path(url, "shards", first), Path(url, "shards", f"{scene}-000"), copy_function=os.link)
        for name, seal in seals.items():
            copied = seal.model_copy(update={"samples": tokens})
            cache.write_document(f"shards/{scene}-000/{name}", encode_group(copied.to_attrs()))
        cache.write_shard_record(f"{scene}-000", record.model_copy(update={"scene": scene, "samples": tokens}))


def _end_to_end(shards: list[Groups]) -> Groups:
    """Join the arrays of shards: pairs and offsets count from the first."""
    for shard, images, points in zip(shards, *(_starts(shards, name) for name in ("images", "points")), strict=True):
        shard["pairs"]["image"] = shard["pairs"]["image"] + np.uint16(images)
        shard["pairs"]["point"] = shard["pairs"]["point"] + np.int32(points)
    joined = {
        group: {name: np.concatenate([shard[group][name] for shard in shards]) for name in shards[0][group]}
        for group in shards[0]
    }
    for group in ("images", "points", "pairs"):
        lengths = [length for shard in shards for length in np.diff(shard[group]["offsets"])]
        joined[group]["offsets"] = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return joined


def _starts(shards: list[Groups], group: str) -> list[int]:
    lengths = [int(shard[group]["offsets"][-1]) for shard in shards]
    return [0, *np.cumsum(lengths)[:-1].tolist()]

"""Writes small caches for the tests of all packages: manifest, records and seals. The tests supply the arrays."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cache_schemas.documents import (
    CacheManifest,
    Picture,
    PromptRecord,
    Provenance,
    ShardRecord,
    TeacherIdentity,
    Teachers,
)
from cache_schemas.group_path import GroupPath
from cache_schemas.layout import SCHEMA_VERSION, TEACHERS
from cache_schemas.store import Cache
from cache_schemas.taxonomy import Taxonomy, TaxonomyClass

NAMES = ("car", "road", "tree")
COLOURS = ((255, 0, 0), (90, 90, 90), (0, 128, 0))
UPSTREAM = {"clip": ("images", "text"), "sam": ("images",), "pairs": ("points",), "labels": ("clip", "sam", "pairs")}
"""The groups that a group is made from, as in a real cache."""

Groups = Mapping[str, Mapping[str, NDArray[np.generic]]]


def toy_taxonomy(names: Sequence[str] = NAMES, name: str = "toy") -> Taxonomy:
    """Return a taxonomy of three classes."""
    classes = tuple(TaxonomyClass(name=own, colour=colour) for own, colour in zip(names, COLOURS, strict=True))
    return Taxonomy(name=name, classes=classes)


def toy_manifest(
    names: Sequence[str] = NAMES, *, dataset: str = "toy", split: str = "all", **fields: object
) -> CacheManifest:
    """Return a manifest with three classes and trained networks, of one data set; `fields` replace its own."""
    taxonomy = toy_taxonomy(names)
    network = TeacherIdentity(architecture="toy", weights="toy.safetensors", sha256="ab" * 32)
    defaults: dict[str, object] = {
        "schema_version": SCHEMA_VERSION,
        "sources": ({"dataset": dataset, "split": split},),
        "taxonomy": taxonomy,
        "taxonomy_digest": taxonomy.digest,
        "prompts": PromptRecord(name="toy", digest="0", class_names={n: (n,) for n in names}, templates=("a {}.",)),
        "teachers": Teachers(preset="toy", networks=dict.fromkeys(TEACHERS, network)),
        "config": {},
        "config_digest": "0",
        "software": {"labelgen": "0"},
    }
    return CacheManifest.model_validate({**defaults, **fields})


def create_toy_cache(url: str, manifest: CacheManifest, *, embedding_size: int) -> Cache:
    """Create a cache with its manifest and unit class embeddings, (3, embedding_size)."""
    cache = Cache.create(url, manifest)
    embeddings = np.eye(len(manifest.taxonomy.classes), embedding_size, dtype=np.float32)
    cache.write_group(GroupPath.root("text"), {"embeddings": embeddings}, Provenance(fingerprint_of("text")))
    return cache


def write_toy_shard(
    cache: Cache,
    scene: str,
    groups: Groups,
    samples: Sequence[str],
    *,
    clouds: Sequence[str] = (),
    cameras: Sequence[str] = ("front", "rear"),
) -> None:
    """Write the first shard of a scene, `<scene>-000`: its record, and its groups with their seals."""
    key, tokens = f"{scene}-000", tuple(samples)
    images = np.diff(groups["images"]["offsets"]) if "images" in groups else [len(cameras)] * len(tokens)
    pictures = tuple(
        Picture(camera, f"{token}/{camera}.jpg", 64, 48)
        for token, count in zip(tokens, images, strict=True)
        for camera in itertools.islice(itertools.cycle(cameras), int(count))
    )
    record = ShardRecord(dataset="toy", scene=scene, samples=tokens, clouds=tuple(clouds), pictures=pictures)
    cache.write_shard_record(key, record)
    for name, arrays in groups.items():
        upstream = {source: fingerprint_of(source) for source in UPSTREAM.get(name, ())}
        counts = {"masks": int(arrays["mask_ids"].max(initial=0))} if name == "sam" else {}
        provenance = Provenance(fingerprint_of(name), upstream=upstream, samples=tokens, counts=counts)
        cache.write_group(GroupPath(key, name), arrays, provenance)


def fingerprint_of(group: str) -> str:
    """Return the fingerprint that a toy cache's group has."""
    return f"f-{group}"

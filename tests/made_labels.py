"""Caches with random labels and truth of points in the taxonomy of an official data set."""

import numpy as np
from numpy.typing import NDArray

from cache_schemas.documents import PromptRecord
from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from cache_schemas.taxonomy import load_taxonomy
from tests.toy_cache import Groups, create_toy_cache, toy_manifest, write_toy_shard

CLOUDS = {
    "nuscenes16": {"scene-0061": ["a1", "a2"], "scene-0103": ["b1"]},
    "semantickitti19": {"08": ["08_000000", "08_000001"]},
    "scannet20": {"scene0000_00": ["scene0000_00"], "scene0001_00": ["scene0001_00"]},
}
"""The samples of each scene, by the name of the taxonomy; a sample is called as its cloud."""

DATASETS = {"nuscenes16": "nuscenes", "semantickitti19": "semantickitti", "scannet20": "scannet"}

HEIGHT, WIDTH = 8, 12
CAM_FROM_CLOUD = np.array([[0, -1, 0, 0.1], [0, 0, -1, -0.2], [1, 0, 0, -0.3], [0, 0, 0, 1]], np.float64)


def write_label_cache(place: str, name: str, points: int = 400, seed: int = 0, classes: int | None = None) -> str:
    """Write a cache with the taxonomy and samples `name`; returns its place.

    Labels are right for about two thirds of the points, and a fifth of the points has no label. Only the first
    `classes` classes occur (None: all).
    """
    rng = np.random.default_rng(seed)
    taxonomy = load_taxonomy(name)
    prompts = PromptRecord(name="made", digest="0", class_names={own: (own,) for own in taxonomy.names}, templates=())
    fields = {"taxonomy": taxonomy, "taxonomy_digest": taxonomy.digest, "split": "val", "dataset": DATASETS[name]}
    cache = create_toy_cache(place, toy_manifest(prompts=prompts, **fields), embedding_size=32)
    occurring = classes or len(taxonomy.classes)
    for scene, tokens in CLOUDS[name].items():
        groups = _groups(rng, len(tokens), points, len(taxonomy.classes), occurring)
        write_toy_shard(cache, scene, groups, tokens, clouds=tokens, cameras=("front",))
    return place


def _groups(rng: np.random.Generator, samples: int, points: int, classes: int, occurring: int) -> Groups:
    ends, total = np.arange(samples + 1), samples * points
    truth = np.concatenate([rng.permutation(np.arange(points) % occurring) for _ in range(samples)])
    raw, voted = (np.where(rng.random(total) < 0.6, truth, rng.integers(0, occurring, total)) for _ in range(2))
    unseen = rng.random(total) < 0.2
    row, col = rng.integers(0, HEIGHT, total), rng.integers(0, WIDTH, total)
    seen = np.flatnonzero(~unseen)
    image_truth = rng.integers(0, occurring, (samples, HEIGHT, WIDTH)).astype(np.uint8)
    pictures = {
        "image_raw": np.where(rng.random(image_truth.shape) < 0.5, image_truth, 0).astype(np.uint8),
        "image": np.where(rng.random(image_truth.shape) < 0.9, image_truth, 255).astype(np.uint8),
    }
    return {
        "images": {
            "rgb": rng.integers(0, 256, (samples, HEIGHT, WIDTH, 3)).astype(np.uint8),
            "intrinsics": np.tile(np.array([[700.25, 0, 6.5], [0, 701.5, 4.25], [0, 0, 1]]), (samples, 1, 1)),
            "cam_from_cloud": np.tile(CAM_FROM_CLOUD, (samples, 1, 1)),
            "offsets": ends,
        },
        "clip": {"logits": rng.uniform(-1, 1, (samples, classes, 2, 3)).astype(np.float16)},
        "sam": {
            "mask_ids": rng.integers(0, 4, (samples, HEIGHT, WIDTH)).astype(np.uint16),
            "features": np.zeros((samples, 1, 2, 4), np.float16),
        },
        "points": {
            "xyz": rng.uniform(-40, 40, (total, 3)).astype(np.float32),
            "intensity": rng.random(total).astype(np.float32),
            "offsets": ends * points,
        },
        "pairs": {
            "point": seen.astype(np.int32),
            "image": (seen // points).astype(np.uint16),
            "row": row[seen].astype(np.uint16),
            "col": col[seen].astype(np.uint16),
            "offsets": np.searchsorted(seen, ends * points),
        },
        "labels": {
            **pictures,
            "point_raw": np.where(unseen, 255, raw).astype(np.uint8),
            "point": np.where(unseen, 255, voted).astype(np.uint8),
        },
        "truth": {"image": image_truth, "point": np.where(rng.random(total) < 0.1, 255, truth).astype(np.uint8)},
    }


def read_points(cache_url: str, group: str, array: str) -> dict[str, NDArray[np.uint8]]:
    """Return an array of points of a cache by sample token."""
    cache = Cache(cache_url)
    found = {}
    for key, record in cache.shard_records(cache.shard_keys()).items():
        ends = cache.read(GroupPath(key, "points"), "offsets")["offsets"]
        values = cache.read(GroupPath(key, group), array)[array]
        for index, token in enumerate(record.samples):
            found[token] = values[ends[index] : ends[index + 1]]
    return found

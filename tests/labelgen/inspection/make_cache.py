"""Make small caches through the store's own functions, for tests of the audit."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.toy_cache import create_toy_cache, toy_manifest, write_toy_shard

HEIGHT, WIDTH = 4, 6


def make_cache(place: Path, scenes: dict[str, Sequence[dict[str, Any]]], names: Sequence[str]) -> str:
    """Write a cache with a finished shard a scene, given as samples by scene; returns its path.

    A sample has two images of 4 x 6 pixels and four points: point 0 at pixel (0, 0) of image 0, point 1 at (1, 1) of
    image 0 and (2, 2) of image 1, point 2 at (3, 3) of image 1, point 3 unseen. Of each sample come `raw`, `voted`,
    `masks` and optionally `truth`, each (2, 4, 6) or what fills it; points take the label at their first pixel.
    """
    cache = create_toy_cache(str(place), toy_manifest(names), embedding_size=4)
    for scene, samples in scenes.items():
        tokens = [f"{scene}-{i}" for i in range(len(samples))]
        write_toy_shard(cache, scene, _groups(samples), tokens, cameras=("FRONT", "BACK"))
    return str(place)


def _groups(samples: Sequence[dict[str, Any]]) -> dict[str, dict[str, np.ndarray]]:
    count = len(samples)
    pictures = {
        name: np.concatenate([np.broadcast_to(sample[name], (2, HEIGHT, WIDTH)) for sample in samples])
        for name in ("raw", "voted", "masks", "truth")
        if name in samples[0]
    }
    by_sample = np.arange(count)
    groups = {
        "images": {
            "rgb": np.full((2 * count, HEIGHT, WIDTH, 3), 100, np.uint8),
            "intrinsics": np.tile(np.eye(3), (2 * count, 1, 1)),
            "cam_from_cloud": np.tile(np.eye(4), (2 * count, 1, 1)),
            "offsets": 2 * np.arange(count + 1),
        },
        "clip": {
            "logits": np.concatenate([np.broadcast_to(s.get("logits", 0.0), (2, 3, 1, 2)) for s in samples]).astype(
                np.float16
            )
        },
        "sam": {
            "mask_ids": pictures["masks"].astype(np.uint16),
            "features": np.zeros((2 * count, 1, 2, 4), np.float16),
        },
        "points": {
            "xyz": np.tile(np.array([[5, 0, 0], [0, 5, 0], [-5, 0, 1], [0, -5, 1]], np.float32), (count, 1)),
            "intensity": np.zeros(4 * count, np.float32),
            "offsets": 4 * np.arange(count + 1),
        },
        "pairs": {
            "point": np.concatenate([4 * s + np.array([0, 1, 1, 2]) for s in by_sample]).astype(np.int32),
            "image": np.concatenate([2 * s + np.array([0, 0, 1, 1]) for s in by_sample]).astype(np.uint16),
            "row": np.tile(np.array([0, 1, 2, 3], np.uint16), count),
            "col": np.tile(np.array([0, 1, 2, 3], np.uint16), count),
            "offsets": 4 * np.arange(count + 1),
        },
        "labels": {
            "image_raw": pictures["raw"].astype(np.uint8),
            "image": pictures["voted"].astype(np.uint8),
            "point_raw": _at_points(pictures["raw"]),
            "point": _at_points(pictures["voted"]),
        },
    }
    if "truth" in pictures:
        point = _at_points(pictures["truth"])
        groups["truth"] = {"image": pictures["truth"].astype(np.uint8), "point": point}
    return groups


def _at_points(pictures: np.ndarray) -> np.ndarray:
    first, second = pictures[0::2], pictures[1::2]
    points = [first[:, 0, 0], first[:, 1, 1], second[:, 3, 3], np.full(len(first), 255)]
    return np.stack(points, axis=1).reshape(-1).astype(np.uint8)

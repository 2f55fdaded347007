"""Time and peak memory of `labelgen inspect` as a cache grows to the size of nuScenes: 2,000 shards of 17 keyframes.

    python -m benchmarks.audit [--shards 500 1000 2000] [--keyframes 17]

The made cache has ten different shards at nuScenes' training size with labels, masks, scores, points and pairs; the
others are hard links to them, so that it takes little disk but all the reading, unpacking and counting.
"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from cache_schemas.documents import (
    CacheManifest,
    Picture,
    PromptRecord,
    Provenance,
    ShardRecord,
    Source,
    TeacherIdentity,
    Teachers,
)
from cache_schemas.group_path import GroupPath
from cache_schemas.layout import SCHEMA_VERSION
from cache_schemas.store import Cache
from cache_schemas.taxonomy import load_taxonomy

DISTINCT = 10
CAMERAS, HEIGHT, WIDTH, CLASSES = 6, 224, 416, 16
POINTS, PAIRS = 34_000, 26_000


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--shards", "sizes", multiple=True, type=int, default=(500, 1000, 2000), show_default=True)
@click.option("--keyframes", default=17, show_default=True, help="Keyframes a shard.")
def main(sizes: tuple[int, ...], keyframes: int) -> None:
    """Make caches of growing size, inspect each in a process of its own, and print time and peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "cache.zarr"
        _write_distinct(place, keyframes)
        for size in sorted(sizes):
            _grow(place, size)
            seconds, peak = _inspect(place)
            print(
                f"{size:>6,} shards, {size * keyframes:>7,} keyframes: {seconds:7.1f} s, "
                f"{1000 * seconds / (size * keyframes):5.1f} ms a keyframe, peak {peak / 2**20:6.1f} MiB",
                flush=True,
            )


def _inspect(place: Path) -> tuple[float, int]:
    """Run `labelgen inspect` on a cache; returns seconds and the largest resident size of a child so far, bytes."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "labelgen.cli", "inspect", str(place)], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def _grow(place: Path, size: int) -> None:
    """Add shards until there are `size`: array files are links, documents name samples of their own."""
    for index in range(DISTINCT, size):
        source, target = (place / "shards" / f"{_scene(i)}-000" for i in (index % DISTINCT, index))
        if not target.exists():
            shutil.copytree(source, target, copy_function=os.link)
            for document in (target / "zarr.json", *target.glob("*/zarr.json")):
                text = document.read_text().replace(_scene(index % DISTINCT), _scene(index))
                document.unlink()
                document.write_text(text)


def _scene(index: int) -> str:
    return f"made{index:05}"


def _write_distinct(place: Path, keyframes: int) -> None:
    taxonomy = load_taxonomy("nuscenes16")
    teacher = TeacherIdentity(architecture="made", weights="made", sha256="00" * 32)
    manifest = CacheManifest(
        schema_version=SCHEMA_VERSION,
        sources=(Source(dataset="nuscenes", split="all"),),
        taxonomy=taxonomy,
        taxonomy_digest=taxonomy.digest,
        prompts=PromptRecord(name="made", digest="0", class_names={n: (n,) for n in taxonomy.names}, templates=("{}",)),
        teachers=Teachers(preset="made", networks={"clip": teacher, "sam": teacher}),
        config={},
        config_digest="0",
        software={"labelgen": "0"},
    )
    cache = Cache.create(str(place), manifest)
    embeddings = np.eye(CLASSES, 512, dtype=np.float32)
    cache.write_group(GroupPath.root("text"), {"embeddings": embeddings}, Provenance("text"))
    for index in range(DISTINCT):
        scene = _scene(index)
        key, samples = f"{scene}-000", tuple(f"{scene}-{i}" for i in range(keyframes))
        images = [(f"CAM_{i}", f"{token}/{i}.jpg") for token in samples for i in range(CAMERAS)]
        pictures = tuple(Picture(camera, file, WIDTH, HEIGHT) for camera, file in images)
        cache.write_shard_record(key, ShardRecord(dataset="nuscenes", scene=scene, samples=samples, pictures=pictures))
        for name, arrays in _arrays(np.random.default_rng(index), keyframes).items():
            cache.write_group(GroupPath(key, name), arrays, Provenance(f"{index}{name}", samples=samples))


def _arrays(rng: np.random.Generator, keyframes: int) -> dict[str, dict[str, NDArray[np.generic]]]:
    images, points, pairs = CAMERAS * keyframes, POINTS * keyframes, PAIRS * keyframes
    raw, voted = (_patches(rng, images, step, CLASSES).astype(np.uint8) for step in (8, 32))
    labels = rng.integers(0, CLASSES, points).astype(np.uint8)
    return {
        "images": {
            "rgb": np.zeros((images, HEIGHT, WIDTH, 3), np.uint8),
            "intrinsics": np.tile(np.eye(3), (images, 1, 1)),
            "cam_from_cloud": np.tile(np.eye(4), (images, 1, 1)),
            "offsets": CAMERAS * np.arange(keyframes + 1),
        },
        "clip": {"logits": rng.normal(0.2, 0.02, (images, CLASSES, 14, 26)).astype(np.float16)},
        "sam": {
            "mask_ids": _patches(rng, images, 16, 60).astype(np.uint16),
            "features": np.zeros((images, 1, 1, 256), np.float16),
        },
        "points": {
            "xyz": np.zeros((points, 3), np.float32),
            "intensity": np.zeros(points, np.float32),
            "offsets": POINTS * np.arange(keyframes + 1),
        },
        "pairs": {
            "point": (rng.integers(0, POINTS, pairs) + POINTS * (np.arange(pairs) // PAIRS)).astype(np.int32),
            "image": (rng.integers(0, CAMERAS, pairs) + CAMERAS * (np.arange(pairs) // PAIRS)).astype(np.uint16),
            "row": rng.integers(0, HEIGHT, pairs).astype(np.uint16),
            "col": rng.integers(0, WIDTH, pairs).astype(np.uint16),
            "offsets": PAIRS * np.arange(keyframes + 1),
        },
        "labels": {"image_raw": raw, "image": voted, "point_raw": labels, "point": labels},
        "truth": {"point": labels},
    }


def _patches(rng: np.random.Generator, images: int, step: int, values: int) -> NDArray[np.int64]:
    """Return pictures (I, H, W) of square patches of random values, as labels and masks are: even inside."""
    small = rng.integers(0, values, (images, HEIGHT // step + 1, WIDTH // step + 1))
    return small.repeat(step, axis=1).repeat(step, axis=2)[:, :HEIGHT, :WIDTH]


if __name__ == "__main__":
    main()

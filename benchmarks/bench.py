"""All comparisons on one machine, in one run.

    make bench

    python -m benchmarks.bench --data out/demo --cache out/demo.zarr [--nuscenes FOLDER] [--threads 1] [--out FOLDER]

Needs the demo world and its cache (`make labels`). Where a real nuScenes keyframe is at hand, projection and raw
loading are measured on it too. Prints a table, and writes results.json and results.md.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks.clip import compare_clip
from benchmarks.labels import (
    compare_projection,
    compare_sampling,
    compare_votes,
    compare_voxels,
    enlarge,
    superpixels,
)
from benchmarks.loader import compare_loaders, compare_packed, compare_with_keyframe
from benchmarks.made_cache import SAM_GRID, write_nuscenes_size
from benchmarks.masks import compare_masks
from benchmarks.measure import Row
from benchmarks.storage import compare_bytes, compare_reads, int8_error
from cache_schemas.documents import CacheManifest
from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from labelgen.datasets import find_dataset
from labelgen.datasets.adapter import Adapter
from labelgen.pictures import read_native_images
from labelgen.samples import Sample
from labelgen.settings import ClipSettings, SamSettings

NATIVE = (900, 1600)
"""Height and width of nuScenes' pictures."""
SAMPLES = 8


def rows(data: Path, url: str, nuscenes: Path | None) -> Iterator[Row]:
    """Yield every comparison."""
    cache, manifest = Cache.open(url)
    adapter = find_dataset(manifest.dataset).adapter(data)
    sample = adapter.scenes(manifest.split, None)[0].samples[0]
    yield from _teachers(adapter, sample, cache, manifest)
    yield from _labels(adapter, sample, cache)
    if nuscenes:
        real = find_dataset("nuscenes").adapter(nuscenes)
        keyframe = real.scenes("all", None)[0].samples[0]
        size = cache.arrays(GroupPath(cache.shard_keys()[0], "images"))["rgb"].shape[1:3]
        yield from compare_projection(real.read_cloud(keyframe).xyz, keyframe.cameras, size, "nuScenes")
    yield from _storage(url, data, nuscenes, cache, manifest)


def _shard_of(cache: Cache, sample: Sample) -> str:
    records = cache.shard_records(cache.shard_keys())
    return next(key for key, record in records.items() if sample.token in record.samples)


def _teachers(adapter: Adapter, sample: Sample, cache: Cache, manifest: CacheManifest) -> Iterator[Row]:
    picture, sam = read_native_images(adapter, sample)[0], SamSettings(**manifest.config["sam"])
    yield from compare_masks(picture, sam, NATIVE)
    yield int8_error(picture, sam)
    prompts = manifest.prompts
    sentences = [
        [t.replace("{}", n) for n in names for t in prompts.templates] for names in prompts.class_names.values()
    ]
    rgb = cache.read(GroupPath(_shard_of(cache, sample), "images"), "rgb")["rgb"][: len(sample.cameras)]
    network = {name: manifest.config["clip"].get(name) for name in ("architecture", "weights", "mean", "std")}
    yield from compare_clip(rgb, ClipSettings(**network), sentences)  # the paper's reading, whatever the cache has


def _labels(adapter: Adapter, sample: Sample, cache: Cache) -> Iterator[Row]:
    shard, images, cloud = _shard_of(cache, sample), len(sample.cameras), adapter.read_cloud(sample)
    rgb, masks, logits = (
        cache.read(GroupPath(shard, group), name)[name][:images]
        for group, name in (("images", "rgb"), ("sam", "mask_ids"), ("clip", "logits"))
    )
    size, regions = rgb.shape[1:3], superpixels(rgb)
    yield from compare_votes(masks, logits, "SAM masks")
    yield from compare_votes(regions, logits, "superpixels")
    yield from compare_votes(enlarge(regions, NATIVE), logits, "superpixels", rounds=3)
    yield from compare_projection(cloud.xyz, sample.cameras, size, "demo")
    pairs = cache.read(GroupPath(shard, "pairs"))
    mine = pairs["image"] < images
    place = np.stack([(pairs["row"][mine] + 0.5) / size[0], (pairs["col"][mine] + 0.5) / size[1]], axis=1)
    grid = np.random.default_rng(0).normal(size=(images, *SAM_GRID)).astype(np.float32)
    yield compare_sampling(grid, pairs["image"][mine].astype(np.int64), place.astype(np.float32))
    yield compare_voxels(cloud.xyz)


def _storage(url: str, data: Path, nuscenes: Path | None, cache: Cache, manifest: CacheManifest) -> Iterator[Row]:
    yield from compare_reads(url, "demo")
    yield from compare_bytes(url, "demo")
    yield from compare_loaders(data, url, SAMPLES)
    yield compare_packed(url, SAMPLES)
    with tempfile.TemporaryDirectory() as folder:
        made = f"{folder}/made.zarr"
        write_nuscenes_size(cache, manifest, made, SAMPLES)
        yield from compare_reads(made, "nuScenes' sizes")
        yield from compare_bytes(made, "nuScenes' sizes")
        if nuscenes:
            yield compare_with_keyframe(nuscenes, made, SAMPLES)


def table(found: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| what | against | ratio | equal | sizes |", "|---|---|---|---|---|"]
    lines += [f"| {r.name} | {r.other} | {r.ratio:.1f} | {r.equal} | {r.sizes} |" for r in found]
    return "\n".join(lines)


def machine(threads: int) -> str:
    """Describe the machine."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{model}, {os.cpu_count()} cores of which {threads} used, {versions}"


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", required=True)
    parser.add_argument("--nuscenes", type=Path, help="a folder in nuScenes' layout with a real keyframe")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    start, found = time.monotonic(), []
    for row in rows(args.data, args.cache, args.nuscenes):
        print(f"{row.name:24} {row.ratio:10.1f} x {row.other:42} {row.equal}; {row.sizes}", flush=True)
        found.append(row)
    described = machine(args.threads)
    (args.out / "results.json").write_text(
        json.dumps({"machine": described, "rows": [row.to_dict() for row in found]}, indent=2) + "\n"
    )
    (args.out / "results.md").write_text(f"# Benchmarks\n\n`make bench` on: {described}.\n\n{table(found)}\n")
    print(f"{time.monotonic() - start:.0f} s in all; wrote {args.out / 'results.md'}")


if __name__ == "__main__":
    main()

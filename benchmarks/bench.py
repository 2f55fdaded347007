"""All comparisons on one machine, in one run.

    make bench

    python -m benchmarks.bench --data out/demo --cache out/demo.zarr [--threads 1] [--out benchmarks]

Needs the demo world and its cache (`make labels`). Prints a table, and writes results.json and results.md.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks.labels import compare_projection, compare_sampling, compare_votes, compare_voxels
from benchmarks.masks import compare_clip, compare_masks
from benchmarks.measure import Row
from benchmarks.storage import compare_bytes, compare_reads, int8_error
from cache_schemas.store import Cache
from labelgen.datasets import ADAPTERS
from labelgen.refine import upsample_scores
from labelgen.settings import ClipSettings, SamSettings
from labelgen.shard import read_native_images


def rows(data: Path, url: str) -> Iterator[Row]:
    """Yield every comparison."""
    cache, manifest = Cache.open(url)
    adapter = ADAPTERS[manifest.dataset](data)
    sample = adapter.scenes(manifest.split, None)[0].samples[0]
    key = next(key for key, record in cache.shard_records(cache.shard_keys()).items() if sample.token in record.samples)
    groups = {name: cache.read(f"shards/{key}/{name}") for name in ("images", "clip", "sam", "labels", "pairs")}
    picture = read_native_images(adapter, sample)[0]
    cloud = adapter.read_cloud(sample)
    images = len(sample.cameras)
    labels, masks = (groups[g][n][:images] for g, n in (("labels", "image_raw"), ("sam", "mask_ids")))
    size = labels.shape[1:]

    sam = SamSettings(**manifest.config["sam"])
    yield from compare_masks(picture, sam)
    yield compare_clip(groups["images"]["rgb"][: 2 * images], ClipSettings(**manifest.config["clip"]))
    scores = upsample_scores(groups["clip"]["logits"][:images], size)
    yield from compare_votes(labels, masks, scores, len(manifest.taxonomy.classes))
    yield compare_projection(cloud.xyz, sample.cameras, size)
    pairs = groups["pairs"]
    mine = pairs["image"] < images
    place = np.stack([(pairs["row"][mine] + 0.5) / size[0], (pairs["col"][mine] + 0.5) / size[1]], axis=1)
    grid = np.random.default_rng(0).normal(size=(images, 36, 64, 256)).astype(np.float32)
    yield compare_sampling(grid, pairs["image"][mine].astype(np.int64), place.astype(np.float32))
    yield compare_voxels(cloud.xyz)
    yield from compare_reads(url)
    yield from compare_bytes(url, len(cache.shard_records([key])[key].samples))
    yield int8_error(picture, sam)


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
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    start, found = time.monotonic(), []
    for row in rows(args.data, args.cache):
        print(f"{row.name:24} {row.ratio:8.1f} x {row.other:36} {row.equal}", flush=True)
        found.append(row)
    loader = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.loader",
            "--data",
            str(args.data),
            "--cache",
            args.cache,
            "--json",
            "/dev/stdout",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    seconds = json.loads(loader.stdout[loader.stdout.index("{") :])
    for other in ("zarr-python", "raw files"):
        ours, theirs = seconds["seconds"]["stream"], seconds["seconds"][other]
        equal = "equal" if other == "zarr-python" else f"{100 * seconds['agreement']['pairs in common']:.1f} % of pairs"
        found.append(Row("load a training sample", other, ours, theirs, theirs / ours, equal, "one core"))
        print(f"{'load a training sample':24} {theirs / ours:8.1f} x {other}")
    described = machine(args.threads)
    (args.out / "results.json").write_text(
        json.dumps({"machine": described, "rows": [row.to_dict() for row in found]}, indent=2) + "\n"
    )
    (args.out / "results.md").write_text(f"# Benchmarks\n\n`make bench` on: {described}.\n\n{table(found)}\n")
    print(f"{time.monotonic() - start:.0f} s in all; wrote {args.out / 'results.md'}")


if __name__ == "__main__":
    main()

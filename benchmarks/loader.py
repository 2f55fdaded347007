"""Samples a second on one core: our stream, the same cache through zarr-python, and a loader of raw files.

    python benchmarks/loader.py --data out/demo --cache out/demo.zarr [--samples 8] [--rounds 5] [--json FILE]

`--cache` is a cache of the nuScenes-like folder `--data`. All three give the same pictures at training size, points,
pairs and voxels; the caches give labels, masks and SAM features besides, which a raw loader would have to compute. The
raw loader does what training code commonly does: it decodes full-size JPEGs, resizes them, carries the cloud through
the four frames of the official devkit's chain for each camera, and groups voxels with `np.unique` on rows. Runs are
interleaved; the figure is the median of the rounds.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cache_schemas.store import Cache
from labelgen.datasets import ADAPTERS
from labelgen.samples import Sample
from trainer.batch import Batches, arrays_to_train
from trainer.settings import RunSettings, load_settings
from trainer.stream import CacheStream, SampleArrays, SampleRef, Step

MIN_DEPTH_M, VOXEL_M = 1.0, 0.1


class ZarrStream(CacheStream):
    """The same stream, but each array is read as zarr-python reads it."""

    def __init__(self, url: str, needed: Sequence[str], optional: Sequence[str]) -> None:
        """Open the cache twice: by our reader, for the list of samples, and by zarr-python."""
        super().__init__(url, needed, optional=optional)
        self._wanted_arrays = [*needed, *optional]
        self._cache, self._zarr = Cache(url), {}

    def read(self, ref: SampleRef, images: Sequence[int] | None = None) -> SampleArrays:
        """Return what CacheStream.read returns, for all images."""
        if ref.shard not in self._zarr:
            groups = {name.split("/")[0] for name in self._wanted_arrays} | {"images", "points", "pairs"}
            opened = {group: self._cache.arrays(f"shards/{ref.shard}/{group}") for group in groups}
            ends = {axis: opened[g]["offsets"][:] for axis, g in (("I", "images"), ("P", "points"), ("N", "pairs"))}
            self._zarr[ref.shard] = opened, ends
        opened, ends = self._zarr[ref.shard]
        bounds = {axis: slice(*map(int, found[ref.place : ref.place + 2])) for axis, found in ends.items()}
        found = {}
        for name in self._wanted_arrays:
            group, array = name.split("/")
            axis = "N" if group == "pairs" else "P" if group == "points" or array.startswith("point") else "I"
            found[name] = opened[group][array][bounds[axis]]
        found["pairs/image"] = found["pairs/image"].astype(np.int64) - bounds["I"].start
        found["pairs/point"] = found["pairs/point"].astype(np.int64) - bounds["P"].start
        return found | {name: found[name].astype(np.int64) for name in ("pairs/row", "pairs/col")}


def load_raw(data: Path, sample: Sample, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Return pictures, points, pairs and voxels of a sample from its raw files."""
    height, width = size
    points = np.fromfile(data / sample.cloud_path, np.float32).reshape(-1, 5)
    rgb, pairs = [], []
    for number, camera in enumerate(sample.cameras):
        with Image.open(data / camera.image_path) as picture:
            rgb.append(np.asarray(picture.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)))
        cloud = points[:, :3].T.astype(np.float32)
        # Lidar -> ego -> global -> ego -> camera: four rotations and shifts, whose product the adapter composed.
        for frame in (np.eye(4), np.eye(4), np.eye(4), camera.cam_from_cloud):
            cloud = (frame[:3, :3] @ cloud + frame[:3, 3:]).astype(np.float32)
        depth = cloud[2]
        scale = np.array([width / camera.width_px, height / camera.height_px, 1])[:, None]
        pixel = (camera.intrinsics @ cloud)[:2] / np.maximum(depth, 1e-6)
        pixel = (pixel + 0.5) * scale[:2] - 0.5
        seen = (depth > MIN_DEPTH_M) & (pixel > 1).all(axis=0) & (pixel[0] < width - 2) & (pixel[1] < height - 2)
        col, row = np.rint(pixel[:, seen]).astype(np.int64)
        pairs.append(np.stack([np.flatnonzero(seen), np.full(seen.sum(), number), row, col]))
    cells = np.floor(points[:, :3] / VOXEL_M).astype(np.int32)
    voxels, inverse = np.unique(cells - cells.min(axis=0), axis=0, return_inverse=True)
    return {"rgb": np.stack(rgb), "pairs": np.concatenate(pairs, axis=1), "voxels": voxels, "inverse": inverse}


def check(raw: dict[str, np.ndarray], batches: Batches, other: Batches, number: int) -> dict[str, float]:
    """Return how far the three agree on a sample; raises if the two readers of the cache differ at all."""
    ours, theirs = batches[Step(0, 0, (number,))], other[Step(0, 0, (number,))]
    for name in ("rgb", "pixel_labels", "mask_ids", "voxels", "point_voxel", "pair_point", "pair_row", "pair_col"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    assert torch.equal(ours.features["sam"], theirs.features["sam"])
    mine = set(zip(*(getattr(ours, f"pair_{n}").tolist() for n in ("point", "image", "row", "col")), strict=True))
    direct = set(zip(*raw["pairs"].tolist(), strict=True))
    difference = np.abs(ours.rgb.permute(0, 2, 3, 1).numpy() - raw["rgb"].astype(float))
    return {
        "pairs in common": len(mine & direct) / max(1, len(mine | direct)),
        "voxels": len(ours.voxels) / len(raw["voxels"]),
        "mean difference of pictures": float(difference.mean()),
    }


def seconds(load: Callable[[int], object], samples: int) -> float:
    """Return the seconds that a sample takes."""
    start = time.perf_counter()
    for number in range(samples):
        load(number)
    return (time.perf_counter() - start) / samples


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", required=True)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    plain = ["augment.images=false", "augment.clouds=false", "stream.images=99", f"networks.voxel_m={VOXEL_M}"]
    settings: RunSettings = load_settings("demo", overrides=plain)
    needed, optional = arrays_to_train(settings)
    stream = CacheStream(args.cache, needed, optional=optional)
    other = ZarrStream(args.cache, needed, optional)
    samples = stream.samples[: args.samples]
    by_token = {
        sample.token: sample
        for scene in ADAPTERS[stream.manifest.dataset](args.data).scenes(stream.manifest.split, None)
        for sample in scene.samples
    }
    ours, theirs = Batches(stream, samples, settings), Batches(other, samples, settings)
    size = ours[Step(0, 0, (0,))].rgb.shape[2:]

    def raw(number: int) -> dict[str, np.ndarray]:
        return load_raw(args.data, by_token[samples[number].token], size)

    agreement = check(raw(0), ours, theirs, 0)
    loaders = {
        "stream": lambda number: ours[Step(0, 0, (number,))],
        "zarr-python": lambda number: theirs[Step(0, 0, (number,))],
        "raw files": raw,
    }
    rounds = [{name: seconds(load, len(samples)) for name, load in loaders.items()} for _ in range(args.rounds)]
    medians = {name: statistics.median(round_[name] for round_ in rounds) for name in loaders}
    first = next(iter(by_token.values())).cameras[0]
    print(f"{len(samples)} samples of {len(by_token)}, pictures {first.width_px}x{first.height_px}, one core")
    for name, each in medians.items():
        print(f"{name:12} {1 / each:8.1f} samples/s   stream is {each / medians['stream']:6.1f} times as fast")
    for what, value in agreement.items():
        print(f"{what}: {value:.4f}")
    if args.json:
        args.json.write_text(json.dumps({"seconds": medians, "agreement": agreement}, indent=2) + "\n")


if __name__ == "__main__":
    main()

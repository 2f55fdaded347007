"""Samples a second on one core: our stream on a cache, folder and packed; zarr-python on it; a loader of raw files.

    python -m benchmarks.loader --data out/demo --cache out/demo.zarr [--samples 8]

`--cache` is a cache of the nuScenes-like folder `--data`. All three give the same pictures at training size, points,
pairs and voxels; the caches give labels, masks and SAM features besides, which a raw loader would have to compute. The
raw loader does what training code commonly does: it decodes full-size JPEGs, resizes them, carries the cloud through
the four frames of the official devkit's chain for each camera, and groups voxels with `np.unique` on rows.
"""

import argparse
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.labels import devkit_pairs, street_chain
from benchmarks.measure import Row, compare
from cache_schemas.group_path import GroupPath
from cache_schemas.pack import pack
from cache_schemas.store import Cache
from labelgen.datasets import find_dataset
from labelgen.samples import Sample
from trainer.data.batch import Batch
from trainer.data.builder import BatchDataset, training_arrays
from trainer.data.sampler import Step
from trainer.data.stream import CacheStream, SampleArrays, SampleRef
from trainer.settings import RunSettings, load_settings

VOXEL_M = 0.1


class ZarrStream(CacheStream):
    """The same stream, but each array is read as zarr-python reads it."""

    def __init__(self, url: str, needed: Sequence[str], optional: Sequence[str]) -> None:
        """Open the cache twice: by our reader, for the list of samples, and by zarr-python."""
        super().__init__(url, needed, optional=optional)
        self._wanted_arrays = [*needed, *optional]
        self._cache, self._zarr = Cache(url), {}

    def read_together(
        self, wanted: Sequence[tuple[SampleRef, Sequence[int] | None]], only: Collection[str] | None = None
    ) -> list[SampleArrays]:
        """Return what CacheStream.read_together returns, for all arrays and images."""
        return [self._read_all(ref) for ref, _ in wanted]

    def _read_all(self, ref: SampleRef) -> SampleArrays:
        if ref.shard not in self._zarr:
            groups = {name.split("/")[0] for name in self._wanted_arrays} | {"images", "points", "pairs"}
            opened = {group: self._cache.arrays(GroupPath(ref.shard, group)) for group in groups}
            ends = {axis: opened[g]["offsets"][:] for axis, g in (("I", "images"), ("P", "points"), ("N", "pairs"))}
            self._zarr[ref.shard] = opened, ends
        opened, ends = self._zarr[ref.shard]
        bounds = {axis: slice(*map(int, found[ref.index : ref.index + 2])) for axis, found in ends.items()}
        found = {}
        for name in self._wanted_arrays:
            group, array = name.split("/")
            if array not in opened[group]:
                continue
            axis = "N" if group == "pairs" else "P" if group == "points" or array.startswith("point") else "I"
            found[name] = opened[group][array][bounds[axis]]
        found["pairs/image"] = found["pairs/image"].astype(np.int64) - bounds["I"].start
        found["pairs/point"] = found["pairs/point"].astype(np.int64) - bounds["P"].start
        found |= {name: found[name].astype(np.int64) for name in ("pairs/row", "pairs/col")}
        seen = found.pop("pairs/visible", np.ones(len(found["pairs/point"]))) > 0
        return found | {name: values[seen] for name, values in found.items() if name.startswith("pairs/")}


def load_raw(data: Path, sample: Sample, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Return pictures, points, pairs and voxels of a sample from its raw files."""
    height, width = size
    points = np.fromfile(data / sample.cloud_path, np.float32).reshape(-1, 5)
    rgb = []
    for camera in sample.cameras:
        with Image.open(data / camera.image_path) as picture:
            rgb.append(np.asarray(picture.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)))
    chains = [street_chain(camera) for camera in sample.cameras]
    found = devkit_pairs(points[:, :3], sample.cameras, chains, size)
    pairs = np.stack([found.point, found.image, found.row, found.col]).astype(np.int64)
    cells = np.floor(points[:, :3] / VOXEL_M).astype(np.int32)
    voxels, inverse = np.unique(cells - cells.min(axis=0), axis=0, return_inverse=True)
    return {"rgb": np.stack(rgb), "pairs": pairs, "voxels": voxels, "inverse": inverse}


def compare_loaders(data: Path, url: str, samples: int) -> Iterator[Row]:
    """Compare our stream on a cache with zarr-python on it, and with the raw files that it was made from."""
    ours, theirs = batches(url, CacheStream, samples), batches(url, ZarrStream, samples)
    steps = [Step(0, 0, (number,)) for number in range(samples)]
    stream = CacheStream(url, [])
    scenes = find_dataset(stream.manifest.dataset).adapter(data).scenes(stream.manifest.split, None)
    by_token = {sample.token: sample for scene in scenes for sample in scene.samples}
    raw = [by_token[ref.token] for ref in stream.samples[:samples]]
    first = raw[0].cameras[0]
    size = ours[steps[0]].rgb.shape[2:]
    sizes = f"{samples} samples, pictures of {first.width_px}x{first.height_px}"
    yield compare(
        "load a training sample",
        lambda: [ours[step] for step in steps],
        "zarr-python",
        lambda: [theirs[step] for step in steps],
        lambda mine, other: f"{sum(map(same, mine, other))} of {samples} batches equal",
        sizes,
    )
    yield compare(
        "load a training sample",
        lambda: [ours[step] for step in steps],
        "raw files",
        lambda: [load_raw(data, sample, size) for sample in raw],
        lambda mine, other: agreement(mine[0], other[0]),
        sizes,
    )


def compare_packed(url: str, samples: int) -> Row:
    """Compare our stream on a packed cache with the same stream on its folder."""
    steps = [Step(0, 0, (number,)) for number in range(samples)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "cache.zip")
        pack(url, file)
        packed, unpacked = (batches(place, CacheStream, samples) for place in (str(file), url))
        return compare(
            "load a training sample from a packed cache",
            lambda: [packed[step] for step in steps],
            "the folder of the cache",
            lambda: [unpacked[step] for step in steps],
            lambda mine, other: f"{sum(map(same, mine, other))} of {samples} batches equal",
            f"{samples} samples",
        )


def compare_with_keyframe(keyframe: Path, url: str, samples: int) -> Row:
    """Compare our stream on a cache at nuScenes' sizes with the raw files of a real keyframe: other content."""
    ours = batches(url, CacheStream, samples)
    steps = [Step(0, 0, (number,)) for number in range(samples)]
    sample = find_dataset("nuscenes").adapter(keyframe).scenes("all", None)[0].samples[0]
    camera, size = sample.cameras[0], ours[steps[0]].rgb.shape[2:]
    return compare(
        "load a training sample",
        lambda: [ours[step] for step in steps],
        "raw files of a nuScenes keyframe",
        lambda: [load_raw(keyframe, sample, size) for _ in steps],
        lambda mine, theirs: "equal sizes alone",
        f"{samples} samples, pictures of {camera.width_px}x{camera.height_px}",
        rounds=3,
    )


def batches(url: str, stream: type[CacheStream], samples: int) -> BatchDataset:
    """Return the first samples of a cache as unchanged batches, of all images."""
    plain = ["augment.images=false", "augment.clouds=false", "stream.images=99", f"networks.voxel_m={VOXEL_M}"]
    settings: RunSettings = load_settings("demo", overrides=plain)
    needed, optional = training_arrays(settings)
    opened = stream(url, needed, optional=optional)
    return BatchDataset(opened, opened.samples[:samples], settings)


def same(ours: Batch, theirs: Batch) -> bool:
    """Tell whether two batches are the same in every array."""
    return all(
        torch.equal(mine, other)
        for field in fields(Batch)
        for mine, other in zip(_tensors(getattr(ours, field.name)), _tensors(getattr(theirs, field.name)), strict=True)
    )


def _tensors(value: object) -> list[Tensor]:
    if isinstance(value, dict):
        return list(value.values())
    if value is None:
        return []
    return [value if isinstance(value, Tensor) else torch.tensor(value)]


def agreement(ours: Batch, raw: dict[str, np.ndarray]) -> str:
    """Say how far a batch of a sample agrees with what its raw files give."""
    mine = set(zip(*(getattr(ours, f"pair_{n}").tolist() for n in ("point", "image", "row", "col")), strict=True))
    direct = set(zip(*raw["pairs"].tolist(), strict=True))
    difference = np.abs(ours.rgb.permute(0, 2, 3, 1).numpy() - raw["rgb"].astype(float)).mean()
    return (
        f"{100 * len(mine & direct) / len(mine):.2f} % of its visible pairs, {len(ours.voxels)} and "
        f"{len(raw['voxels'])} voxels, pictures differ by {difference:.2f} of 255"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", required=True)
    parser.add_argument("--samples", type=int, default=8)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for row in compare_loaders(args.data, args.cache, args.samples):
        print(f"stream {args.samples / row.ours:6.1f} samples/s a core, {row.other} {args.samples / row.theirs:6.1f}")
        print(f"{row.ratio:.1f} times as fast; {row.equal}; {row.sizes}")
    row = compare_packed(args.cache, args.samples)
    print(f"packed {args.samples / row.ours:6.1f} samples/s a core, {row.other} {args.samples / row.theirs:6.1f}")
    print(f"{row.ratio:.2f} times as fast; {row.equal}; {row.sizes}")


if __name__ == "__main__":
    main()

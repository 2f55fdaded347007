"""Reading samples, and bytes a keyframe, against zarr-python, memory maps, npz and per-point features."""

import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.measure import Row, compare
from cache_schemas.store import Cache
from labelgen.settings import SamSettings
from labelgen.teachers.sam import SamTeacher, quantise
from trainer.stream import CacheStream, SampleArrays

ARRAYS = [
    "images/rgb",
    "labels/image",
    "labels/point",
    "sam/mask_ids",
    "sam/features",
    "sam/features_scale",
    "points/xyz",
    "points/intensity",
]
PER_POINT_CHANNELS = 768


def compare_reads(url: str) -> Iterator[Row]:
    """Compare reading one sample by our stream with zarr-python, and with memory maps of the same arrays."""
    stream = CacheStream(url, ARRAYS)
    ref = stream.samples[1]
    cache = Cache(url)
    groups = {name.split("/")[0] for name in ARRAYS}
    opened = {group: cache.arrays(f"shards/{ref.shard}/{group}") for group in groups}
    ends = {group: opened[group]["offsets"][:] for group in ("images", "points")}
    bounds = {
        name: slice(*map(int, ends["points" if "point" in name else "images"][ref.place : ref.place + 2]))
        for name in ARRAYS
    }

    def by_zarr() -> SampleArrays:
        return {name: opened[name.split("/")[0]][name.split("/")[1]][bounds[name]] for name in ARRAYS}

    def same(mine: SampleArrays, theirs: SampleArrays) -> str:
        return f"{sum(np.array_equal(mine[name], theirs[name]) for name in ARRAYS)} of {len(ARRAYS)} arrays equal"

    sizes = f"{sum(array.nbytes for array in stream.read(ref).values()) / 1e6:.1f} MB a sample"
    yield compare("read a sample", lambda: stream.read(ref), "zarr-python", by_zarr, same, sizes, rounds=15)
    with tempfile.TemporaryDirectory() as folder:
        maps = {}
        for name in ARRAYS:
            file = Path(folder) / f"{name.replace('/', '-')}.npy"
            np.save(file, opened[name.split("/")[0]][name.split("/")[1]][:])
            maps[name] = np.load(file, mmap_mode="r")

        def by_map() -> SampleArrays:
            return {name: np.array(maps[name][bounds[name]]) for name in ARRAYS}

        yield compare("read a sample, floor", lambda: stream.read(ref), "memory maps", by_map, same, sizes, rounds=15)


def compare_bytes(url: str, samples: int) -> Iterator[Row]:
    """Compare bytes a keyframe with compressed npz of fp16 features, and features a point as OpenScene has."""
    cache = Cache(url)
    key = cache.shard_keys()[0]
    groups = ("images", "clip", "sam", "points", "pairs", "labels")
    ours = sum(sum(cache.stored_bytes(f"shards/{key}/{group}").values()) for group in groups) / samples
    buffer, seen = io.BytesIO(), 0
    arrays = {}
    for group in groups:
        for name, array in cache.read(f"shards/{key}/{group}").items():
            arrays[f"{group}-{name}"] = array
    scale = arrays.pop("sam-features_scale", None)
    if scale is not None:
        arrays["sam-features"] = (arrays["sam-features"] * scale[:, None, None]).astype(np.float16)
    np.savez_compressed(buffer, **arrays)
    seen = len(np.unique(arrays["pairs-point"])) / samples
    packed = buffer.tell() / samples
    sizes = f"{ours / 1e6:.2f} MB a keyframe, {8 * samples} bytes of offsets left out"
    yield Row("bytes a keyframe", "npz, fp16 features", ours, packed, packed / ours, "features within int8", sizes)
    per_point = seen * PER_POINT_CHANNELS * 2
    yield Row(
        "bytes a keyframe", f"{PER_POINT_CHANNELS} halves a seen point", ours, per_point, per_point / ours, "-", sizes
    )


def int8_error(picture: np.ndarray, settings: SamSettings) -> Row:
    """Return the mean 1 - cos between SAM's features and what int8 with a scale a channel keeps of them."""
    teacher = SamTeacher(settings)
    features = teacher.valid_part(teacher.embed([picture]), picture.shape[:2]).numpy()
    kept, scale = quantise(features)
    restored = kept * scale[:, None, None]
    cosine = (features * restored).sum(-1) / np.linalg.norm(features, axis=-1) / np.linalg.norm(restored, axis=-1)
    size = f"{settings.architecture}, {features.shape[1]}x{features.shape[2]}x{features.shape[3]}"
    return Row("int8 features", "f16", 1, 2, 2.0, f"1 - cos {float((1 - cosine).mean()):.1e} mean", size)

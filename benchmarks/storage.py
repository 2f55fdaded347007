"""Reading samples, and bytes a keyframe, against zarr-python, memory maps, npz and per-point features."""

import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.measure import Row, compare
from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from labelgen.settings import SamSettings
from labelgen.teachers.quantisation import quantise
from labelgen.teachers.sam.preprocessing import resize_for_sam
from labelgen.teachers.sam.teacher import SamTeacher
from trainer.data.stream import CacheStream, SampleArrays

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
LABELS = ["labels/image", "labels/point"]
KEPT = ("images", "clip", "sam", "points", "pairs", "labels")
PER_POINT_CHANNELS = 768


def compare_reads(url: str, what: str) -> Iterator[Row]:
    """Compare reading one sample, and its labels alone, by our stream with zarr-python and with memory maps."""
    for name, arrays in (("read a sample", ARRAYS), ("read a sample's labels", LABELS)):
        yield from _compare_reads(url, name, arrays, what)


def _compare_reads(url: str, title: str, arrays: list[str], what: str) -> Iterator[Row]:
    stream = CacheStream(url, arrays)
    ref = stream.samples[1]
    cache = Cache(url)
    opened = {group: cache.arrays(GroupPath(ref.shard, group)) for group in cache.shard_seals(ref.shard)}
    ends = {group: opened[group]["offsets"][:] for group in ("images", "points")}
    bounds = {
        name: slice(*map(int, ends["points" if "point" in name else "images"][ref.index : ref.index + 2]))
        for name in arrays
    }

    def by_zarr() -> SampleArrays:
        return {name: opened[name.split("/")[0]][name.split("/")[1]][bounds[name]] for name in arrays}

    def same(mine: SampleArrays, theirs: SampleArrays) -> str:
        return f"{sum(np.array_equal(mine[name], theirs[name]) for name in arrays)} of {len(arrays)} arrays equal"

    sizes = f"{what}, {sum(array.nbytes for array in stream.read(ref).values()) / 1e6:.1f} MB a sample"
    yield compare(title, lambda: stream.read(ref), "zarr-python", by_zarr, same, sizes, rounds=15)
    with tempfile.TemporaryDirectory() as folder:
        maps = {}
        for name in arrays:
            file = Path(folder) / f"{name.replace('/', '-')}.npy"
            np.save(file, opened[name.split("/")[0]][name.split("/")[1]][:])
            maps[name] = np.load(file, mmap_mode="r")

        def by_map() -> SampleArrays:
            return {name: np.array(maps[name][bounds[name]]) for name in arrays}

        yield compare(title, lambda: stream.read(ref), "memory maps, raw and unchecked", by_map, same, sizes, rounds=15)


def compare_bytes(url: str, what: str) -> Iterator[Row]:
    """Compare bytes a keyframe with npz of fp16 features, and with features a seen point as OpenScene has them."""
    cache = Cache(url)
    key = cache.shard_keys()[0]
    samples = len(cache.shard_records([key])[key].samples)
    stored = {
        f"{group}/{name}": size / samples
        for group in KEPT
        for name, size in cache.stored_bytes(GroupPath(key, group)).items()
    }
    ours = sum(stored.values())
    arrays = {f"{group}/{n}": array for group in KEPT for n, array in cache.read(GroupPath(key, group)).items()}
    scale = arrays.pop("sam/features_scale")
    arrays["sam/features"] = (arrays["sam/features"] * scale[:, None, None]).astype(np.float16)
    largest = sorted(stored, key=lambda name: -stored[name])[:4]
    sizes = f"{what}, {ours / 1e6:.2f} MB a keyframe: " + ", ".join(f"{n} {stored[n] / 1e6:.2f}" for n in largest)
    for other, save in (("npz, fp16 features", np.savez), ("compressed npz, fp16 features", np.savez_compressed)):
        buffer = io.BytesIO()
        save(buffer, **{name.replace("/", "-"): array for name, array in arrays.items()})
        theirs = buffer.tell() / samples
        yield Row("bytes a keyframe", other, ours, theirs, theirs / ours, "features within int8", sizes, "bytes")
    theirs = len(np.unique(arrays["pairs/point"])) / samples * PER_POINT_CHANNELS * 2
    yield Row(
        "bytes a keyframe",
        f"{PER_POINT_CHANNELS} halves a seen point",
        ours,
        theirs,
        theirs / ours,
        "-",
        sizes,
        "bytes",
    )


def int8_error(picture: np.ndarray, settings: SamSettings) -> Row:
    """Return the mean 1 - cos between SAM's features and what int8 with a scale a channel keeps of them."""
    teacher = SamTeacher(settings)
    batch = teacher.upload([resize_for_sam(picture, settings.architecture)])
    valid = teacher.valid_part(teacher.embed(batch), batch.shape[2:])
    kept, scale = quantise(valid)
    features, restored = valid.numpy(), (kept * scale[:, None, None]).numpy()
    cosine = (features * restored).sum(-1) / np.linalg.norm(features, axis=-1) / np.linalg.norm(restored, axis=-1)
    size = f"{settings.architecture}, {features.shape[1]}x{features.shape[2]}x{features.shape[3]}"
    return Row(
        "int8 features", "f16", 1, 2, 2.0, f"1 - cos {float((1 - cosine).mean()):.1e} mean", size, "bytes an element"
    )

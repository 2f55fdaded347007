"""Compare CLIP's features as int8 with float16: error, labels after new prompts, bytes, time to read, and a loss.

Two caches of the same data that differ in `clip.features_dtype`, both with the same prompts from `labelgen reprompt`:

    python -m benchmarks.compact_features out/float16.zarr out/int8.zarr
"""

import itertools
import statistics
import sys
import time

import numpy as np
import torch

from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from labelgen.teachers.clip.cached_features import decode_features
from trainer.data.sampler import Step
from trainer.data.stream import CacheStream
from trainer.data.training_caches import BatchesOfCaches, TrainingCache, open_training_stream, teacher_widths
from trainer.method_settings import Source
from trainer.schedule import TargetSources
from trainer.settings import RunSettings, load_settings
from trainer.training.model import TrainingModel

ROUNDS = 20
BATCH_SAMPLES = 4


def changes(exact: Cache, compact: Cache, key: str) -> tuple[float, ...]:
    """Return the lowest cosine of a shard, the largest change of a score, and the shares of changed pixels and points.

    Features are compared with features, and scores and labels with those of the other cache.
    """
    one, other = (cache.read(GroupPath(key, "clip")) for cache in (exact, compact))
    features, rounded = (decode_features(arrays).astype(np.float64) for arrays in (one, other))
    lengths = np.linalg.norm(features, axis=1) * np.linalg.norm(rounded, axis=1)
    cosine = (features * rounded).sum(axis=1) / lengths
    score = np.abs(one["logits"].astype(np.float32) - other["logits"]).max()
    labels, changed = (cache.read(GroupPath(key, "labels"), "image", "point") for cache in (exact, compact))
    shares = [(labels[name] != changed[name]).mean() for name in ("image", "point")]
    return float(cosine.min()), float(score), *map(float, shares)


def bytes_of_a_keyframe(cache: Cache) -> int:
    """Return the bytes of the values of features and scales."""
    seals = [cache.shard_seals(key)["clip"] for key in cache.shard_keys()]
    arrays = [array for seal in seals for name, array in seal.arrays.items() if name.startswith("features")]
    values = sum(int(np.prod(array.shape)) * np.dtype(array.dtype).itemsize for array in arrays)
    return values // sum(len(seal.samples) for seal in seals)


def milliseconds_to_read(stream: CacheStream) -> float:
    """Return the time to read the features of a keyframe, from files that the system has in memory."""
    start = time.perf_counter()
    for ref in stream.samples:
        stream.read(ref)
    return 1000 * (time.perf_counter() - start) / len(stream.samples)


def losses_of_a_step(cache: TrainingCache, settings: RunSettings) -> dict[str, float]:
    """Return the losses of OpenScene's first batch, with networks drawn from one seed."""
    batch = BatchesOfCaches([cache], settings)[Step(0, 0, tuple(range(BATCH_SAMPLES)))]
    torch.manual_seed(0)
    text = torch.from_numpy(cache.stream.text_embeddings())
    model = TrainingModel(settings, text, teacher_widths(settings, cache)).train()
    found = model(batch, TargetSources(Source.CLIP_2D, Source.CLIP_3D)).losses
    return {name: (loss.total / loss.count).item() for name, loss in found.items()}


def main(urls: list[str]) -> None:
    """Print all figures, float16 first."""
    caches = [Cache(url) for url in urls]
    found = np.array([changes(*caches, key) for key in caches[0].shard_keys()])
    print(f"lowest cosine {found[:, 0].min():.5f}, largest change of a score {found[:, 1].max():.4f}")
    print(f"labels changed: pixels {100 * found[:, 2].mean():.3f} %, points {100 * found[:, 3].mean():.3f} %")
    print(f"bytes a keyframe: {', '.join(f'{bytes_of_a_keyframe(cache):,}' for cache in caches)}")
    streams = [CacheStream(url, ["clip/features"], optional=["clip/features_scale"]) for url in urls]
    times: list[list[float]] = [[], []]
    for _, number in itertools.product(range(ROUNDS), range(2)):
        times[number].append(milliseconds_to_read(streams[number]))
    print(f"reading the features of a keyframe: {', '.join(f'{statistics.median(own):.2f} ms' for own in times)}")
    overrides = ["networks.image=small", "networks.image_weights=null"]
    settings = load_settings(Cache.open(urls[0])[1].dataset, "openscene", overrides=overrides)
    for url in urls:
        losses = losses_of_a_step(open_training_stream(settings, url), settings)
        print(f"a step of OpenScene: {', '.join(f'{name} {loss:.6f}' for name, loss in losses.items())}")


if __name__ == "__main__":
    main(sys.argv[1:])

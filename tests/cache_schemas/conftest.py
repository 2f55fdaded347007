"""Shared fixtures: a small manifest, places for a cache on disk and in memory, and a sound cache to damage."""

import itertools
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cache_schemas.documents import (
    CacheManifest,
    PromptRecord,
    QuarantinedSample,
    ShardRecord,
    Source,
    TeacherIdentity,
    Teachers,
)
from cache_schemas.group_path import GroupPath
from cache_schemas.layout import AnyArray, group_spec
from cache_schemas.store import Cache
from cache_schemas.taxonomy import Taxonomy
from tests.toy_cache import create_toy_cache, toy_manifest, toy_taxonomy, write_toy_shard

Groups = dict[str, dict[str, AnyArray]]

SIZES = {
    "S": 2,
    "I": 3,
    "H": 4,
    "W": 6,
    "h": 2,
    "w": 3,
    "hf": 2,
    "wf": 4,
    "C": 3,
    "D": 5,
    "E": 8,
    "P": 7,
    "N": 5,
    "Q": 6,
    "K": 4,
}


@pytest.fixture(scope="session")
def taxonomy() -> Taxonomy:
    """Three classes: car, road, tree."""
    return toy_taxonomy(name="street")


@pytest.fixture(scope="session")
def manifest(taxonomy: Taxonomy) -> CacheManifest:
    """A manifest in which no field has its default or an empty value."""
    return toy_manifest(
        sources=(Source(dataset="toy", split="train", version="v1.0-mini"),),
        modalities=("image", "point"),
        taxonomy=taxonomy,
        prompts=PromptRecord(
            name="plain",
            digest="c0ffee",
            class_names={"car": ("car", "van"), "road": ("road",), "tree": ("tree",)},
            templates=("a photo of a {}.", "there is a {} in the scene."),
        ),
        teachers=Teachers(
            preset="tiny",
            networks={
                "clip": TeacherIdentity(architecture="ViT-B-16", weights="openai", sha256="ab" * 32),
                "sam": TeacherIdentity(architecture="sam-tiny", weights="untrained-7", sha256=None),
            },
        ),
        config={"shard_samples": 40, "clip": {"keep_features": False, "scale": 0.5}, "cameras": ["front", "rear"]},
        config_digest="feed",
        recipes={"toy": {"clip": "", "text": ""}},
        schema_minor=0,
        software={"zarr": "3.1.6", "numpy": "2.4.6"},
    )


@pytest.fixture(params=["local", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place for a cache, on disk and in memory; the memory is empty at the start of each test."""
    return str(tmp_path / "cache") if request.param == "local" else f"memory://{uuid.uuid4().hex}/cache"


@pytest.fixture
def cache(url: str, manifest: CacheManifest) -> Cache:
    """An empty cache, on disk and in memory."""
    return Cache.create(url, manifest)


@pytest.fixture
def local(tmp_path: Path, manifest: CacheManifest) -> Cache:
    """An empty cache on disk."""
    return Cache.create(str(tmp_path / "cache"), manifest)


@pytest.fixture(scope="session")
def fill_group() -> Callable[..., dict[str, AnyArray]]:
    """Return a function that fills every array of a group with values over the whole range of its dtype."""

    def fill(path: GroupPath, *, dtype_choice: int = 0, **sizes: int) -> dict[str, AnyArray]:
        known = {**SIZES, **sizes}
        arrays: dict[str, AnyArray] = {}
        for name, spec in group_spec(path).arrays.items():
            shape = tuple(
                axis if isinstance(axis, int) else known["S"] + 1 if axis == "S+1" else known[axis]
                for axis in spec.axes
            )
            dtype = np.dtype(spec.dtypes[min(dtype_choice, len(spec.dtypes) - 1)])
            info = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
            extremes = itertools.cycle([info.min, info.max, 0, 1, 37])
            count = int(np.prod(shape))
            arrays[name] = np.fromiter(itertools.islice(extremes, count), dtype, count).reshape(shape)
        return arrays

    return fill


@pytest.fixture(scope="session")
def sound_arrays() -> Groups:
    """Values of a sound shard of two samples (2 + 1 images, 4 + 3 points, 3 + 2 pairs)."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (3, 4, 6)).astype(np.uint8)
    points = np.array([0, 1, 2, 255, 255, 1, 0], np.uint8)
    return {
        "images": {
            "rgb": rng.integers(0, 256, (3, 4, 6, 3)).astype(np.uint8),
            "intrinsics": np.tile(np.array([[5.0, 0, 2.5], [0, 5.0, 1.5], [0, 0, 1]]), (3, 1, 1)),
            "cam_from_cloud": np.tile(np.eye(4), (3, 1, 1)),
            "offsets": np.array([0, 2, 3]),
        },
        "clip": {"logits": rng.uniform(-1, 1, (3, 3, 2, 3)).astype(np.float16)},
        "sam": {
            "mask_ids": rng.integers(0, 5, (3, 4, 6)).astype(np.uint16),
            "features": rng.integers(-128, 128, (3, 2, 4, 256)).astype(np.int8),
            "features_scale": rng.uniform(0.01, 1, (3, 256)).astype(np.float32),
        },
        "points": {
            "xyz": rng.uniform(-50, 50, (7, 3)).astype(np.float32),
            "intensity": rng.uniform(0, 1, 7).astype(np.float32),
            "offsets": np.array([0, 4, 7]),
        },
        "pairs": {
            "point": np.array([0, 1, 2, 5, 6], np.int32),
            "image": np.array([0, 0, 1, 2, 2], np.uint16),
            "row": np.array([0, 3, 1, 2, 3], np.uint16),
            "col": np.array([5, 0, 2, 4, 1], np.uint16),
            "depth": np.array([4, 9, 2.5, 30, 1], np.float32),
            "visible": np.array([1, 0, 1, 1, 1], np.uint8),
            "offsets": np.array([0, 3, 5]),
        },
        "labels": {
            "image_raw": labels,
            "image": np.where(labels == 2, 255, labels).astype(np.uint8),
            "point_raw": points,
            "point": points[::-1].copy(),
        },
        "truth": {"point": points},
    }


@pytest.fixture(scope="session")
def write_sound_cache(manifest: CacheManifest, sound_arrays: Groups) -> Callable[[str], Cache]:
    """Return a function that writes a sound cache: shard `toy-000`, and `toy-001` whose one sample is quarantined."""

    def write(place: str) -> Cache:
        cache = create_toy_cache(place, manifest, embedding_size=5)
        write_toy_shard(cache, "toy", sound_arrays, ("s0", "s1"))
        broken = QuarantinedSample(sample="s2", stage="points", reason="cloud is cut short", inputs="9d")
        empty = ShardRecord(dataset="toy", scene="toy", samples=(), quarantined=(broken,))
        cache.write_shard_record("toy-001", empty)
        return cache

    return write


@pytest.fixture(scope="session")
def _template(tmp_path_factory: pytest.TempPathFactory, write_sound_cache: Callable[[str], Cache]) -> Path:
    folder = tmp_path_factory.mktemp("sound") / "cache"
    write_sound_cache(str(folder))
    return folder


@pytest.fixture
def sound_folder(_template: Path, tmp_path: Path) -> Path:
    """The folder of a sound cache of this test's own, free to be damaged."""
    return Path(shutil.copytree(_template, tmp_path / "cache"))

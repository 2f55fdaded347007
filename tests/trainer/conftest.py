"""A toy world in a real cache, and a short training on it.

Images show coloured bands, classes of points differ in height, and raw labels are noisy.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cache_schemas.taxonomy import load_taxonomy
from tests.toy_cache import create_toy_cache, toy_manifest, write_toy_shard
from tests.trainer.runs import overrides, run_cli

COLOURS = np.array([[220, 30, 30], [90, 90, 90], [20, 160, 40]], np.uint8)
HEIGHT, WIDTH, BAND = 48, 64, 16
POINTS = 240
IMAGES = 2

MakeCache = Callable[..., str]


def make_shard(rng: np.random.Generator, samples: int, classes: int = 3) -> dict[str, dict[str, np.ndarray]]:
    """Return the groups of a shard of `samples` samples with two images and `POINTS` points each."""
    images, points = samples * IMAGES, samples * POINTS
    bands = rng.integers(0, 3, (images, WIDTH // BAND))
    truth = np.repeat(np.repeat(bands, BAND, axis=1)[:, None], HEIGHT, axis=1).astype(np.uint8)
    rgb = np.clip(COLOURS[truth].astype(int) + rng.integers(-20, 21, (images, HEIGHT, WIDTH, 3)), 0, 255)
    masks = np.repeat(np.repeat(np.arange(1, WIDTH // BAND + 1)[None], BAND, axis=1)[:, None], HEIGHT, axis=1)
    raw = np.where(rng.random(truth.shape) < 0.3, rng.integers(0, 3, truth.shape), truth).astype(np.uint8)
    image = np.sort(rng.integers(0, IMAGES, (samples, POINTS)), axis=1) + np.arange(samples)[:, None] * IMAGES
    image, row, col = image.ravel(), rng.integers(0, HEIGHT, points), rng.integers(0, WIDTH, points)
    point_truth = truth[image, row, col]
    xyz = np.stack([*rng.uniform(-10, 10, (2, points)), 3.0 * point_truth + rng.uniform(0, 1, points)], axis=1)
    ends = np.arange(samples + 1)
    paired = np.ones(points, bool)
    paired[::7] = False
    pair_ends = np.array([paired[: end * POINTS].sum() for end in ends])
    features = rng.integers(-127, 128, (images, 6, 8, 16)).astype(np.int8)
    features[..., :3] = 100 * np.eye(3)[truth[:, 4::8, 4::8]]
    unseen = lambda labels: np.where(paired, labels, 255).astype(np.uint8)  # noqa: E731
    return {
        "images": {
            "rgb": rgb.astype(np.uint8),
            "intrinsics": np.tile(np.eye(3), (images, 1, 1)),
            "cam_from_cloud": np.tile(np.eye(4), (images, 1, 1)),
            "offsets": ends * IMAGES,
        },
        "clip": {"logits": rng.uniform(0, 1, (images, classes, 3, 4)).astype(np.float16)},
        "sam": {
            "mask_ids": np.tile(masks, (images, 1, 1)).astype(np.uint16),
            "features": features,
            "features_scale": np.full((images, 16), 0.01, np.float32),
        },
        "points": {
            "xyz": xyz.astype(np.float32),
            "intensity": rng.uniform(0, 1, points).astype(np.float32),
            "offsets": ends * POINTS,
        },
        "pairs": {
            "point": np.flatnonzero(paired).astype(np.int32),
            "image": image[paired].astype(np.uint16),
            "row": row[paired].astype(np.uint16),
            "col": col[paired].astype(np.uint16),
            "offsets": pair_ends,
        },
        "labels": {
            "image_raw": raw,
            "image": truth,
            "point_raw": unseen(raw[image, row, col]),
            "point": unseen(point_truth),
        },
        "truth": {"image": truth, "point": point_truth.astype(np.uint8)},
    }


def add_optional(
    groups: dict[str, dict[str, np.ndarray]], rng: np.random.Generator
) -> dict[str, dict[str, np.ndarray]]:
    """Return the groups of a shard with CLIP's features, which show the truth, sweeps, instances, and confidence."""
    truth, ends = groups["truth"]["image"], groups["points"]["offsets"]
    features = 0.3 * rng.normal(size=(len(truth), 8, 3, 4))
    features[:, :3] += np.moveaxis(np.eye(3)[truth[:, 8::16, 8::16]], 3, 1)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    xyz = groups["points"]["xyz"]
    return groups | {
        "clip": groups["clip"] | {"features": features.astype(np.float16)},
        "sweeps": {
            "xyz": (xyz + rng.normal(0, 0.05, xyz.shape)).astype(np.float32),
            "lag": np.where(np.arange(len(xyz)) % POINTS < POINTS // 2, 0.05, 0.1).astype(np.float32),
            "offsets": ends,
        },
        **make_instances(rng, len(ends) - 1),
        "labels": groups["labels"] | make_confidence(rng, groups["labels"]),
    }


def make_confidence(rng: np.random.Generator, labels: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a random confidence of each voted label of a shard."""
    return {
        f"{name}_confidence": rng.integers(0, 256, labels[name].shape).astype(np.uint8) for name in ("image", "point")
    }


def make_instances(rng: np.random.Generator, samples: int) -> dict[str, dict[str, np.ndarray]]:
    """Return the groups of instances: one in each sample, and random labels of points."""
    points = samples * POINTS
    return {
        "instances": {
            "point": np.ones(points, np.uint16),
            "extent": np.ones((samples, 3), np.float32),
            "offsets": np.arange(samples + 1),
        },
        "instance_labels": {
            "scores": np.zeros((samples, 3), np.float32),
            "pixels": np.ones(samples, np.uint32),
            "instance_raw": np.zeros(samples, np.uint8),
            "instance": np.zeros(samples, np.uint8),
            "point": rng.integers(0, 3, points).astype(np.uint8),
        },
    }


@pytest.fixture(scope="session")
def make_cache() -> MakeCache:
    """Return a function that writes a toy cache with one shard for each scene, and returns its path or URL."""

    def make(
        place: Path | str,
        scenes: int = 3,
        samples: int = 2,
        seed: int = 0,
        rich: bool = False,
        **manifest_fields: object,
    ) -> str:
        rng = np.random.default_rng(seed)
        manifest = toy_manifest(**{"dataset": "demo", "software": {}, **manifest_fields})
        classes = len(manifest.taxonomy.classes)
        cache = create_toy_cache(str(place), manifest, embedding_size=max(8, classes))
        for number in range(scenes):
            scene = f"scene-{number}"
            tokens, clouds = ([f"{scene}-{kind}{i}" for i in range(samples)] for kind in ("s", "c"))
            groups = make_shard(rng, samples, classes)
            write_toy_shard(cache, scene, add_optional(groups, rng) if rich else groups, tokens, clouds=clouds)
        return str(place)

    return make


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory, make_cache: MakeCache) -> str:
    """A toy cache of five scenes with two samples each, for tests that only read it."""
    return make_cache(tmp_path_factory.mktemp("toy") / "cache", scenes=5)


@pytest.fixture(scope="session")
def rich_toy(tmp_path_factory: pytest.TempPathFactory, make_cache: MakeCache) -> str:
    """A toy cache like `toy`, with CLIP's features, sweeps, labels by instances and confidence."""
    return make_cache(tmp_path_factory.mktemp("rich") / "cache", scenes=5, rich=True)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, make_cache: MakeCache) -> str:
    """A toy cache of three scenes, which `own` copies."""
    return make_cache(tmp_path_factory.mktemp("template") / "cache")


@pytest.fixture(scope="session")
def lidarseg(tmp_path_factory: pytest.TempPathFactory, make_cache: MakeCache) -> str:
    """A toy cache like `toy`, but with the classes of the lidarseg challenge, and of its split `val`."""
    taxonomy = load_taxonomy("nuscenes16")
    fields = {"taxonomy": taxonomy, "taxonomy_digest": taxonomy.digest, "split": "val"}
    return make_cache(tmp_path_factory.mktemp("lidarseg") / "cache", scenes=5, **fields)


@pytest.fixture
def own(tmp_path: Path, template: str) -> str:
    """A toy cache of three scenes that a test may damage."""
    return str(shutil.copytree(template, tmp_path / "own-cache"))


@pytest.fixture(scope="session")
def small_run(toy: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four epochs on `toy`, for tests that only read it."""
    out = tmp_path_factory.mktemp("runs") / "small"
    done = run_cli("fit", toy, "--out", out, *overrides())
    assert "images/s" in done.stderr and "waiting for data" in done.stderr
    return out


@pytest.fixture(scope="session")
def lidarseg_run(lidarseg: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch on `lidarseg`, for tests that only read it."""
    out = tmp_path_factory.mktemp("runs") / "lidarseg"
    run_cli("fit", lidarseg, "--out", out, *overrides("optimiser.epochs=1"))
    return out

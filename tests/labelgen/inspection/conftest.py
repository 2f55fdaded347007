"""Shared fixtures of the audit's tests: small caches whose statistics can be counted by hand, and the command."""

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from labelgen.cli import main

CAR, ROAD, TREE = 0, 1, 2
NAMES = ("car", "road", "tree")
LEFT_HALF = np.arange(6) < 3
"""Of a picture; broadcasts over rows."""

MakeSample = Callable[..., dict[str, Any]]
MakeCache = Callable[..., str]


def _sample(**changes: Any) -> dict[str, Any]:
    road = np.where(np.arange(4)[:, None] < 2, TREE, ROAD)
    halves = np.where(LEFT_HALF, CAR, ROAD)
    return {
        "raw": np.where(LEFT_HALF, CAR, road),
        "voted": halves,
        "masks": np.where(LEFT_HALF, 2, 1),
        "truth": halves,
        "logits": np.array([1.0, 0.0, 0.0])[:, None, None],
        **changes,
    }


@pytest.fixture(scope="session")
def sample() -> MakeSample:
    """Return a maker of samples.

    A sample is half car, half road; its voted labels are true, its raw labels call a quarter of the picture a tree.
    """
    return _sample


@pytest.fixture(scope="session")
def make_cache() -> MakeCache:
    """The maker of caches in make_cache.py, with the classes car, road and tree."""
    maker = runpy.run_path(str(Path(__file__).with_name("make_cache.py")))["make_cache"]

    def make(place: Path, scenes: dict[str, Any], names: tuple[str, ...] = NAMES) -> str:
        return str(maker(place, scenes, names))

    return make


@pytest.fixture(scope="session")
def ten_shards(tmp_path_factory: pytest.TempPathFactory, make_cache: MakeCache, sample: MakeSample) -> str:
    """A cache of ten shards of one sample; all are alike but `s9`, which has no masks and calls every car a tree."""
    odd = sample(masks=0, voted=np.where(LEFT_HALF, TREE, ROAD))
    scenes = {f"s{i}": [odd if i == 9 else sample()] for i in range(10)}
    return make_cache(tmp_path_factory.mktemp("ten") / "c.zarr", scenes)


@pytest.fixture(scope="session")
def without_truth(tmp_path_factory: pytest.TempPathFactory, make_cache: MakeCache, sample: MakeSample) -> str:
    """A cache of nine shards without truth; `s4` has no masks."""
    blind = {key: value for key, value in sample().items() if key != "truth"}
    scenes = {f"s{i}": [{**blind, "masks": 0} if i == 4 else blind] for i in range(9)}
    return make_cache(tmp_path_factory.mktemp("blind") / "c.zarr", scenes)


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory, make_cache: MakeCache) -> str:
    """A cache without shards."""
    return make_cache(tmp_path_factory.mktemp("empty") / "c.zarr", {})


@pytest.fixture(scope="session")
def inspect() -> Callable[..., Result]:
    """Run `labelgen inspect`."""

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["inspect", *map(str, arguments)])

    return run


@pytest.fixture(scope="session")
def report(inspect: Callable[..., Result]) -> Callable[..., dict[str, Any]]:
    """Return what `labelgen inspect --json` prints."""

    def run(*arguments: str) -> dict[str, Any]:
        done = inspect(*arguments, "--json")
        assert done.exit_code == 0, done.output
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return run

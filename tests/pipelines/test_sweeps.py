"""Clouds between keyframes: a group of their own, made only if a run asks for them."""

from pathlib import Path

import numpy as np
import pytest

from cache_schemas.errors import ConfigError
from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from demo.world import make_world
from labelgen.datasets.nuscenes.adapter import NuScenes
from pipelines.config import load_config
from pipelines.plan import Planner
from pipelines.resolve import open_dataset, resolve
from tests.pipelines.conftest import small_settings
from tests.pipelines.in_process import build_cache

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world")
    make_world(out, 41, scenes=1, keyframes=2, difficulty=0, size=(45, 80), sweeps=2)
    return out


def test_sweeps_are_stored_in_the_frame_of_the_keyframe(made: Path, world: Path, tmp_path: Path) -> None:
    more = [*small_settings(made), "shard_samples=1", "sweeps.count=2"]
    build_cache(
        load_config("demo", preset="paper", teachers="untrained", overrides=more), world, str(tmp_path / "cache.zarr")
    )
    cache = Cache(str(tmp_path / "cache.zarr"))
    adapter = NuScenes(world)
    adapter.sweeps = 2
    (scene,) = adapter.scenes("all", None)
    for number, sample in enumerate(scene.samples):
        arrays = cache.read(GroupPath(f"{scene.name}-{number:03d}", "sweeps"))
        own = [adapter.read_sweep(sweep) for sweep in sample.sweeps]
        assert arrays["offsets"].tolist() == [0, sum(len(cloud.xyz) for cloud in own)]
        assert np.array_equal(arrays["lag"][[0, -1]], np.float32([0.05, 0.1]))
        assert np.array_equal(arrays["intensity"], np.concatenate([cloud.intensity for cloud in own]))
        last = sample.sweeps[1].keyframe_from_sweep @ [*own[1].xyz[-1].astype(np.float64), 1]
        np.testing.assert_allclose(arrays["xyz"][-1], last[:3], atol=1e-5)


def test_a_run_without_sweeps_has_no_such_group_and_asking_redoes_nothing_else(
    made: Path, world: Path, tmp_path: Path
) -> None:
    few = small_settings(made)
    build_cache(
        load_config("demo", preset="paper", teachers="untrained", overrides=few), world, str(tmp_path / "cache.zarr")
    )
    cache = Cache(str(tmp_path / "cache.zarr"))
    (key,) = cache.shard_keys()
    assert not cache.seals([GroupPath(key, "sweeps")])

    config = load_config("demo", preset="paper", teachers="untrained", overrides=[*few, "sweeps.count=2"])
    adapter = open_dataset("demo", world, 2)
    (shard,) = Planner(world, cache, resolve(config, adapter)).plan(adapter.scenes("all", None))
    assert shard.todo == {"sweeps"}


def test_a_data_set_without_sweeps_refuses_them(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NuScenes, "has_sweeps", False)
    with pytest.raises(ConfigError, match=r"sweeps.count = 3: nuscenes has no clouds between its samples; set it to 0"):
        open_dataset("nuscenes", world, 3)

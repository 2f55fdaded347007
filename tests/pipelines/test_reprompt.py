"""New prompts for a cache with CLIP's features: what a run with these prompts would make, without raw data."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from cache_schemas.errors import CacheError
from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from pipelines.config import RunConfig, load_config
from pipelines.plan import Planner
from pipelines.reprompt.redo import reprompt
from pipelines.resolve import open_dataset, read_scenes, resolve
from tests.pipelines.caches import checksums, problems
from tests.pipelines.conftest import PROMPTS, small_settings
from tests.pipelines.in_process import build_cache

CLIP = ("clip.architecture=demo-vit-16", "clip.weights=demo-clip")
FEATURES = "clip.store_features=true"


def config_with(made: Path, *more: str) -> RunConfig:
    return load_config("nuscenes", teachers="untrained", overrides=[*small_settings(made), *CLIP, *more])


@pytest.fixture(scope="module")
def featured(made: Path, built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with features of the demo's CLIP; do not change it."""
    cache = Path(shutil.copytree(built, tmp_path_factory.mktemp("featured") / "cache.zarr"))
    build_cache(config_with(made, FEATURES), made / "nuscenes", str(cache))
    return cache


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "others.yaml"
    file.write_text(PROMPTS.replace("car: [", "car: [red sports car, "))
    assert file.read_text() != PROMPTS
    return file


def say(line: str) -> None:
    """Print nothing."""


def test_it_makes_what_a_run_would_make_and_a_run_finds_the_cache_up_to_date(
    made: Path, featured: Path, prompts: Path, tmp_path: Path
) -> None:
    ran, redone = (Path(shutil.copytree(featured, tmp_path / name)) for name in ("ran.zarr", "redone.zarr"))
    config = config_with(made, FEATURES, f"prompts={prompts}")
    build_cache(config, made / "nuscenes", str(ran))
    assert reprompt(str(redone), str(prompts), say) == len(Cache(str(redone)).shard_keys())

    assert problems(redone) == []
    adapter = open_dataset(config.dataset, made / "nuscenes")
    planner = Planner(made / "nuscenes", Cache(str(redone)), resolve(config, adapter))
    assert planner.due_roots() == [] and not any(s.todo for s in planner.plan(read_scenes(config, adapter)))
    assert Cache(str(redone)).manifest() == Cache(str(ran)).manifest()

    before, after, expected = checksums(featured), checksums(redone), checksums(ran)
    kept = [path for path in before if path.split("/")[1] not in ("clip", "labels")]
    assert [after[path] for path in kept] == [before[path] for path in kept]
    different = logits = 0
    for key in Cache(str(ran)).shard_keys():
        found, wanted = (Cache(str(cache)).read(GroupPath(key, "clip"), "logits")["logits"] for cache in (redone, ran))
        np.testing.assert_allclose(found, wanted, atol=2e-3)
        assert after[f"{key}/clip/features"] == expected[f"{key}/clip/features"]
        assert after[f"{key}/clip/logits"] != before[f"{key}/clip/logits"]
        found, wanted = (Cache(str(cache)).read(GroupPath(key, "labels"), "image")["image"] for cache in (redone, ran))
        different, logits = different + int((found != wanted).sum()), logits + found.size
    assert different < 0.01 * logits


def test_a_stopped_one_continues(featured: Path, prompts: Path, tmp_path: Path) -> None:
    cache = Path(shutil.copytree(featured, tmp_path / "cache.zarr"))

    def stop(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reprompt(str(cache), str(prompts), stop)
    assert problems(cache) != []
    assert reprompt(str(cache), str(prompts), say) == len(Cache(str(cache)).shard_keys()) - 1
    assert problems(cache) == []


def test_a_cache_without_features_is_refused_and_not_changed(made: Path, cache: Path, prompts: Path) -> None:
    before = checksums(cache)
    with pytest.raises(CacheError, match=r"clip/features.*store_features"):
        reprompt(str(cache), str(prompts), say)
    assert checksums(cache) == before and problems(cache) == []


def test_scores_that_are_not_the_cosines_of_the_features_are_refused(
    made: Path, featured: Path, prompts: Path, tmp_path: Path
) -> None:
    cache = Path(shutil.copytree(featured, tmp_path / "cache.zarr"))
    build_cache(config_with(made, FEATURES, "clip.key_smoothing=1.0"), made / "nuscenes", str(cache))
    with pytest.raises(CacheError, match="a refinement that needs CLIP's image network"):
        reprompt(str(cache), str(prompts), say)
    assert problems(cache) == []

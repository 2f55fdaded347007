"""A stored cache of format 1 and the data that it was made from: a run finds nothing to compute, and extends it."""

import shutil
from pathlib import Path

import pytest

from cache_schemas.store import Cache
from labelgen.stages.inputs import ResolvedSettings
from pipelines.config import RunConfig, load_config
from pipelines.plan import Planner
from pipelines.resolve import open_dataset, resolve
from tests.pipelines.caches import checksums, problems
from tests.pipelines.conftest import _maker
from tests.pipelines.in_process import build_cache

STORED = Path(__file__).parents[1] / "cache_schemas/format1/cache.zarr"
SETTINGS = [
    "points.visibility=none",
    "images.height=32",
    "images.width=64",
    "sam.points_per_side=1",
    "prompts=nuscenes-paper",
    "shard_samples=1",
]


@pytest.fixture(scope="module")
def one_keyframe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data that the stored cache was made from."""
    return _maker()(tmp_path_factory.mktemp("one") / "nuscenes", scenes={"scene-0061": 1}, lidarseg=True)


@pytest.fixture
def format1(tmp_path: Path) -> Path:
    return Path(shutil.copytree(STORED, tmp_path / "cache.zarr"))


TRUTH = frozenset({"truth"})
"""Format 1 knew truth by the sizes of its files, so it is read again once."""


def config(*more: str) -> RunConfig:
    return load_config("nuscenes", teachers="untrained", overrides=[*SETTINGS, *more])


def planned(data: Path, cache: Path, *more: str) -> dict[str, frozenset[str]]:
    """Return the groups to make, by shard."""
    adapter = open_dataset("nuscenes", data)
    resolved: ResolvedSettings = resolve(config(*more), adapter)
    plans = Planner(data, Cache(str(cache)), resolved).plan(adapter.scenes("all", None))
    return {plan.key: plan.todo for plan in plans}


def run_arguments(data: Path, cache: Path) -> list[str]:
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    return ["--dataset", "nuscenes", "--data", str(data), "--cache", str(cache), "--teachers", "untrained", *settings]


def test_the_plan_has_no_work_but_truth_before_and_after_the_migration(
    one_keyframe: Path, format1: Path, labelgen_here
) -> None:
    assert planned(one_keyframe, format1) == {"scene-0061-000": TRUTH}
    done = labelgen_here("migrate", str(format1))
    assert done.returncode == 0 and "migrated, 1 shards" in done.stdout
    assert planned(one_keyframe, format1) == {"scene-0061-000": TRUTH}
    again = labelgen_here("migrate", str(format1))
    assert again.returncode == 0 and "is of the present format" in again.stdout


def test_new_prompts_redo_what_prompts_shape_and_never_sam(one_keyframe: Path, format1: Path, labelgen_here) -> None:
    labelgen_here("migrate", str(format1))
    assert planned(one_keyframe, format1, "prompts=nuscenes-improved") == {"scene-0061-000": TRUTH | {"clip", "labels"}}


def test_a_run_migrates_and_names_the_pictures(one_keyframe: Path, format1: Path, labelgen_here) -> None:
    before = checksums(format1)
    done = labelgen_here("run", *run_arguments(one_keyframe, format1))
    assert done.returncode == 0, done.stderr
    cache, manifest = Cache.open(str(format1))
    assert manifest.schema_version == 2
    pictures = cache.shard_records(["scene-0061-000"])["scene-0061-000"].pictures
    assert {(picture.width_px, picture.height_px) for picture in pictures} == {(160, 90)}
    assert all((one_keyframe / picture.file).is_file() for picture in pictures)
    assert checksums(format1) == before
    assert problems(format1) == []


def test_inspect_and_verify_read_it(format1: Path, labelgen_here) -> None:
    for command in (["inspect", str(format1)], ["verify", str(format1)]):
        done = labelgen_here(*command)
        assert done.returncode == 0, done.stderr


def test_another_split_is_added_and_nothing_is_made_again(format1: Path, tmp_path: Path) -> None:
    """The stored shard stays; that of the other scene is made beside it."""
    data = _maker()(tmp_path / "nuscenes", scenes={"scene-0061": 1, "scene-0103": 1}, lidarseg=True)
    before = checksums(format1)
    added = config("split=mini_val")
    build_cache(added, data, str(format1))
    after = checksums(format1)
    assert {name: after[name] for name in before} == before
    assert {name.split("/")[0] for name in after} == {"scene-0061-000", "scene-0103-000"}
    sources = Cache.open(str(format1))[1].sources
    assert [(source.dataset, source.split) for source in sources] == [("nuscenes", "all"), ("nuscenes", "mini_val")]
    assert problems(format1) == []


def test_it_is_merged_with_a_cache_of_today(format1: Path, tmp_path: Path, labelgen_here) -> None:
    data = _maker()(tmp_path / "nuscenes", scenes={"scene-0061": 1, "scene-0103": 1}, lidarseg=True)
    new, both = tmp_path / "new.zarr", tmp_path / "both.zarr"
    build_cache(config("split=mini_val"), data, str(new))
    refused = labelgen_here("merge", str(format1), str(new), "--out", str(both))
    assert refused.returncode == 1 and "run `labelgen migrate` on it first" in refused.stderr
    labelgen_here("migrate", str(format1))
    done = labelgen_here("merge", str(format1), str(new), "--out", str(both))
    assert done.returncode == 0 and "2 shards of 2 caches" in done.stdout
    assert checksums(both) == checksums(format1) | checksums(new)
    assert problems(both) == []
    assert planned(data, both) == {"scene-0061-000": TRUTH, "scene-0103-000": frozenset()}

"""Array jobs: parts of a data set in caches of their own, which `merge` joins; and the number of shards in flight."""

import asyncio
from pathlib import Path

import pytest

from cache_schemas.group_path import GroupPath
from cache_schemas.layout import SHARD_GROUPS
from cache_schemas.store import Cache
from labelgen.samples import MANY_FILES, file_sizes
from pipelines.config import load_config
from pipelines.in_flight import ShardGate, most_shards
from pipelines.plan import ShardPlan
from tests.pipelines.conftest import small_settings
from tests.pipelines.in_process import build_cache


def test_merged_parts_are_the_cache_of_one_run(made: Path, built: Path, tmp_path: Path, labelgen_here) -> None:
    config = load_config("nuscenes", teachers="untrained", overrides=small_settings(made))
    parts = [tmp_path / f"part-{number}.zarr" for number in (1, 2)]
    for number, part in enumerate(parts, start=1):
        build_cache(config, made / "nuscenes", str(part), (number, 2))
    keys = [Cache(str(part)).shard_keys() for part in parts]
    assert keys == [["scene-0061-000", "scene-0103-000"], ["scene-0061-001"]]
    both = tmp_path / "both.zarr"
    done = labelgen_here("merge", *map(str, parts), "--out", str(both))
    assert done.returncode == 0, done.stderr
    merged, whole = Cache(str(both)), Cache(str(built))
    paths = [GroupPath.root("text"), *(GroupPath(key, name) for key in whole.shard_keys() for name in SHARD_GROUPS)]
    assert merged.shard_keys() == whole.shard_keys()
    assert merged.whole_seals(paths) == whole.whole_seals(paths) != {}
    assert merged.manifest() == whole.manifest()


@pytest.mark.parametrize("part", ["0/2", "3/2", "2", "1/0", "a/b", "-1/2"])
def test_a_part_that_is_none_is_wrong_usage(labelgen_here, part: str) -> None:
    done = labelgen_here("run", "--dataset", "nuscenes", "--data", "x", "--cache", "y", f"--part={part}")
    assert done.returncode == 2
    assert f"{part!r} is no part: give one such as 3/8" in done.stderr


def test_a_part_without_shards_says_so(made: Path, tmp_path: Path, labelgen_here) -> None:
    done = labelgen_here.run(made / "nuscenes", tmp_path / "cache.zarr", "--part", "4/4")
    assert done.returncode == 1
    assert "matches no shard in part 4 of 4" in done.stderr


@pytest.mark.parametrize(
    ("actors", "samples", "shard_bytes", "store_bytes", "shards"),
    [
        (1, 40, 10, 0, 4),  # never fewer than four
        (64, 40, 10, 0, 39),  # 64 x 24 samples / 40, rounded up
        (256, 40, 350, 35_000, 100),  # memory for 100
        (64, 1, 10, 10_000, 1000),  # shards of one sample
        (64, 40, 100, 50, 2),  # one in work, one to follow
    ],
)
def test_shards_in_flight(actors: int, samples: int, shard_bytes: int, store_bytes: int, shards: int) -> None:
    assert most_shards(actors, samples, shard_bytes, store_bytes) == shards


def test_the_gate_takes_a_larger_limit_when_a_shard_leaves() -> None:
    limits = {"now": 2}
    shard = ShardPlan("s-000", "s", (), (), {}, frozenset())

    async def run() -> list[bool]:
        gate = ShardGate(lambda _: limits["now"])
        entered = []
        for _ in range(2):
            await gate.enter(shard)
        third = asyncio.create_task(gate.enter(shard))
        await asyncio.sleep(0)
        entered.append(third.done())
        limits["now"] = 3
        gate.leave()
        await asyncio.wait_for(third, 1)
        await asyncio.wait_for(gate.enter(shard), 1)
        return [*entered, third.done()]

    assert asyncio.run(run()) == [False, True]


@pytest.mark.parametrize("count", [3, MANY_FILES + 3])
def test_sizes_of_files_whether_listed_or_asked_for(tmp_path: Path, count: int) -> None:
    folder = tmp_path / "data" / "cameras"
    folder.mkdir(parents=True)
    expected: dict[str, int | None] = {}
    for number in range(count):
        (folder / f"{number}.jpg").write_bytes(bytes(number))
        expected[f"cameras/{number}.jpg"] = number
    (tmp_path / "elsewhere").write_bytes(bytes(77))
    (folder / "link.jpg").symlink_to(tmp_path / "elsewhere")
    (folder / "dangling.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "data" / "top").write_bytes(bytes(5))
    expected |= {"cameras/link.jpg": 77, "cameras/dangling.jpg": None, "cameras/no.jpg": None, "none/0.jpg": None}
    expected |= {"top": 5}
    assert file_sizes(tmp_path / "data", tuple(expected)) == expected

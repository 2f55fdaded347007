"""Caches of format 1: they open, are read and checked, and are migrated in place; format1/README.md describes one."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from cache_schemas import cache_files
from cache_schemas.documents import GroupSeal, Source
from cache_schemas.durable_store import write_durably
from cache_schemas.errors import CacheError
from cache_schemas.group_path import GroupPath
from cache_schemas.layout import SCHEMA_MINOR, SHARD_GROUPS
from cache_schemas.migrate import migrate
from cache_schemas.store import Cache
from cache_schemas.validate import validate

STORED = Path(__file__).with_name("format1") / "cache.zarr"
KEY = "scene-0061-000"
CAMERAS = ["CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_RIGHT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_FRONT_LEFT"]


@pytest.fixture
def format1(tmp_path: Path) -> Path:
    return Path(shutil.copytree(STORED, tmp_path / "cache.zarr"))


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def seals(url: Path) -> dict[GroupPath, GroupSeal]:
    return Cache(str(url)).seals(GroupPath(KEY, name) for name in SHARD_GROUPS)


def problems(url: Path) -> list[str]:
    return [str(problem) for problem in validate(*Cache.open(str(url)))]


def test_a_cache_of_format_1_opens_and_is_sound(format1: Path) -> None:
    before = files(format1)
    cache, manifest = Cache.open(str(format1))
    assert (manifest.schema_version, manifest.sources) == (1, (Source(dataset="nuscenes", split="all"),))
    assert manifest.modalities == ("image", "point")
    record = cache.shard_records([KEY])[KEY]
    assert [picture.camera for picture in record.pictures] == CAMERAS
    assert cache.read(GroupPath(KEY, "images"), "rgb")["rgb"].shape == (6, 32, 64, 3)
    assert problems(format1) == []
    assert files(format1) == before


def test_a_migration_changes_documents_alone(format1: Path) -> None:
    before, seals_before = files(format1), seals(format1)
    assert migrate(Cache(str(format1), "a"))
    after = files(format1)
    changed = [path for path in before if after[path] != before[path]]
    assert sorted(after) == sorted(before)
    assert sorted(changed) == sorted(
        [
            "zarr.json",
            f"shards/{KEY}/zarr.json",
            *(f"shards/{KEY}/images/{name}/zarr.json" for name in ("intrinsics", "cam_from_cloud")),
        ]
    )
    assert seals(format1) == seals_before
    cache, manifest = Cache.open(str(format1))
    assert (manifest.schema_version, manifest.schema_minor) == (2, SCHEMA_MINOR)
    assert cache.shard_records([KEY])[KEY].dataset == "nuscenes"
    assert cache.arrays(GroupPath(KEY, "images"))["intrinsics"].metadata.dimension_names == ("I", "3", "3.2")
    assert problems(format1) == []


def test_a_second_migration_does_nothing(format1: Path) -> None:
    migrate(Cache(str(format1), "a"))
    before = files(format1)
    assert not migrate(Cache(str(format1), "a"))
    assert files(format1) == before


@pytest.mark.parametrize("writes", range(4))
def test_a_migration_that_stops_leaves_a_cache_that_is_read_and_migrated(
    writes: int, format1: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stops after each number of documents that it writes before the last one, which is the manifest."""
    whole = Path(shutil.copytree(STORED, tmp_path / "whole.zarr"))
    migrate(Cache(str(whole), "a"))
    written = 0

    def stop(path: Path, value: bytes) -> None:
        nonlocal written
        if written == writes:
            raise OSError("stopped")
        written += 1
        write_durably(path, value)

    with monkeypatch.context() as patch, pytest.raises((OSError, CacheError), match="stopped"):
        patch.setattr(cache_files, "write_durably", stop)
        migrate(Cache(str(format1), "a"))
    assert problems(format1) == []
    migrate(Cache(str(format1), "a"))
    assert files(format1) == files(whole)


def test_a_file_of_format_1_may_have_any_size_that_its_shape_allows(format1: Path) -> None:
    """Its seals do not tell sizes, so a compressed file is only known to be too small below a bound."""
    group, file = GroupPath(KEY, "labels"), format1 / "shards" / KEY / "labels/image/c/0/0/0"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    assert group in Cache(str(format1)).whole_seals([group])
    file.write_bytes(whole[:100])
    assert group not in Cache(str(format1)).whole_seals([group])


def test_a_file_of_format_2_must_have_the_size_in_its_seal(format1: Path) -> None:
    group, file = GroupPath(KEY, "labels"), format1 / "shards" / KEY / "labels/image/c/0/0/0"
    cache = Cache(str(format1), "a")
    arrays, seal = cache.read(group), cache.seals([group])[group]
    rewritten = cache.write_group(group, arrays, seal.provenance)
    assert rewritten.arrays["image"].bytes == file.stat().st_size
    assert group in cache.whole_seals([group])
    for damaged in (file.read_bytes()[:-1], file.read_bytes() + b"\0"):
        file.write_bytes(damaged)
        assert group not in cache.whole_seals([group])
        assert any("labels/image: unreadable-array" in problem for problem in problems(format1))


def test_the_stored_cache_is_of_format_1() -> None:
    document = json.loads((STORED / "zarr.json").read_text())
    assert document["attributes"]["schema_version"] == 1
    intrinsics = json.loads((STORED / f"shards/{KEY}/images/intrinsics/zarr.json").read_text())
    assert intrinsics["dimension_names"] == ["I", "3", "3"]
    assert np.prod(intrinsics["shape"]) == 54

"""The cache as a whole: its manifest, locations that cannot hold one, and the records of shards."""

import uuid
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest
import zarr

from cache_schemas.documents import CacheManifest, Provenance, QuarantinedSample, ShardRecord, Source
from cache_schemas.errors import CacheError, NoCacheError, SchemaVersionError
from cache_schemas.group_path import GroupPath
from cache_schemas.layout import SCHEMA_MINOR, AnyArray
from cache_schemas.store import Cache
from tests.cache_schemas.editing import assert_same

Fill = Callable[..., dict[str, AnyArray]]

TEXT = GroupPath.root("text")
RECORD = ShardRecord(dataset="toy", scene="scene", samples=("s0", "s1"))


def test_a_created_cache_opens_with_its_manifest(url: str, manifest: CacheManifest) -> None:
    Cache.create(url + "/", manifest)
    cache, found = Cache.open(url)
    assert found == manifest
    assert zarr.open_group(url, mode="r").attrs.asdict() == manifest.to_attrs()
    assert cache.shard_keys() == []


def test_creating_again_keeps_the_groups_and_replaces_the_manifest(
    cache: Cache, manifest: CacheManifest, fill_group: Fill
) -> None:
    arrays = fill_group(TEXT)
    cache.write_group(TEXT, arrays, Provenance("f"))
    cache.write_shard_record("scene-000", RECORD)
    Cache.create(cache.url, manifest.model_copy(update={"sources": (Source(dataset="toy", split="val"),)}))
    reader, found = Cache.open(cache.url)
    assert found.split == "val"
    assert_same(reader.read(TEXT), arrays)
    assert reader.shard_records(["scene-000"]) == {"scene-000": RECORD}


def test_no_cache_is_told_apart_from_a_foreign_zarr_group(url: str) -> None:
    with pytest.raises(NoCacheError, match="no cache here; make one with"):
        Cache.open(url)
    assert Cache(url).manifest() is None
    zarr.open_group(url, mode="w", attributes={"title": "somebody's results"})
    with pytest.raises(CacheError, match="a Zarr group that is not a cache"):
        Cache.open(url)


@pytest.mark.parametrize(
    "newer, shown",
    [({"schema_version": 3}, "3"), ({"schema_minor": SCHEMA_MINOR + 1}, rf"2\.{SCHEMA_MINOR + 1}")],
)
def test_a_cache_of_a_newer_version_is_refused(
    newer: dict[str, int], shown: str, cache: Cache, manifest: CacheManifest
) -> None:
    zarr.open_group(cache.url, mode="r+").attrs.put({**manifest.to_attrs(), **newer})
    message = rf"schema version {shown}, this software reads versions 1 and 2\.0 to 2\.{SCHEMA_MINOR}; use the release"
    with pytest.raises(SchemaVersionError, match=message):
        Cache.open(cache.url)


@pytest.mark.parametrize("text", ["{", "[]", "3", '{"attributes": null}', '{"attributes": [1]}', "\xff"])
def test_a_damaged_root_document_is_a_cache_error(local: Cache, text: str) -> None:
    (Path(local.url) / "zarr.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CacheError, match=r"zarr\.json: not a Zarr group"):
        Cache.open(local.url)


@pytest.mark.parametrize("below", ["", "/cache", "/deep/cache"])
def test_a_regular_file_in_the_way_is_a_cache_error(tmp_path: Path, manifest: CacheManifest, below: str) -> None:
    (tmp_path / "file").write_text("mine")
    place = f"{tmp_path}/file{below}"
    with pytest.raises(CacheError, match=r"cannot write the cache here .*; choose another cache folder"):
        Cache.create(place, manifest)
    with pytest.raises(CacheError, match="no cache here" if below else "neither the folder of a cache nor"):
        Cache.open(place)
    assert (tmp_path / "file").read_text() == "mine"


def test_an_array_in_the_way_is_a_cache_error_and_survives(tmp_path: Path, manifest: CacheManifest) -> None:
    place = tmp_path / "array"
    zarr.create_array(place, shape=(2,), dtype="int32")[...] = 7
    with pytest.raises(CacheError, match="cannot write the cache here"):
        Cache.create(str(place), manifest)
    assert np.asarray(zarr.open_array(place, mode="r")[...]).tolist() == [7, 7]


def test_a_reader_cannot_write(cache: Cache, fill_group: Fill) -> None:
    arrays = fill_group(TEXT)
    cache.write_group(TEXT, arrays, Provenance("f"))
    reader, _ = Cache.open(cache.url)
    for write in (
        lambda: reader.write_shard_record("scene-000", RECORD),
        lambda: reader.write_group(TEXT, arrays, Provenance("g")),
        lambda: reader.remove_group(TEXT),
    ):
        with pytest.raises(CacheError, match="opened for reading; open it with mode 'a' to write"):
            write()
    assert_same(reader.read(TEXT), arrays)


def test_a_store_that_fails_is_not_taken_for_an_empty_one(
    manifest: CacheManifest, fill_group: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache.create(f"memory://{uuid.uuid4().hex}", manifest)
    cache.write_group(TEXT, fill_group(TEXT), Provenance("f"))

    def refuse(*_: object, **__: object) -> bytes:
        raise PermissionError("token expired")

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "cat_file", refuse)
    with pytest.raises(CacheError, match=r"the store refuses access \(token expired\)"):
        cache.seals([TEXT])
    with pytest.raises(CacheError, match="token expired"):
        Cache.open(cache.url)


# Shards


def test_shard_records_read_back_equal_and_keys_are_sorted(cache: Cache) -> None:
    broken = QuarantinedSample(sample="s2", stage="clip", reason="picture is cut short", inputs="9d")
    records = {"b-001": RECORD, "a-010": RECORD.model_copy(update={"samples": (), "quarantined": (broken,)})}
    for key, record in records.items():
        cache.write_shard_record(key, record)
    reader, _ = Cache.open(cache.url)
    assert reader.shard_keys() == ["a-010", "b-001"]
    assert reader.shard_records([*records, "c-000"]) == records


def test_a_record_can_be_replaced_beside_sealed_groups(cache: Cache, fill_group: Fill) -> None:
    arrays = fill_group(GroupPath("scene-000", "images"))
    cache.write_group(GroupPath("scene-000", "images"), arrays, Provenance("f"))
    assert cache.shard_keys() == ["scene-000"]
    assert cache.shard_records(["scene-000"]) == {}, "a group alone makes no record"
    changed = RECORD.model_copy(update={"samples": ("s1",)})
    for record in (RECORD, changed):
        cache.write_shard_record("scene-000", record)
    assert cache.shard_records(["scene-000"]) == {"scene-000": changed}
    assert_same(cache.read(GroupPath("scene-000", "images")), arrays)

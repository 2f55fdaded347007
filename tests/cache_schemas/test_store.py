"""The store: what is written is what is read, by us and by plain Zarr; unsealed groups are not there."""

import uuid
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest
import zarr
from zarr.core.attributes import Attributes

from cache_schemas.documents import CacheManifest, Provenance, QuarantinedSample, ShardRecord
from cache_schemas.errors import CacheError, LayoutError, NoCacheError, SchemaVersionError, UnsealedGroupError
from cache_schemas.group_path import GroupPath
from cache_schemas.layout import POINTS_PER_CHUNK, ROOT_GROUPS, SHARD_GROUPS, AnyArray, group_spec
from cache_schemas.store import Cache, checksum

Fill = Callable[..., dict[str, AnyArray]]

TEXT = GroupPath.root("text")
GROUP_PATHS = [*map(GroupPath.root, ROOT_GROUPS), *(GroupPath("scene-000", name) for name in SHARD_GROUPS)]
EVERY_DTYPE = [
    (path, choice)
    for path in GROUP_PATHS
    for choice in range(max(len(spec.dtypes) for spec in group_spec(path).arrays.values()))
]
"""Every group, once for each dtype that one of its arrays may have."""

RECORD = ShardRecord(scene="scene", samples=("s0", "s1"), cameras=("front",))


@pytest.fixture
def cache(url: str, manifest: CacheManifest) -> Cache:
    return Cache.create(url, manifest)


@pytest.fixture
def local(tmp_path: Path, manifest: CacheManifest) -> Cache:
    return Cache.create(str(tmp_path / "cache"), manifest)


def assert_same(found: dict[str, AnyArray], expected: dict[str, AnyArray]) -> None:
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


# Writing and reading groups


def test_a_cache_is_made_where_a_link_points_even_if_nothing_is_there_yet(
    tmp_path: Path, manifest: CacheManifest
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    Cache.create(str(tmp_path / "link"), manifest)
    assert Cache.open(str(tmp_path / "real"))[1] == manifest


@pytest.mark.parametrize("path, choice", EVERY_DTYPE)
def test_a_group_reads_back_equal_through_the_cache_and_plain_zarr(
    cache: Cache, fill_group: Fill, path: str, choice: int
) -> None:
    arrays = fill_group(path, dtype_choice=choice)
    assert {name: array.dtype.name for name, array in arrays.items()} == {
        name: spec.dtypes[min(choice, len(spec.dtypes) - 1)] for name, spec in group_spec(path).arrays.items()
    }
    cache.write_group(path, arrays, Provenance("f"))

    reader, _ = Cache.open(cache.url)
    assert_same(reader.read(path), arrays)
    group = zarr.open_group(cache.url, mode="r")[str(path)]
    assert isinstance(group, zarr.Group)
    assert_same({name: np.asarray(array[...]) for name, array in group.arrays()}, arrays)


@pytest.mark.parametrize("path", [path for path in GROUP_PATHS if path != TEXT])
def test_empty_arrays_read_back_equal(cache: Cache, fill_group: Fill, path: str) -> None:
    arrays = fill_group(path, I=0, P=0, N=0)
    assert any(array.size == 0 for array in arrays.values())
    cache.write_group(path, arrays, Provenance("f"))
    assert_same(cache.read(path), arrays)


def test_values_in_any_memory_order_read_back_equal(cache: Cache) -> None:
    values = np.arange(15, dtype=np.float32).reshape(5, 3).T
    big_endian = values.astype(">f4")
    assert not values.flags.c_contiguous
    for array in (values, values[:, ::-1], big_endian):
        seal = cache.write_group(TEXT, {"embeddings": array}, Provenance("f"))
        found = cache.read(TEXT)["embeddings"]
        np.testing.assert_array_equal(found, array)
        assert seal.arrays["embeddings"].crc32c == checksum(found)


def test_only_the_named_arrays_are_read(cache: Cache, fill_group: Fill) -> None:
    arrays = fill_group(GroupPath("scene-000", "pairs"))
    cache.write_group(GroupPath("scene-000", "pairs"), arrays, Provenance("f"))
    assert_same(
        cache.read(GroupPath("scene-000", "pairs"), "col", "row"), {name: arrays[name] for name in ("row", "col")}
    )


def test_an_array_lies_in_one_file_with_the_chunks_and_codecs_of_the_layout(local: Cache, fill_group: Fill) -> None:
    sizes = {"P": 2 * POINTS_PER_CHUNK + 1, "N": POINTS_PER_CHUNK + 1}
    for path in GROUP_PATHS:
        local.write_group(path, fill_group(path, **sizes), Provenance("f"))
        for name, spec in group_spec(path).arrays.items():
            array = local.arrays(path)[name]
            assert len(list((Path(local.url) / str(path) / name / "c").rglob("*"))) == array.ndim, (
                "folders and one file"
            )
            assert array.chunks == (min(spec.chunk or array.shape[0], array.shape[0]), *array.shape[1:])
            codecs = [codec.to_dict() for codec in array.compressors]
            zstd = {"name": "zstd", "configuration": {"level": 1, "checksum": True}}
            assert codecs == ([zstd] if spec.compressed else [{"name": "crc32c"}])
            assert array.metadata.dimension_names == tuple(str(axis) for axis in spec.axes)


def test_stored_bytes_are_the_sizes_of_the_files_of_each_array(local: Cache, fill_group: Fill) -> None:
    local.write_group(GroupPath("scene-000", "points"), fill_group(GroupPath("scene-000", "points")), Provenance("f"))
    folder = Path(local.url) / "shards" / "scene-000" / "points"
    expected = {
        array.name: sum(file.stat().st_size for file in array.rglob("*") if file.is_file())
        for array in folder.iterdir()
        if array.is_dir()
    }
    assert sorted(expected) == ["intensity", "offsets", "xyz"]
    assert local.stored_bytes(GroupPath("scene-000", "points")) == expected
    assert local.stored_bytes(GroupPath("scene-000", "nothing")) == {}


# Seals


def test_a_seal_keeps_what_it_was_given_and_what_the_arrays_were(cache: Cache) -> None:
    embeddings = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    written = cache.write_group(
        TEXT, {"embeddings": embeddings}, Provenance("f1", upstream={"images": "f0"}, counts={"classes": 3})
    )
    seal = Cache.open(cache.url)[0].seals([TEXT])[TEXT]
    assert seal == written
    assert (seal.fingerprint, seal.upstream, seal.counts) == ("f1", {"images": "f0"}, {"classes": 3})
    assert seal.arrays["embeddings"].shape == (3, 2)
    assert seal.arrays["embeddings"].dtype == "float32"


def test_the_checksum_is_crc32c_of_the_bytes() -> None:
    # The check value of CRC-32C is that of the nine ASCII digits; thirty-two zero bytes are from RFC 3720, B.4.
    assert checksum(np.frombuffer(b"123456789", np.uint8)) == "e3069283"
    assert checksum(np.zeros((4, 2), np.int32)) == "8a9136aa"
    assert checksum(np.zeros((0, 3), np.float32)) == "00000000"


def test_seals_tell_only_of_sealed_groups(cache: Cache, fill_group: Fill) -> None:
    for name in ("points", "images"):
        cache.write_group(GroupPath("scene-000", name), fill_group(GroupPath("scene-000", name)), Provenance(name))
    zarr.open_group(cache.url, mode="r+").create_group("shards/scene-000/sam")
    assert {name: seal.fingerprint for name, seal in cache.shard_seals("scene-000").items()} == {
        "images": "images",
        "points": "points",
    }
    assert cache.shard_seals("scene-999") == {}


def test_a_group_never_written_is_refused(cache: Cache) -> None:
    with pytest.raises(UnsealedGroupError, match="shards/scene-000/clip: not sealed"):
        cache.read(GroupPath("scene-000", "clip"))


@pytest.mark.parametrize("rewrite", [False, True])
def test_a_writer_killed_before_the_seal_leaves_nothing_to_read(
    cache: Cache, fill_group: Fill, monkeypatch: pytest.MonkeyPatch, rewrite: bool
) -> None:
    arrays = fill_group(GroupPath("scene-000", "points"))
    if rewrite:
        cache.write_group(GroupPath("scene-000", "points"), arrays, Provenance("old"))

    def killed(self: Attributes, attributes: dict[str, object]) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Attributes, "put", killed)
        cache.write_group(GroupPath("scene-000", "points"), arrays, Provenance("new"))
    assert cache.stored_bytes(GroupPath("scene-000", "points")).keys() == arrays.keys(), "all arrays were written"
    reader, _ = Cache.open(cache.url)
    assert reader.shard_seals("scene-000") == {}
    with pytest.raises(UnsealedGroupError):
        reader.read(GroupPath("scene-000", "points"))

    cache.write_group(GroupPath("scene-000", "points"), arrays, Provenance("new"))
    assert_same(reader.read(GroupPath("scene-000", "points")), arrays)


@pytest.mark.parametrize("attributes", [{}, {"state": "writing"}])
def test_a_group_whose_seal_is_wiped_is_refused(cache: Cache, fill_group: Fill, attributes: dict[str, str]) -> None:
    cache.write_group(TEXT, fill_group(TEXT), Provenance("f"))
    zarr.open_group(cache.url, path="text", mode="r+").attrs.put(attributes)
    with pytest.raises(UnsealedGroupError):
        cache.arrays(TEXT)


def test_rewriting_a_group_replaces_all_of_it(cache: Cache, fill_group: Fill) -> None:
    path = GroupPath("scene-000", "clip")
    cache.write_group(path, fill_group(path), Provenance("old", upstream={"text": "t"}, counts={"images": 3}))
    logits = fill_group(path, I=1, C=2, h=5)["logits"]
    cache.write_group(path, {"logits": logits}, Provenance("new"))
    assert_same(cache.read(path), {"logits": logits})
    assert cache.stored_bytes(path).keys() == {"logits"}
    seal = cache.seals([path])[path]
    assert (seal.fingerprint, seal.upstream, seal.counts) == ("new", {}, {})


def test_removing_a_group_spares_its_neighbours(cache: Cache, fill_group: Fill) -> None:
    for name in ("clip", "sam"):
        cache.write_group(GroupPath("scene-000", name), fill_group(GroupPath("scene-000", name)), Provenance(name))
    cache.remove_group(GroupPath("scene-000", "clip"))
    cache.remove_group(GroupPath("scene-000", "clip"))
    assert cache.shard_seals("scene-000").keys() == {"sam"}
    assert not [path for path in cache.file_sizes() if "clip" in path]


# Layout


def test_every_breach_of_the_layout_is_named_and_nothing_is_touched(cache: Cache, fill_group: Fill) -> None:
    path = GroupPath("scene-000", "pairs")
    arrays = fill_group(path)
    cache.write_group(path, arrays, Provenance("f"))
    bad = {
        "point": arrays["point"].astype(np.int64),
        "row": arrays["row"][:4],
        "col": arrays["col"].reshape(5, 1),
        "offsets": arrays["offsets"],
        "depth": arrays["row"],
    }
    with pytest.raises(LayoutError) as caught:
        cache.write_group(path, bad, Provenance("g"))
    where, _, problems = str(caught.value).partition(": ")
    assert where == str(path)
    assert problems.split("; ") == [
        "unknown array depth",
        "missing array image",
        "point is int64, the contract says int32",
        "row has shape (4,): axis N is 4 here, elsewhere 5",
        "col has shape (5, 1), the contract says ('N',)",
    ]
    assert_same(cache.read(path), arrays)


def test_fixed_axes_and_either_dtype_are_named(cache: Cache, fill_group: Fill) -> None:
    arrays = fill_group(GroupPath("scene-000", "sam"))
    bad = {**arrays, "features": np.zeros((3, 2, 4, 128), np.float32)}
    with pytest.raises(LayoutError) as caught:
        cache.write_group(GroupPath("scene-000", "sam"), bad, Provenance("f"))
    assert "features is float32, the contract says int8 or float16" in str(caught.value)
    assert "axis E is 8 here, elsewhere 128" in str(caught.value)
    with pytest.raises(LayoutError, match="axis 3 is 4 here, elsewhere 3"):
        images = fill_group(GroupPath("scene-000", "images"))
        cache.write_group(
            GroupPath("scene-000", "images"), {**images, "rgb": np.zeros((3, 4, 6, 4), np.uint8)}, Provenance("f")
        )


def test_optional_arrays_may_be_left_out(cache: Cache, fill_group: Fill) -> None:
    for path, name in (("clip", "features"), ("truth", "image")):
        arrays = fill_group(GroupPath("scene-000", path))
        del arrays[name]
        cache.write_group(GroupPath("scene-000", path), arrays, Provenance("f"))
        assert_same(cache.read(GroupPath("scene-000", path)), arrays)


@pytest.mark.parametrize("path", ["shards/scene-000/depth", "images", "shards/scene-000/text"])
def test_a_group_outside_the_contract_is_refused(cache: Cache, path: str) -> None:
    with pytest.raises(LayoutError, match=f"{path}: the contract has no group"):
        cache.write_group(GroupPath.parse(path), {}, Provenance("f"))


# The cache as a whole


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
    Cache.create(cache.url, manifest.model_copy(update={"split": "val"}))
    reader, found = Cache.open(cache.url)
    assert found.split == "val"
    assert_same(reader.read(TEXT), arrays)
    assert reader.shard_records(["scene-000"]) == {"scene-000": RECORD}


def test_no_cache_is_told_apart_from_a_foreign_zarr_group(url: str) -> None:
    with pytest.raises(NoCacheError, match="no cache here; make one with"):
        Cache.open(url)
    assert Cache(url).manifest() is None
    zarr.open_group(url, mode="w", attributes={"title": "somebody's results"})
    with pytest.raises(CacheError, match="not a cache of ours"):
        Cache.open(url)


def test_a_cache_of_schema_version_2_is_refused(cache: Cache, manifest: CacheManifest) -> None:
    zarr.open_group(cache.url, mode="r+").attrs.put({**manifest.to_attrs(), "schema_version": 2})
    with pytest.raises(SchemaVersionError, match="schema version 2, this software reads and writes version 1"):
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
    with pytest.raises(NoCacheError):
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
    with pytest.raises(CacheError, match=r"the store refuses \(token expired\)"):
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

"""The store: groups read back equal, through `Cache` and plain Zarr; unsealed groups cannot be read."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from cache_schemas.array_storage import checksum
from cache_schemas.documents import CacheManifest, GroupSeal, Provenance
from cache_schemas.errors import LayoutError, UnsealedGroupError
from cache_schemas.group_path import GroupPath
from cache_schemas.layout import POINTS_PER_CHUNK, ROOT_GROUPS, SHARD_GROUPS, AnyArray, group_spec
from cache_schemas.store import Cache
from tests.cache_schemas.editing import assert_same

Fill = Callable[..., dict[str, AnyArray]]

TEXT = GroupPath.root("text")
GROUP_PATHS = [*map(GroupPath.root, ROOT_GROUPS), *(GroupPath("scene-000", name) for name in SHARD_GROUPS)]
EVERY_DTYPE = [
    (path, choice)
    for path in GROUP_PATHS
    for choice in range(max(len(spec.dtypes) for spec in group_spec(path).arrays.values()))
]
"""Every group, once for each dtype that one of its arrays may have."""

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
    arrays = fill_group(path, I=0, P=0, N=0, Q=0, K=0)
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
            assert array.metadata.dimension_names == tuple(spec.dimension_names)


def test_stored_bytes_are_the_sizes_of_the_files_of_each_array(local: Cache, fill_group: Fill) -> None:
    local.write_group(GroupPath("scene-000", "points"), fill_group(GroupPath("scene-000", "points")), Provenance("f"))
    folder = Path(local.url) / "shards" / "scene-000" / "points"
    expected = {
        array.name: sum(file.stat().st_size for file in array.rglob("*") if file.is_file())
        for array in folder.iterdir()
        if array.is_dir()
    }
    assert sorted(expected) == ["colour", "intensity", "offsets", "world_from_cloud", "xyz"]
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

    def killed(self: GroupSeal) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(GroupSeal, "to_attrs", killed)
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
        "range": arrays["row"],
    }
    with pytest.raises(LayoutError) as caught:
        cache.write_group(path, bad, Provenance("g"))
    where, _, problems = str(caught.value).partition(": ")
    assert where == str(path)
    assert problems.split("; ") == [
        "unknown array range",
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

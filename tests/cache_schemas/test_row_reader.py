"""Rows read directly from files are those that zarr-python reads, and damage is never returned as data."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from cache_schemas.documents import CacheManifest, Provenance
from cache_schemas.errors import DamagedGroupError
from cache_schemas.group_path import GroupPath
from cache_schemas.layout import POINTS_PER_CHUNK, SHARD_GROUPS, AnyArray
from cache_schemas.row_reader import RowReader, Span, StoredArray
from cache_schemas.store import Cache
from tests.cache_schemas.editing import chunk_of, edit_chunk, flip

Fill = Callable[..., dict[str, AnyArray]]


def locate(url: str, group: str) -> tuple[RowReader, dict[str, StoredArray]]:
    reader = RowReader(url)
    path = GroupPath("s-000", group)
    seals = Cache(url).seals([path])
    return reader, reader.locate(seals, {path: list(seals[path].arrays)})


def read(url: str, group: str, name: str, start: int, stop: int) -> AnyArray:
    reader, stored = locate(url, group)
    return reader.read([Span(stored[f"shards/s-000/{group}/{name}"], start, stop)])[0]


@pytest.mark.parametrize("group", SHARD_GROUPS)
def test_every_array_of_every_group_reads_as_zarr_reads_it(cache: Cache, fill_group: Fill, group: str) -> None:
    path = GroupPath("s-000", group)
    cache.write_group(path, fill_group(path), Provenance("f"))
    reader, stored = locate(cache.url, group)
    names = [name.rsplit("/", 1)[1] for name in stored]
    found = reader.read([Span(array, 0, array.shape[0]) for array in stored.values()])
    expected = cache.read(path)
    assert sorted(names) == sorted(expected)
    for name, values in zip(names, found, strict=True):
        np.testing.assert_array_equal(values, expected[name], strict=True)


def test_spans_may_start_and_stop_anywhere_in_chunks(cache: Cache) -> None:
    count = 2 * POINTS_PER_CHUNK + 17
    values = np.arange(count, dtype=np.int32)
    small = np.zeros(count, np.uint16)
    arrays = {"point": values, "image": small, "row": small, "col": small, "offsets": np.array([0, count])}
    cache.write_group(GroupPath("s-000", "pairs"), arrays, Provenance("f"))
    edge = POINTS_PER_CHUNK
    for start, stop in [(0, 1), (edge - 1, edge + 1), (edge, 2 * edge), (5, count), (count - 3, count), (9, 9)]:
        np.testing.assert_array_equal(read(cache.url, "pairs", "point", start, stop), values[start:stop])


def test_empty_arrays_have_no_file_and_read_as_empty(cache: Cache) -> None:
    arrays = {"xyz": np.zeros((0, 3), np.float32), "intensity": np.zeros(0, np.float32), "offsets": np.array([0, 0])}
    cache.write_group(GroupPath("s-000", "points"), arrays, Provenance("f"))
    assert read(cache.url, "points", "xyz", 0, 0).shape == (0, 3)


@pytest.fixture
def folder(tmp_path: Path, manifest: CacheManifest, fill_group: Fill) -> Path:
    cache = Cache.create(str(tmp_path / "cache"), manifest)
    for group in ("sam", "labels"):
        path = GroupPath("s-000", group)
        cache.write_group(path, fill_group(path), Provenance("f"))
    return tmp_path / "cache"


@pytest.mark.parametrize(("group", "name"), [("sam", "features"), ("labels", "image")])
@pytest.mark.parametrize("place", ["data", "index", "cut", "gone"])
def test_damage_is_an_error_that_names_the_array_and_the_remedy(
    folder: Path, group: str, name: str, place: str
) -> None:
    array = f"shards/s-000/{group}/{name}"
    if place == "gone":
        chunk_of(folder, array).unlink()
    else:
        edits = {"cut": lambda content: content[:-9], "data": flip(12), "index": flip(-12)}
        edit_chunk(folder, array, edits[place])
    with pytest.raises(DamagedGroupError, match=rf"shards/s-000/{group}/{name}: damaged .*`labelgen run`"):
        read(str(folder), group, name, 0, 1)


def test_another_storage_layout_is_refused(folder: Path) -> None:
    file = folder / "shards/s-000/labels/image/zarr.json"
    file.write_text(file.read_text().replace("zstd", "gzip"))
    with pytest.raises(DamagedGroupError, match="not stored as the contract says"):
        locate(str(folder), "labels")


def test_ranges_of_an_object_that_lie_close_are_one_request(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "memory://close/c"
    made = Cache.create(url, cache.manifest())
    rgb = np.arange(7 * 64 * 512 * 3, dtype=np.uint32).astype(np.uint8).reshape(7, 64, 512, 3)
    small = np.zeros((7, 4, 4))
    arrays = {"rgb": rgb, "intrinsics": small[:, :3, :3], "cam_from_cloud": small, "offsets": np.array([0, 7])}
    made.write_group(GroupPath("s-000", "images"), arrays, Provenance("f"))
    reader, stored = locate(url, "images")
    asked: list[int] = []
    real = MemoryFileSystem.cat_ranges

    def reading(fs: MemoryFileSystem, paths: list[str], *rest: object, **options: object) -> list[object]:
        asked.append(len(paths))
        return real(fs, paths, *rest, **options)

    monkeypatch.setattr(MemoryFileSystem, "cat_ranges", reading)
    array = stored["shards/s-000/images/rgb"]
    for rows, requests in (((5, 1, 3), 1), ((0, 6), 2), ((2, 2), 1)):  # a row is 98,304 bytes
        found = reader.read([Span(array, row, row + 1) for row in rows])
        assert asked.pop() == requests
        for row, values in zip(rows, found, strict=True):
            np.testing.assert_array_equal(values, rgb[row : row + 1])

"""The stream reads samples as the cache holds them, and stops at damaged bytes with shard, array and fix."""

import uuid
from pathlib import Path

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from cache_schemas.documents import Provenance
from cache_schemas.errors import DamagedGroupError
from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from trainer.data.stream import CacheStream

ARRAYS = ["images/rgb", "labels/image", "points/xyz", "pairs/point", "pairs/image", "pairs/row", "pairs/col"]


@pytest.mark.parametrize("place", ["local", "memory"])
def test_samples_read_as_the_cache_holds_them(place: str, tmp_path: Path, make_cache) -> None:
    url = make_cache(tmp_path / "c" if place == "local" else f"memory://{uuid.uuid4().hex}/c")
    stream, cache = CacheStream(url, ARRAYS, optional=["truth/image"]), Cache(url)
    assert len(stream.samples) == 6
    for ref in stream.samples:
        found = stream.read(ref)
        images, points, pairs = (cache.read(GroupPath(ref.shard, group)) for group in ("images", "points", "pairs"))
        rows = slice(*images["offsets"][ref.index : ref.index + 2])
        np.testing.assert_array_equal(found["images/rgb"], images["rgb"][rows])
        truth = cache.read(GroupPath(ref.shard, "truth"), "image")["image"]
        np.testing.assert_array_equal(found["truth/image"], truth[rows])
        kept = slice(*pairs["offsets"][ref.index : ref.index + 2])
        xyz = points["xyz"][pairs["point"][kept]]
        np.testing.assert_array_equal(found["points/xyz"][found["pairs/point"]], xyz)
        rgb = images["rgb"][pairs["image"][kept], pairs["row"][kept], pairs["col"][kept]]
        local = found["images/rgb"][found["pairs/image"], found["pairs/row"], found["pairs/col"]]
        np.testing.assert_array_equal(local, rgb)


def test_only_chosen_images_are_read_with_their_pairs(toy: str) -> None:
    stream = CacheStream(toy, ARRAYS)
    ref = stream.samples[3]
    both, second = stream.read(ref), stream.read(ref, [1])
    assert stream.image_count(ref) == 2
    np.testing.assert_array_equal(second["images/rgb"], both["images/rgb"][1:])
    kept = both["pairs/image"] == 1
    assert 0 < kept.sum() < len(kept)
    np.testing.assert_array_equal(second["pairs/point"], both["pairs/point"][kept])
    assert (second["pairs/image"] == 0).all()


def test_hidden_pairs_are_left_out(own: str) -> None:
    cache, path = Cache(own, "a"), GroupPath("scene-0-000", "pairs")
    arrays, seal = cache.read(path), cache.seals([path])[path]
    visible = (np.arange(len(arrays["point"])) % 3 > 0).astype(np.uint8)
    cache.write_group(
        path, arrays | {"visible": visible}, Provenance(seal.fingerprint, upstream=seal.upstream, samples=seal.samples)
    )
    everything, stream = CacheStream(own, ARRAYS), CacheStream(own, ARRAYS, optional=["pairs/visible"])
    for ref in stream.samples:
        all_pairs, seen = everything.read(ref), stream.read(ref)
        kept = np.ones(len(all_pairs["pairs/point"]), bool)
        if ref.shard == "scene-0-000":
            kept = visible[slice(*arrays["offsets"][ref.index : ref.index + 2])] > 0
            assert 0 < kept.sum() < len(kept)
        for name in ("pairs/point", "pairs/image", "pairs/row", "pairs/col"):
            np.testing.assert_array_equal(seen[name], all_pairs[name][kept])


def flip(file: Path, position: int) -> None:
    data = bytearray(file.read_bytes())
    data[position] ^= 4
    file.write_bytes(bytes(data))


@pytest.mark.parametrize("position", [6, -8], ids=["values", "index"])
def test_a_flipped_bit_stops_with_shard_array_and_fix(own: str, position: int) -> None:
    array = "labels/image"
    (file,) = (file for file in (Path(own) / f"shards/scene-0-000/{array}/c").rglob("*") if file.is_file())
    flip(file, position)
    stream = CacheStream(own, ARRAYS)
    with pytest.raises(
        DamagedGroupError, match=rf"scene-0-000/{array}: damaged \(.*\); remove .*; .*`labelgen verify`"
    ):
        stream.read(stream.samples[0])


def test_a_flipped_bit_in_the_text_embeddings_stops_too(own: str) -> None:
    flip(Path(own) / "text/embeddings/c/0/0", 6)
    with pytest.raises(DamagedGroupError, match=r"text/embeddings: damaged .*rerun the same `labelgen run`"):
        CacheStream(own, ARRAYS).text_embeddings()


def test_samples_of_several_shards_read_together_as_one_by_one(toy: str) -> None:
    alone, together = CacheStream(toy, ARRAYS), CacheStream(toy, ARRAYS)
    wanted = [(alone.samples[5], [1]), (alone.samples[0], None), (alone.samples[3], [0]), (alone.samples[0], [0])]
    assert len({ref.shard for ref, _ in wanted}) > 1
    assert together.image_counts([ref for ref, _ in wanted]) == [alone.image_count(ref) for ref, _ in wanted]
    for (ref, images), found in zip(wanted, together.read_together(wanted), strict=True):
        expected = alone.read(ref, images)
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values)


def test_a_shard_costs_one_round_of_requests_and_no_metadata_of_arrays(
    make_cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = make_cache(f"memory://{uuid.uuid4().hex}/c")
    calls: list[list[str]] = []
    real = MemoryFileSystem.cat_ranges

    def reading(fs: MemoryFileSystem, paths: list[str], *rest: object, **options: object) -> list[object]:
        calls.append(list(paths))
        return real(fs, paths, *rest, **options)

    monkeypatch.setattr(MemoryFileSystem, "cat_ranges", reading)
    stream = CacheStream(url, ARRAYS)
    assert not [path for paths in calls for path in paths if any(path.endswith(f"{a}/zarr.json") for a in ARRAYS)]
    calls.clear()
    stream.image_counts(stream.samples)
    assert len(calls) == 1
    once = [
        path
        for (*_, group, array) in (name.split("/") for name in ARRAYS)
        for path in calls[0]
        if f"/{group}/{array}/" in path
    ]
    assert len(once) == len(set(once)) == 3 * len(ARRAYS)
    calls.clear()
    for ref in stream.samples:
        stream.read(ref)
    data = [paths for paths in calls if not paths[0].endswith("zarr.json")]
    assert [len(paths) for paths in data] == [len(ARRAYS)] * len(stream.samples), "kept indices are not read again"
    seals = [path for paths in calls if paths[0].endswith("zarr.json") for path in paths]
    assert len(seals) == len(set(seals)), "a shard that was confirmed a moment ago is not asked for again"

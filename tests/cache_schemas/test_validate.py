"""Validation as a whole: sound caches, messages, and stale groups. The kinds of damage are in test_damage."""

import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache_schemas.documents import Provenance
from cache_schemas.errors import CacheError, DamagedGroupError
from cache_schemas.group_path import GroupPath
from cache_schemas.layout import AnyArray
from cache_schemas.location import file_system
from cache_schemas.repair import repair
from cache_schemas.store import Cache
from tests.cache_schemas.editing import edit_document, problems_of, put, reseal

SHARD = "shards/toy-000"

Groups = dict[str, dict[str, AnyArray]]


def places_of(place: str | Path) -> list[tuple[str, str]]:
    return [(problem.kind.value, problem.path) for problem in problems_of(place)]


def emptied(array: str) -> Callable[[AnyArray], AnyArray]:
    """Return a function from an array of points or pairs to the same without any; offsets become zeros."""
    return lambda values: values * 0 if array == "offsets" else values[:0]


def test_a_sound_cache_has_no_problem(url: str, write_sound_cache: Callable[[str], Cache]) -> None:
    write_sound_cache(url)
    assert problems_of(url) == []


def test_damage_in_an_object_store_is_found_and_repaired(write_sound_cache: Callable[[str], Cache]) -> None:
    cache = write_sound_cache("memory://validate-repair/cache")
    fs, base = file_system(cache.url)
    fs.pipe_file(f"{base}/notes.txt", b"x")
    fs.rm_file(f"{base}/{SHARD}/images/rgb/c/0/0/0/0")
    fs.pipe_file(f"{base}/{SHARD}/clip/zarr.json", b"{")
    places = [("unrelated-file", "notes.txt"), ("damaged-document", f"{SHARD}/clip")]
    assert places_of(cache.url) == [*places, ("unreadable-array", f"{SHARD}/images/rgb")]
    assert repair(cache, problems_of(cache.url)) == [f"{SHARD}/clip", f"{SHARD}/images"]
    unsealed = [("unsealed-group", f"{SHARD}/{name}") for name in ("images", "clip")]
    assert places_of(cache.url) == [("unrelated-file", "notes.txt"), *unsealed]


def test_messages_tell_what_was_found_and_what_was_promised(sound_folder: Path) -> None:
    reseal(sound_folder, f"{SHARD}/pairs", col=put(4, 6))
    reseal(sound_folder, f"{SHARD}/truth", point=put(0, 9))
    edit_document(sound_folder, f"{SHARD}/sam/mask_ids", lambda document: document.update(data_type="int64"))
    reseal(sound_folder, "text", fingerprint="the-new-fingerprint")
    assert {problem.path: problem.message for problem in problems_of(sound_folder)} == {
        f"{SHARD}/sam/mask_ids": "data_type is 'int64', expected 'uint16'",
        f"{SHARD}/clip": "made from text f-text, which is now the-new-fing",
        f"{SHARD}/pairs/col": "1 values out of range, the first 6 at 4",
        f"{SHARD}/truth/point": "id 9 is neither a class of street nor 255",
    }


def test_all_problems_of_a_cache_are_found(sound_folder: Path) -> None:
    (sound_folder / "notes.txt").write_text("mine")
    shutil.rmtree(sound_folder / "text")
    (sound_folder / SHARD / "images/rgb/c/0/0/0/0").unlink()
    edit_document(sound_folder, f"{SHARD}/clip", lambda document: document.update(attributes={}))
    shutil.rmtree(sound_folder / SHARD / "sam/mask_ids")
    (sound_folder / SHARD / "sam/features/c/0/0/0/0").unlink()
    edit_document(sound_folder, "shards/toy-001", lambda document: document.update(attributes={}))
    assert set(places_of(sound_folder)) == {
        ("unrelated-file", "notes.txt"),
        ("unsealed-group", "text"),
        ("unreadable-array", f"{SHARD}/images/rgb"),
        ("unsealed-group", f"{SHARD}/clip"),
        ("missing-array", f"{SHARD}/sam/mask_ids"),
        ("unreadable-array", f"{SHARD}/sam/features"),
        ("missing-record", "shards/toy-001"),
    }


@pytest.mark.parametrize("path", [f"{SHARD}/truth", f"{SHARD}/sam/features_scale"])
def test_what_is_optional_may_be_left_out(sound_folder: Path, path: str) -> None:
    cache, _ = Cache.open(str(sound_folder), "a")
    if path.endswith("truth"):
        cache.remove_group(GroupPath.parse(path))
    else:
        sam = GroupPath("toy-000", "sam")
        arrays = cache.read(sam, "mask_ids", "features")
        arrays["features"] = arrays["features"].astype(np.float16)
        seal = cache.seals([sam])[sam]
        cache.write_group(sam, arrays, Provenance(seal.fingerprint, samples=seal.samples))
    assert problems_of(sound_folder) == []


def test_a_redone_group_makes_only_what_came_from_it_stale(sound_folder: Path) -> None:
    reseal(sound_folder, f"{SHARD}/images", fingerprint="new")
    assert places_of(sound_folder) == [("stale-group", f"{SHARD}/clip"), ("stale-group", f"{SHARD}/sam")]


def test_a_group_made_from_a_stale_one_stays_until_that_is_redone(sound_folder: Path) -> None:
    def of_other_settings(document: dict[str, Any]) -> None:
        document["attributes"].update(recipe="of another run", fingerprint="other")

    edit_document(sound_folder, f"{SHARD}/clip", of_other_settings)
    assert places_of(sound_folder) == [("stale-group", f"{SHARD}/clip")], "labels fit what clip was, and may be again"


def test_a_shard_without_points_or_pairs_is_sound(sound_folder: Path, sound_arrays: Groups) -> None:
    for name in ("points", "pairs", "labels", "truth"):
        per_point = [array for array in sound_arrays[name] if not array.startswith("image") or name == "pairs"]
        reseal(sound_folder, f"{SHARD}/{name}", **{array: emptied(array) for array in per_point})
    assert problems_of(sound_folder) == []


def test_a_chunk_file_of_an_empty_array_is_stray(sound_folder: Path, sound_arrays: Groups) -> None:
    reseal(sound_folder, f"{SHARD}/pairs", **{array: emptied(array) for array in sound_arrays["pairs"]})
    (sound_folder / SHARD / "pairs/row/c").mkdir()
    (sound_folder / SHARD / "pairs/row/c/0").write_bytes(b"x")
    assert places_of(sound_folder) == [("stray-file", f"{SHARD}/pairs/row/c/0")]


def test_of_copies_of_a_sample_the_first_shard_keeps_it(sound_folder: Path) -> None:
    """As after a run with larger shards than the one before."""
    shutil.copytree(sound_folder / SHARD, sound_folder / "shards/toy-003")
    (problem,) = problems_of(sound_folder)
    assert (problem.path, problem.message) == ("shards/toy-003", "sample s0 is in shard toy-000 already")


def test_problems_are_json_ready(sound_folder: Path) -> None:
    (sound_folder / "notes.txt").write_text("mine")
    (problem,) = problems_of(sound_folder)
    assert json.loads(json.dumps(problem.to_dict())) == {
        "kind": "unrelated-file",
        "path": "notes.txt",
        "message": "not part of the cache format",
        "remedy": "move it out of the cache; `labelgen verify --repair` leaves it",
    }


# Readers


def test_a_reader_refuses_an_array_that_is_not_the_one_sealed(sound_folder: Path) -> None:
    edit_document(sound_folder, f"{SHARD}/points/xyz", lambda document: document.update(shape=[10**12, 3]))
    cache, _ = Cache.open(str(sound_folder))
    for read in (cache.read, cache.arrays):
        with pytest.raises(DamagedGroupError, match=r"damaged \(xyz is float32 \(1000000000000, 3\), sealed as"):
            read(GroupPath("toy-000", "points"), "xyz")


def test_a_reader_allocates_nothing_for_what_a_file_cannot_hold(sound_folder: Path) -> None:
    edit_document(sound_folder, f"{SHARD}/points/xyz", lambda document: document.update(shape=[10**12, 3]))
    edit_document(
        sound_folder,
        f"{SHARD}/points",
        lambda document: document["attributes"]["arrays"]["xyz"].update(shape=[10**12, 3]),
    )
    cache, _ = Cache.open(str(sound_folder))
    with pytest.raises(DamagedGroupError, match=r"xyz has \d+ bytes, its shape \(1000000000000, 3\) needs at least"):
        cache.read(GroupPath("toy-000", "points"), "xyz")


def test_a_reader_refuses_a_chunk_that_is_gone(sound_folder: Path) -> None:
    (sound_folder / SHARD / "points/xyz/c/0/0").unlink()
    cache, _ = Cache.open(str(sound_folder))
    with pytest.raises(DamagedGroupError, match="points: damaged"):
        cache.read(GroupPath("toy-000", "points"))


def test_a_cache_whose_root_is_an_array_is_refused(sound_folder: Path) -> None:
    edit_document(sound_folder, "", lambda document: document.update(node_type="array"))
    with pytest.raises(CacheError, match="not a Zarr group"):
        Cache.open(str(sound_folder))


def test_a_lack_of_memory_is_no_damage(sound_folder: Path) -> None:
    """Otherwise `repair` would remove a sound group because other processes took the memory."""
    reseal(sound_folder, f"{SHARD}/images", rgb=lambda _: np.zeros((3, 4000, 4000, 3), np.uint8))
    cache, _ = Cache.open(str(sound_folder))
    cache.read(GroupPath("toy-000", "clip"))
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (mapped + 40_000_000, before[1]))
    try:
        with pytest.raises(MemoryError):
            cache.read(GroupPath("toy-000", "images"), "rgb")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)

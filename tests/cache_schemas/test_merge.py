"""Merging caches: all shards, nothing computed; caches that do not go together are refused with one sentence."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache_schemas.documents import CacheManifest, GroupSeal, Provenance, Source, Teachers
from cache_schemas.errors import CacheError
from cache_schemas.group_path import GroupPath
from cache_schemas.layout import SHARD_GROUPS
from cache_schemas.merge import merge
from cache_schemas.store import Cache
from cache_schemas.validate import validate
from tests.toy_cache import create_toy_cache, write_toy_shard

STORED = Path(__file__).with_name("format1") / "cache.zarr"
Groups = dict[str, dict[str, np.ndarray]]


@pytest.fixture
def write(manifest: CacheManifest, sound_arrays: Groups) -> Callable[..., str]:
    """Return a function that writes a cache of one shard, `<scene>-000`, with the manifest's fields replaced."""

    def write(place: Path | str, scene: str, samples: tuple[str, ...] = (), **fields: Any) -> str:
        cache = create_toy_cache(str(place), manifest.model_copy(update=fields), embedding_size=5)
        write_toy_shard(cache, scene, sound_arrays, samples or (f"{scene}-a", f"{scene}-b"))
        return str(place)

    return write


def all_seals(url: str) -> dict[GroupPath, GroupSeal]:
    cache = Cache(url)
    return cache.seals(GroupPath(key, name) for key in cache.shard_keys() for name in SHARD_GROUPS)


def test_the_merged_cache_has_all_shards_and_is_sound(url: str, write: Callable[..., str]) -> None:
    one, two = write(f"{url}-1", "east"), write(f"{url}-2", "west", sources=(Source(dataset="toy", split="val"),))
    assert merge([one, two], f"{url}-3") == 2
    merged, manifest = Cache.open(f"{url}-3")
    assert [(source.dataset, source.split) for source in manifest.sources] == [("toy", "train"), ("toy", "val")]
    assert merged.shard_keys() == ["east-000", "west-000"]
    assert all_seals(f"{url}-3") == all_seals(one) | all_seals(two)
    path = GroupPath("west-000", "clip")
    np.testing.assert_array_equal(merged.read(path)["logits"], Cache(two).read(path)["logits"])
    assert [str(problem) for problem in validate(merged, manifest)] == []


def test_imported_labels_come_along(url: str, write: Callable[..., str]) -> None:
    one, two = write(f"{url}-1", "east"), write(f"{url}-2", "west")
    path, labels = GroupPath("west-000", "labels.corrected"), np.array([2, 1, 0, 255, 1, 1, 2], np.uint8)
    provenance = Provenance("imported", upstream={"points": "f-points"}, samples=("west-a", "west-b"))
    seal = Cache(two, "a").write_group(path, {"point": labels}, provenance)
    merge([one, two], f"{url}-3")
    merged, manifest = Cache.open(f"{url}-3")
    assert merged.seals([path]) == {path: seal}
    np.testing.assert_array_equal(merged.read(path)["point"], labels)
    assert [str(problem) for problem in validate(merged, manifest)] == []


def test_values_on_one_disk_are_not_stored_twice(tmp_path: Path, write: Callable[..., str]) -> None:
    one, two = write(tmp_path / "1", "east"), write(tmp_path / "2", "west")
    merge([one, two], str(tmp_path / "3"))
    chunk = "shards/east-000/images/rgb/c/0/0/0/0"
    assert (tmp_path / "3" / chunk).samefile(tmp_path / "1" / chunk)
    shutil.rmtree(one)
    assert [str(problem) for problem in validate(*Cache.open(str(tmp_path / "3")))] == []


def test_a_group_that_is_made_again_in_the_merged_cache_stays_in_the_first(
    tmp_path: Path, write: Callable[..., str], sound_arrays: Groups
) -> None:
    one, two = write(tmp_path / "1", "east"), write(tmp_path / "2", "west")
    merge([one, two], str(tmp_path / "3"))
    path = GroupPath("east-000", "truth")
    merged = Cache(str(tmp_path / "3"), "a")
    merged.write_group(path, {"point": np.zeros(7, np.uint8)}, merged.seals([path])[path].provenance)
    np.testing.assert_array_equal(Cache(one).read(path)["point"], sound_arrays["truth"]["point"])


def test_a_merge_that_was_stopped_goes_on(
    tmp_path: Path, write: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = write(tmp_path / "1", "east"), write(tmp_path / "2", "west")
    copy, copied = Cache.copy_group, 0

    def stop(cache: Cache, *arguments: Any) -> None:
        nonlocal copied
        copied += 1
        if copied == 5:
            raise OSError("stopped")
        copy(cache, *arguments)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="stopped"):
        patch.setattr(Cache, "copy_group", stop)
        merge([one, two], str(tmp_path / "3"))
    assert len(all_seals(str(tmp_path / "3"))) == 3
    merge([one, two], str(tmp_path / "3"))
    assert all_seals(str(tmp_path / "3")) == all_seals(one) | all_seals(two)


def other_network(manifest: CacheManifest) -> Teachers:
    networks = dict(manifest.teachers.networks)
    return Teachers(preset="tiny", networks=networks | {"sam": networks["clip"]})


REFUSED: Mapping[str, tuple[Callable[[CacheManifest], dict[str, Any]], str]] = {
    "prompts": (
        lambda m: {"prompts": m.prompts.model_copy(update={"digest": "decade"})},
        "its prompts are not that of .*merge caches of the same taxonomy",
    ),
    "network": (lambda m: {"teachers": other_network(m)}, "its teacher sam is not that of"),
    "modalities": (lambda m: {"modalities": ("image",)}, "its modalities are not that of"),
    "settings of the data set": (
        lambda m: {"recipes": {"toy": {"pairs": "1", "clip": "2"}}},
        "the recipe of its group clip is not that of",
    ),
    "settings of a teacher": (
        lambda m: {"sources": (Source(dataset="other", split="all"),), "recipes": {"other": {"clip": "2"}}},
        "the recipe of its group clip is not that of",
    ),
    "format": (lambda m: {"schema_version": 1}, "labelgen migrate"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_caches_that_do_not_go_together_are_refused(
    what: str, tmp_path: Path, manifest: CacheManifest, write: Callable[..., str]
) -> None:
    change, said = REFUSED[what]
    one, two = write(tmp_path / "1", "east"), write(tmp_path / "2", "west")
    if what == "format":
        two = str(shutil.copytree(STORED, tmp_path / "old"))
    else:
        Cache.create(two, manifest.model_copy(update=change(manifest)))
    with pytest.raises(CacheError, match=said):
        merge([one, two], str(tmp_path / "3"))
    assert not (tmp_path / "3").exists()


def test_data_sets_may_differ_in_settings_that_no_teacher_sees(
    tmp_path: Path, manifest: CacheManifest, write: Callable[..., str]
) -> None:
    one = write(tmp_path / "1", "east", recipes={"toy": {"clip": "", "pairs": "1"}})
    other = (Source(dataset="other", split="all"),)
    two = write(tmp_path / "2", "west", sources=other, recipes={"other": {"clip": "", "pairs": "2"}})
    merge([one, two], str(tmp_path / "3"))
    recipes = Cache.open(str(tmp_path / "3"))[1].recipes
    assert recipes == {"toy": {"clip": "", "pairs": "1"}, "other": {"clip": "", "pairs": "2"}}


def test_shards_and_samples_that_are_in_both_are_refused(tmp_path: Path, write: Callable[..., str]) -> None:
    one, two = write(tmp_path / "1", "east"), write(tmp_path / "2", "east", ("c", "d"))
    three = write(tmp_path / "3", "west", ("east-b", "e"))
    with pytest.raises(CacheError, match=r"shard east-000 is in .*1 too; merge caches of different scenes"):
        merge([one, two], str(tmp_path / "out"))
    with pytest.raises(CacheError, match=r"sample east-b of shard west-000 is in .*1 too; merge caches"):
        merge([one, three], str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_the_place_of_the_result_must_be_free(tmp_path: Path, write: Callable[..., str]) -> None:
    one, two, three = (write(tmp_path / name, name) for name in ("north", "east", "south"))
    with pytest.raises(CacheError, match="one of the caches to merge"):
        merge([one, two], two)
    with pytest.raises(CacheError, match="holds another cache"):
        merge([one, two], str(shutil.copytree(STORED, tmp_path / "old")))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("years of work")
    with pytest.raises(CacheError, match=r"not empty \(it holds 'thesis.txt'\)"):
        merge([one, three], str(tmp_path / "notes"))

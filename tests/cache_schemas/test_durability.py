"""What is left after a loss of power: arrays reach the disk before their seal, and empty files are not kept."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from cache_schemas import durable_store
from cache_schemas.documents import Provenance
from cache_schemas.group_path import GroupPath
from cache_schemas.layout import SHARD_GROUPS
from cache_schemas.location import file_system
from cache_schemas.store import Cache
from tests.cache_schemas.editing import chunk_of

POINTS = GroupPath("toy-000", "points")


class Disk:
    """Records which files and folders were brought to the disk, and when files got their names."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, base: Path) -> None:
        self.events: list[tuple[str, str]] = []
        self._base = base
        fsync, replace = os.fsync, Path.replace

        def synced(descriptor: int) -> None:
            self.events.append(("sync", self._inside(Path(f"/proc/self/fd/{descriptor}").readlink())))
            fsync(descriptor)

        def renamed(path: Path, target: Path) -> Path:
            assert ("sync", self._inside(path)) in self.events, "a file gets its name when it is on the disk"
            self.events.append(("name", self._inside(Path(target))))
            return replace(path, target)

        monkeypatch.setattr(durable_store.os, "fsync", synced)
        monkeypatch.setattr(Path, "replace", renamed)

    def _inside(self, path: Path) -> str:
        return str(path.relative_to(self._base))


def test_a_group_is_on_the_disk_before_its_seal_and_its_seal_before_the_call_returns(
    sound_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, _ = Cache.open(str(sound_folder), "a")
    arrays = cache.read(POINTS)
    disk = Disk(monkeypatch, sound_folder)
    cache.write_group(POINTS, arrays, Provenance("new"))
    folder = "shards/toy-000/points"
    seal = max(index for index, event in enumerate(disk.events) if event == ("name", f"{folder}/zarr.json"))
    before, after = disk.events[:seal], disk.events[seal + 1 :]
    for name, array in arrays.items():
        file = f"{folder}/{name}/c/" + "/".join("0" * array.ndim)
        named = before.index(("name", file))
        assert ("sync", str(Path(file).parent)) in before[named:]
    assert ("sync", folder) in before
    for parent in (folder, "shards/toy-000", "shards", "."):
        assert ("sync", parent) in after


def test_the_seal_of_a_group_that_is_written_again_goes_first(
    sound_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, _ = Cache.open(str(sound_folder), "a")
    disk = Disk(monkeypatch, sound_folder)
    cache.remove_group(POINTS)
    assert disk.events == [("sync", "shards/toy-000/points")]


OFF_BY_DEFAULT = ("sweeps", "instances", "instance_labels", "time")


@pytest.mark.parametrize("group", [name for name in SHARD_GROUPS if name not in OFF_BY_DEFAULT])
@pytest.mark.parametrize("lost", ["zeros", "gone", "metadata"])
def test_a_seal_over_files_that_are_empty_or_gone_does_not_count(sound_folder: Path, group: str, lost: str) -> None:
    cache, path = Cache(str(sound_folder)), GroupPath("toy-000", group)
    paths = [GroupPath(key, name) for key in cache.shard_keys() for name in SHARD_GROUPS] + [GroupPath.root("text")]
    assert cache.whole_seals(paths) == cache.seals(paths) != {}
    name = next(iter(cache.seals([path])[path].arrays))
    file = chunk_of(sound_folder, f"{path}/{name}")
    if lost == "zeros":
        os.truncate(file, 0)
    elif lost == "gone":
        file.unlink()
    else:
        os.truncate(sound_folder / str(path) / name / "zarr.json", 0)
    assert cache.seals([path]).keys() - cache.whole_seals(paths).keys() == {path}


def test_empty_arrays_and_objects_in_a_store_count(sound_folder: Path) -> None:
    cache, _ = Cache.open(str(sound_folder), "a")
    empty = {"xyz": np.zeros((0, 3), np.float32), "intensity": np.zeros(0, np.float32), "offsets": np.array([0, 0])}
    for store in (cache, Cache("memory://durability/cache", "a")):
        if store is not cache:
            fs, base = file_system(store.url)
            fs.put(f"{cache.url}/", base, recursive=True)
        store.write_group(POINTS, empty, Provenance("new"))
        assert POINTS in store.whole_seals([POINTS])


def test_a_failed_write_leaves_no_half_written_file(sound_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, _ = Cache.open(str(sound_folder), "a")
    arrays = cache.read(POINTS)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(durable_store.os, "fsync", full)
        cache.write_group(GroupPath("toy-005", "points"), arrays, Provenance("new"))
    assert not list(sound_folder.rglob("*.partial"))
    shutil.rmtree(sound_folder)

"""With `stream.local_copy`, each array is copied once to the node; what is read is what the stream started with."""

import os
import resource
import shutil
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from cache_schemas.documents import Provenance
from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from trainer.data.stream import CacheStream, SampleArrays
from trainer.errors import TrainerError, UnfitCacheError

ARRAYS = ["images/rgb", "labels/image", "points/xyz", "pairs/point", "pairs/image", "pairs/row", "pairs/col"]
LABELS = GroupPath("scene-0-000", "labels")


@pytest.fixture
def url(make_cache) -> str:
    return make_cache(f"memory://{uuid.uuid4().hex}/c")


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The objects that were copied as a whole."""
    found: list[str] = []
    real = MemoryFileSystem.get_file

    def copying(fs: MemoryFileSystem, path: str, *rest: object, **options: object) -> object:
        found.append(path)
        return real(fs, path, *rest, **options)

    monkeypatch.setattr(MemoryFileSystem, "get_file", copying)
    return found


def read_all(stream: CacheStream) -> list[SampleArrays]:
    return [stream.read(ref) for ref in stream.samples]


def assert_same(found: list[SampleArrays], expected: list[SampleArrays]) -> None:
    for mine, other in zip(found, expected, strict=True):
        assert mine.keys() == other.keys()
        for name, values in other.items():
            np.testing.assert_array_equal(mine[name], values)


def make_again(url: str, fingerprint: str) -> None:
    cache = Cache(url, "a")
    arrays, seal = cache.read(LABELS), cache.seals([LABELS])[LABELS]
    changed = {name: values + 1 for name, values in arrays.items()}
    cache.write_group(LABELS, changed, Provenance(fingerprint, upstream=seal.upstream, samples=seal.samples))


def test_several_readers_copy_each_array_once_and_read_the_same(url: str, tmp_path: Path, copied: list[str]) -> None:
    expected = read_all(CacheStream(url, ARRAYS))
    streams = [CacheStream(url, ARRAYS, local_copy=tmp_path / "copy") for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(read_all, streams):
            assert_same(found, expected)
    assert len(copied) == len(set(copied)) > len(ARRAYS)
    copied.clear()
    assert_same(read_all(CacheStream(url, ARRAYS, local_copy=tmp_path / "copy")), expected)
    assert not copied
    assert not list((tmp_path / "copy").rglob("*.partial"))
    assert (tmp_path / "copy").stat().st_mode & 0o077 == 0


def test_a_group_that_is_made_again_is_never_mixed_with_what_is_copied(url: str, tmp_path: Path) -> None:
    early, late = (CacheStream(url, ARRAYS, local_copy=tmp_path / name) for name in ("early", "late"))
    expected = read_all(early)
    make_again(url, "new")
    assert_same(read_all(early), expected)
    with pytest.raises(UnfitCacheError, match=r"labels: made again or removed since the run started"):
        read_all(late)
    again = read_all(CacheStream(url, ARRAYS, local_copy=tmp_path / "early"))
    np.testing.assert_array_equal(again[0]["labels/image"], expected[0]["labels/image"] + 1)


def test_other_values_than_the_sealed_ones_are_not_taken(own: str, tmp_path: Path) -> None:
    stream = CacheStream(own, ARRAYS, local_copy=tmp_path / "copy")
    other = Path(own, "shards/scene-1-000/images/rgb/c/0/0/0/0")
    shutil.copyfile(other, Path(own, "shards/scene-0-000/images/rgb/c/0/0/0/0"))  # sound, of the same size
    with pytest.raises(Exception, match=r"scene-0-000/images/rgb: damaged .*not what was sealed"):
        read_all(stream)
    assert not [path for path in (tmp_path / "copy").rglob("rgb*") if path.is_file()]


def test_a_copy_that_is_cut_is_made_again_and_one_that_changed_stops_the_training(url: str, tmp_path: Path) -> None:
    expected = read_all(CacheStream(url, ARRAYS, local_copy=tmp_path / "copy"))
    file = next((tmp_path / "copy/scene-0-000").rglob("rgb"))
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    assert_same(read_all(CacheStream(url, ARRAYS, local_copy=tmp_path / "copy")), expected)
    file.write_bytes(content[:9] + bytes([content[9] ^ 1]) + content[10:])
    with pytest.raises(
        TrainerError, match=r"local_copy: .*/rgb: damaged .*remove .*/copy, then continue with --resume"
    ):
        read_all(CacheStream(url, ARRAYS, local_copy=tmp_path / "copy"))


def test_a_full_disk_is_one_error_and_leaves_nothing_half_copied(url: str, tmp_path: Path) -> None:
    stream = CacheStream(url, ARRAYS, local_copy=tmp_path / "copy")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(TrainerError, match=r"local_copy: .*/copy: its disk is full .*larger disk"):
            read_all(stream)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not [path for path in (tmp_path / "copy").rglob("*") if path.is_file() and path.name != ".lock"]
    assert len(read_all(stream)) == 6


@pytest.mark.parametrize("kind", ["open to others", "a link", "a file"])
def test_a_folder_that_others_may_change_is_refused(url: str, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "copy"
    if kind == "a file":
        folder.write_text("")
    elif kind == "a link":
        (tmp_path / "elsewhere").mkdir()
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.mkdir()
        folder.chmod(0o777)
    with pytest.raises(TrainerError, match=r"local_copy: .*/copy: .*; give a(nother)? folder"):
        CacheStream(url, ARRAYS, local_copy=folder)


def test_a_folder_in_the_cache_is_refused(own: str) -> None:
    for place in (Path(own), Path(own, "copy"), Path(own, "shards/scene-0-000")):
        with pytest.raises(TrainerError, match="lies in the cache itself"):
            CacheStream(own, ARRAYS, local_copy=place)
    assert not Path(own, "copy").exists()


def test_what_stands_in_the_way_or_cannot_be_named_is_one_error(url: str, tmp_path: Path) -> None:
    stream = CacheStream(url, ARRAYS, local_copy=tmp_path / "copy")
    (tmp_path / "copy/scene-0-000").write_text("a file")
    for cannot in (lambda: read_all(stream), lambda: CacheStream(url, ARRAYS, local_copy=tmp_path / ("x" * 300))):
        with pytest.raises(TrainerError, match=r"local_copy: .*nothing can be copied there .*another folder"):
            cannot()


def test_no_one_else_may_write_what_is_copied_whatever_the_umask(url: str, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir(mode=0o755)
    before = os.umask(0)
    try:
        read_all(CacheStream(url, ARRAYS, local_copy=tmp_path / "copy"))
    finally:
        os.umask(before)
    folders = [path for path in (tmp_path / "copy").rglob("*") if path.is_dir()]
    assert folders and not any(path.stat().st_mode & 0o077 for path in folders)

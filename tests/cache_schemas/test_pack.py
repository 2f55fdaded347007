"""Packed caches: one file with the same content, read in place; all else is refused with one sentence."""

import fcntl
import multiprocessing
import os
import pickle
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.storage import ZipStore

from cache_schemas.errors import CacheError, DamagedGroupError
from cache_schemas.group_path import GroupPath
from cache_schemas.lock import run_lock
from cache_schemas.merge import merge
from cache_schemas.pack import pack
from cache_schemas.packed_file import PackedFile
from cache_schemas.store import Cache
from tests.cache_schemas.editing import assert_same, chunk_of, edit_chunk, flip, problems_of

FORMAT_1 = Path(__file__).with_name("format1") / "cache.zarr"
CLIP = GroupPath("toy-000", "clip")


@pytest.fixture(scope="module")
def packed_once(tmp_path_factory: pytest.TempPathFactory, _template: Path) -> Path:
    file = tmp_path_factory.mktemp("packed") / "cache.zip"
    pack(str(_template), file)
    return file


@pytest.fixture
def packed(packed_once: Path, tmp_path: Path) -> Path:
    """A packed cache of this test's own, free to be damaged."""
    return Path(shutil.copy(packed_once, tmp_path / "cache.zip"))


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_file_holds_the_cache_and_is_read_in_place(sound_folder: Path, packed: Path, packed_once: Path) -> None:
    assert [file.name for file in packed_once.parent.iterdir()] == ["cache.zip"], "no .part is left"
    folder, file = Cache(str(sound_folder)), Cache(str(packed))
    assert file.manifest() == folder.manifest()
    assert file.shard_keys() == folder.shard_keys() == ["toy-000", "toy-001"]
    assert sorted(file.group_names("toy-000")) == sorted(folder.group_names("toy-000"))
    assert sorted(file.top_names()) == sorted(folder.top_names()) == ["shards", "text", "zarr.json"]
    assert file.file_sizes() == folder.file_sizes()
    seals = folder.shard_seals("toy-000")
    assert file.shard_seals("toy-000") == seals
    for name in seals:
        path = GroupPath("toy-000", name)
        assert_same(file.read(path), folder.read(path))
        assert file.stored_bytes(path) == folder.stored_bytes(path)
    xyz = file.rows(GroupPath("toy-000", "points"), "xyz")[2:5]
    np.testing.assert_array_equal(xyz, folder.read(GroupPath("toy-000", "points"))["xyz"][2:5])
    assert problems_of(packed) == []


def test_zarr_reads_the_file_without_our_package(sound_folder: Path, packed: Path) -> None:
    expected = Cache(str(sound_folder)).read(CLIP)["logits"]
    with ZipStore(packed, mode="r") as store:
        opened = zarr.open_group(store, mode="r")
        assert opened.attrs["schema_version"] == 2
        np.testing.assert_array_equal(opened["shards/toy-000/clip/logits"][...], expected)
    np.testing.assert_array_equal(Cache(str(packed)).arrays(CLIP)["logits"][...], expected)


def test_the_bytes_depend_on_the_cache_alone(sound_folder: Path, packed: Path, tmp_path: Path) -> None:
    (sound_folder / ".run.lock").write_text("run 1")
    (sound_folder / "summary.json").write_text('{"cache": "/home/me/cache"}')
    (sound_folder / "notes.txt").write_text("a user's own")
    for path in sound_folder.rglob("*"):
        os.utime(path, (2e9, 2e9))
    pack(str(sound_folder), tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == packed.read_bytes()
    members = zipfile.ZipFile(packed).infolist()
    assert [member.filename for member in members] == sorted(member.filename for member in members)
    for member in members:
        assert member.compress_type == zipfile.ZIP_STORED and member.compress_size == member.file_size
        assert packed.read_bytes()[member.header_offset :][:4] == b"PK\3\4"


def test_unzip_gives_a_sound_folder_back(packed: Path, sound_folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(tmp_path / "again")
    assert files_of(tmp_path / "again") == files_of(sound_folder)
    assert problems_of(tmp_path / "again") == []


def test_caches_elsewhere_and_of_format_1_are_packed(
    url: str, tmp_path: Path, write_sound_cache: Callable[[str], Cache]
) -> None:
    for number, place in enumerate((write_sound_cache(url).url, str(FORMAT_1))):
        pack(place, tmp_path / f"{number}.zip")
        assert Cache.open(str(tmp_path / f"{number}.zip"))[1] == Cache.open(place)[1]


def read_clip(cache: Cache) -> bytes:
    return cache.read(CLIP)["logits"].tobytes()


def test_threads_and_processes_read_at_the_same_time(packed: Path) -> None:
    cache = Cache(str(packed))
    expected = read_clip(cache)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(read_clip, [cache] * 50)) == {expected}
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as workers:
        assert set(workers.map(read_clip, [cache] * 10)) == {expected}
    assert read_clip(pickle.loads(pickle.dumps(cache))) == expected


def test_a_file_that_is_replaced_is_read_anew(packed: Path, sound_folder: Path, tmp_path: Path) -> None:
    before = Cache(str(packed)).rows(CLIP, "logits")
    cache, seal = Cache(str(sound_folder), "a"), Cache(str(packed)).shard_seals("toy-000")["clip"]
    cache.write_group(CLIP, {"logits": np.zeros_like(before[0:3])}, seal.provenance)
    pack(str(sound_folder), tmp_path / "new.zip")
    (tmp_path / "new.zip").replace(packed)
    assert before[0:3].any(), "what was opened stays as it was"
    assert not Cache(str(packed)).read(CLIP)["logits"].any()


def test_the_directory_is_that_of_the_file_that_was_opened(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("other", b"")
    real = os.fstat

    def replace_it_first(descriptor: int) -> os.stat_result:
        if (tmp_path / "other.zip").exists():
            (tmp_path / "other.zip").replace(packed)
        return real(descriptor)

    monkeypatch.setattr(os, "fstat", replace_it_first)
    assert "zarr.json" in PackedFile(str(packed)).names


def test_packed_caches_merge_into_a_folder(packed: Path, tmp_path: Path) -> None:
    assert merge([str(packed)], str(tmp_path / "merged")) == 2
    assert problems_of(tmp_path / "merged") == []


def without_seal(folder: Path) -> None:
    (folder / "shards/toy-000/sam/zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')


def cut_short(folder: Path) -> None:
    os.truncate(chunk_of(folder, "shards/toy-000/sam/mask_ids"), 10)


def with_a_flipped_bit(folder: Path) -> None:
    edit_chunk(folder, "shards/toy-000/images/rgb", flip(7))


def without_samples(folder: Path) -> None:
    shutil.rmtree(folder / "shards/toy-000")


@pytest.mark.parametrize(
    "spoil, reason",
    [
        (without_seal, "toy-000/sam: unsealed-group"),
        (cut_short, "mask_ids: unreadable-array: its chunk file c/0/0/0 has 10 bytes"),
        (with_a_flipped_bit, "images/rgb: unreadable-array"),
        (without_samples, "holds no sample"),
    ],
)
def test_an_incomplete_or_damaged_cache_is_refused(
    spoil: Callable[[Path], None], reason: str, sound_folder: Path, tmp_path: Path
) -> None:
    spoil(sound_folder)
    with pytest.raises(CacheError, match=reason):
        pack(str(sound_folder), tmp_path / "cache.zip")
    assert list(tmp_path.glob("*.zip*")) == []


def test_nothing_is_overwritten_and_no_file_is_packed_twice(packed: Path, sound_folder: Path) -> None:
    content = packed.read_bytes()
    for place in (packed, Path(), Path("/")):
        with pytest.raises(CacheError, match="exists"):
            pack(str(sound_folder), place)
    with pytest.raises(CacheError, match="packed already"):
        pack(str(packed), packed.with_name("twice.zip"))
    for place in (packed / "inside.zip", packed.with_name("x" * 300)):
        with pytest.raises(CacheError, match="cannot be written"):
            pack(str(sound_folder), place)
    assert packed.read_bytes() == content


def test_a_place_in_the_cache_is_refused(sound_folder: Path) -> None:
    for place in (sound_folder / "cache.zip", sound_folder / "shards/toy-000/images/../cache.zip"):
        with pytest.raises(CacheError, match="lies in the cache that is packed"):
            pack(str(sound_folder), place)
    assert problems_of(sound_folder) == []


def test_a_part_that_is_not_ours_is_neither_followed_nor_overwritten(sound_folder: Path, tmp_path: Path) -> None:
    precious, part = tmp_path / "precious", tmp_path / "cache.zip.part"
    precious.write_text("a text")
    part.symlink_to(precious)
    with pytest.raises(CacheError, match=r"cache\.zip\.part: a link; remove it"):
        pack(str(sound_folder), tmp_path / "cache.zip")
    part.unlink()
    part.hardlink_to(precious)
    with pytest.raises(CacheError, match=r"cache\.zip\.part: not a file that is yours alone"):
        pack(str(sound_folder), tmp_path / "cache.zip")
    assert precious.read_text() == "a text"
    part.unlink()
    with part.open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(CacheError, match="another `labelgen pack` writes it"):
            pack(str(sound_folder), tmp_path / "cache.zip")
    part.write_text("what a killed run left")
    pack(str(sound_folder), tmp_path / "cache.zip")
    assert problems_of(tmp_path / "cache.zip") == [] and not part.exists()


def test_a_file_that_vanishes_or_appears_meanwhile_is_told(sound_folder: Path, tmp_path: Path) -> None:
    copy, file = Path(shutil.copytree(sound_folder, tmp_path / "copy")), tmp_path / "cache.zip"
    with pytest.raises(CacheError, match=r"changed while it was packed.* text/.*: No such file.* wait for its"):
        pack(str(copy), file, lambda *_: shutil.rmtree(copy / "text", ignore_errors=True))
    assert not list(tmp_path.glob("*.zip*"))
    with pytest.raises(CacheError, match="exists"):
        pack(str(sound_folder), file, lambda *_: file.touch())
    assert file.read_bytes() == b""


def test_a_packed_cache_cannot_be_changed(packed: Path) -> None:
    content = packed.read_bytes()
    cache, manifest = Cache.open(str(packed), "a")
    seal = cache.shard_seals("toy-000")["clip"]
    for change in (
        lambda: run_lock(str(packed)).__enter__(),
        lambda: Cache.create(str(packed), manifest),
        lambda: cache.remove_group(CLIP),
        lambda: cache.write_group(CLIP, cache.read(CLIP), seal.provenance),
    ):
        with pytest.raises(CacheError, match=r"written; unpack a packed cache with `unzip -d FOLDER .*cache\.zip`"):
            change()
    assert packed.read_bytes() == content


def rewrite(packed: Path, name: str, *, compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(packed, "a", compression) as archive:
        archive.writestr(name, b"x" * 100)


def encrypted(packed: Path) -> None:
    rewrite(packed, "shards/last")
    content = bytearray(packed.read_bytes())
    content[content.rindex(b"PK\1\2") + 8] |= 1
    packed.write_bytes(content)


def twice(packed: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        rewrite(packed, "zarr.json")


def with_a_link(packed: Path) -> None:
    with zipfile.ZipFile(packed, "a") as archive:
        member = zipfile.ZipInfo("shards/x")
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(member, "/etc/passwd")


def with_bytes_outside(packed: Path) -> None:
    content = bytearray(packed.read_bytes())
    entry = content.rindex(b"PK\1\2")
    content[entry + 20 : entry + 28] = struct.pack("<II", 2**31, 2**31)
    packed.write_bytes(content)


def with_a_huge_directory(packed: Path) -> None:
    size = 2**28 + 1
    with packed.open("wb") as file:
        file.seek(size)
        file.write(struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, size, 0, 0))


@pytest.mark.parametrize(
    "spoil, reason",
    [
        (lambda file: rewrite(file, "../../etc/passwd"), "not the path of a file in a folder"),
        (lambda file: rewrite(file, "/etc/passwd"), "not the path of a file in a folder"),
        (lambda file: rewrite(file, "shards//x"), "not the path of a file in a folder"),
        (lambda file: rewrite(file, "shards\\x"), "not the path of a file in a folder"),
        (lambda file: rewrite(file, "shards/x", compression=zipfile.ZIP_DEFLATED), "it is compressed"),
        (encrypted, "it is encrypted"),
        (with_a_link, "'shards/x' does not fit, since it is a link"),
        (twice, "'zarr.json' does not fit, since it is there twice"),
        (with_bytes_outside, "outside the file"),
        (with_a_huge_directory, "its directory has 268,435,457 bytes"),
        (lambda file: os.truncate(file, file.stat().st_size // 2), "copy the file again"),
        (lambda file: file.write_bytes(b""), "copy the file again"),
        (lambda file: file.write_text("a text"), "neither the folder of a cache nor a whole packed cache"),
    ],
)
def test_a_file_that_is_no_packed_cache_is_one_error(spoil: Callable[[Path], None], reason: str, packed: Path) -> None:
    spoil(packed)
    with pytest.raises(CacheError, match=reason) as raised:
        Cache.open(str(packed))
    assert str(packed) in str(raised.value) and "\n" not in str(raised.value)


def test_bytes_that_were_lost_inside_the_file_are_damage(packed: Path) -> None:
    content = bytearray(packed.read_bytes())
    with zipfile.ZipFile(packed) as archive:
        starts = [archive.getinfo(f"shards/toy-000/{name}").header_offset for name in ("clip/logits/c/0/0/0/0",)]
    content[starts[0] : starts[0] + 200] = bytes(200)
    packed.write_bytes(content)
    with pytest.raises(DamagedGroupError, match=r"toy-000/clip/logits: damaged .*not where the directory"):
        Cache(str(packed)).read(CLIP)
    kinds = {problem.path: problem.kind for problem in problems_of(packed)}
    assert kinds == {"shards/toy-000/clip/logits": "unreadable-array"}

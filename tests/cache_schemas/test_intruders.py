"""What somebody may have put into a cache: links out of it, names that are patterns, files that grow when read."""

import os
import resource
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from numcodecs.zstd import compress

from cache_schemas.errors import CacheError, CacheLockedError, DamagedGroupError
from cache_schemas.group_path import GroupPath
from cache_schemas.location import file_system
from cache_schemas.lock import run_lock, writing
from cache_schemas.repair import repair
from cache_schemas.store import Cache
from labelgen.cli import main
from pipelines.leftovers import sweep_half_written
from tests.cache_schemas.editing import edit_chunk, problems_of, reseal, with_first_chunk
from trainer.data.stream import CacheStream

SHARD = "shards/toy-000"


def state_of(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Links


@pytest.fixture
def outside(sound_folder: Path) -> Path:
    """A folder beside the cache with things of value."""
    folder = sound_folder.parent / "outside"
    shutil.copytree(sound_folder / "shards", folder)
    (folder / "thesis.partial").write_text("mine")
    (folder / "toy-000" / "thesis.partial").write_text("mine")
    return folder


PLACES = ["shards", SHARD, f"{SHARD}/truth", f"{SHARD}/sam/features", f"{SHARD}/sam/features/c/0/0/0/0", "notes"]


@pytest.mark.parametrize("place", PLACES)
def test_a_link_inside_a_cache_is_refused_by_every_command(sound_folder: Path, outside: Path, place: str) -> None:
    link, target = sound_folder / place, outside / Path(place).relative_to("shards") if "/" in place else outside
    if place == "notes":
        target = outside / "thesis.partial"
    elif link.is_dir():
        shutil.rmtree(link)
    else:
        link.unlink()
    link.symlink_to(target)
    before = state_of(outside)
    url = str(sound_folder)
    for command in (["verify", url], ["verify", url, "--repair"], ["inspect", url]):
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 1, done.output
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"error: {link}: a link inside a cache") and "remove the link" in line
    for use in (lambda: sweep_half_written(url), lambda: CacheStream(url, ["sam/features"])):
        with pytest.raises(CacheError, match="a link inside a cache"):
            use()
    assert state_of(outside) == before


@pytest.mark.parametrize("place", ["shards", SHARD])
def test_nothing_is_written_or_removed_through_a_link_that_came_later(
    sound_folder: Path, outside: Path, place: str
) -> None:
    cache, _ = Cache.open(str(sound_folder), "a")
    record = cache.shard_records(["toy-000"])["toy-000"]
    (sound_folder / place).rename(sound_folder.parent / "away")
    (sound_folder / place).symlink_to(outside / "toy-000" if place == SHARD else outside)
    before = state_of(outside)
    for change in (
        lambda: cache.remove_group(GroupPath("toy-000", "sam")),
        lambda: cache.remove_file(f"{SHARD}/sam/zarr.json"),
        lambda: cache.write_shard_record("toy-000", record),
        lambda: cache.remove_folder(SHARD),
    ):
        with pytest.raises(CacheError, match="a link inside a cache"):
            change()
    assert state_of(outside) == before


def test_the_cache_itself_may_be_a_link(sound_folder: Path) -> None:
    link = sound_folder.parent / "link"
    link.symlink_to(sound_folder)
    assert problems_of(link) == []
    with run_lock(str(link)):
        sweep_half_written(str(link))


@pytest.mark.parametrize("name", [".run.lock", ".writers.lock"])
def test_a_lock_that_is_a_link_or_a_pipe_is_refused(sound_folder: Path, name: str) -> None:
    thesis = sound_folder.parent / "thesis.tex"
    thesis.write_text("mine")
    (sound_folder / name).symlink_to(thesis)
    for kind in (run_lock, writing):
        with pytest.raises(CacheError, match="a link or special file in place of a lock"), kind(str(sound_folder)):
            pass
    (sound_folder / name).unlink()
    os.mkfifo(sound_folder / name)
    with pytest.raises(CacheError, match="in place of a lock"), run_lock(str(sound_folder)):
        pass
    assert thesis.read_text() == "mine"


def test_a_lock_with_a_second_name_is_not_written_to(sound_folder: Path) -> None:
    """As in a copy of a cache made with hard links, or where somebody names a file of another user a lock."""
    thesis = sound_folder.parent / "thesis.tex"
    thesis.write_text("mine")
    (sound_folder / ".run.lock").hardlink_to(thesis)
    with run_lock(str(sound_folder)), pytest.raises(CacheLockedError), run_lock(str(sound_folder)):
        pass
    assert thesis.read_text() == "mine"


# Names


@pytest.mark.parametrize("name", ["shards/*", "shards/?????????", "text/[z]arr.json", f"{SHARD}/*", f"{SHARD}/sam/**"])
def test_a_name_is_never_a_pattern(write_sound_cache: Callable[[str], Cache], name: str) -> None:
    cache = write_sound_cache(f"memory://{uuid.uuid4().hex}/cache")
    fs, base = file_system(cache.url)
    sound = cache.file_sizes()
    fs.pipe_file(f"{base}/{name}", b"x")
    found = problems_of(cache.url)
    assert [problem.path for problem in found] == [name]
    assert repair(cache, found) == [name]
    assert cache.file_sizes() == sound


@pytest.mark.parametrize("name", ["*", "?????????", "[z]arr.json"])
def test_a_name_at_the_top_that_is_a_pattern_is_left_alone(
    write_sound_cache: Callable[[str], Cache], name: str
) -> None:
    cache = write_sound_cache(f"memory://{uuid.uuid4().hex}/cache")
    fs, base = file_system(cache.url)
    fs.pipe_file(f"{base}/{name}", b"x")
    before = cache.file_sizes()
    found = problems_of(cache.url)
    assert [(problem.kind.value, problem.path) for problem in found] == [("unrelated-file", name)]
    assert repair(cache, found) == []
    assert cache.file_sizes() == before


def test_a_shard_whose_key_is_a_pattern_is_read_and_removed_by_name(write_sound_cache: Callable[[str], Cache]) -> None:
    cache = write_sound_cache(f"memory://{uuid.uuid4().hex}/cache")
    fs, base = file_system(cache.url)
    sound = cache.file_sizes()
    for path in [path for path in sound if path.startswith(f"{SHARD}/")]:
        fs.pipe_file(f"{base}/{path.replace('toy-000', 'toy-*')}", fs.cat_file(f"{base}/{path}"))
    found = problems_of(cache.url)
    assert {(problem.kind.value, problem.path) for problem in found} == {("foreign-shard", "shards/toy-*")}
    repair(cache, found)
    assert cache.file_sizes() == sound


# Files that grow when they are read


LIMITED = """
import sys
from cache_schemas.store import Cache
from cache_schemas.validate import validate
from trainer.data.stream import CacheStream
import numcodecs.zstd
print(*(problem.path for problem in validate(*Cache.open(sys.argv[1]))))
try:
    stream = CacheStream(sys.argv[1], ["sam/mask_ids"])
    stream.read(stream.samples[0])
    print("none")
except Exception as error:
    print(type(error).__name__)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))  # ru_maxrss has the parent's peak
print(int(status["VmHWM"].split()[0]) // 1024)
"""


def read_limited(folder: Path) -> tuple[str, str, int]:
    """Verify and train in another process; returns the problems, the error of the trainer, and the peak MiB."""
    done = subprocess.run([sys.executable, "-c", LIMITED, str(folder)], text=True, capture_output=True, check=True)
    problems, error, peak = done.stdout.splitlines()
    return problems, error, int(peak)


@pytest.mark.slow
def test_a_chunk_that_decompresses_to_gigabytes_is_damage_and_takes_no_memory(sound_folder: Path) -> None:
    bomb = compress(bytes(2**30), 1)
    assert len(bomb) < 200_000
    edit_chunk(sound_folder, f"{SHARD}/sam/mask_ids", lambda old: with_first_chunk(0, len(bomb))(bomb + old[-20:]))
    problems, error, peak = read_limited(sound_folder)
    assert (problems, error) == (f"{SHARD}/sam/mask_ids", "DamagedGroupError")
    assert peak < 1300, "torch takes most of it; a bomb would add more than 1000"


@pytest.mark.slow
@pytest.mark.parametrize("path", [f"{SHARD}/sam", f"{SHARD}/sam/mask_ids", SHARD])
def test_a_document_of_gigabytes_is_damage_and_takes_no_memory(sound_folder: Path, path: str) -> None:
    os.truncate(sound_folder / path / "zarr.json", 3 * 2**30)
    problems, error, peak = read_limited(sound_folder)
    assert problems.split()[0] == path
    assert error == ("none" if path.endswith("mask_ids") else "UnfitCacheError"), "the trainer reads none of arrays"
    assert peak < 1300, "torch takes most of it; a bomb would add more than 1000"


def test_two_frames_in_a_chunk_or_one_that_hides_its_size_are_damage(sound_folder: Path) -> None:
    path = GroupPath("toy-000", "labels")
    cache = Cache(str(sound_folder))
    content = cache.read(path, "point")["point"].tobytes()
    frame = compress(content, 1)
    for bad in (compress(content[:3], 1) + compress(content[3:], 1), frame + frame, frame[:4] + b"\x00" + frame[5:]):
        edit_chunk(
            sound_folder, f"{SHARD}/labels/point", lambda old, bad=bad: with_first_chunk(0, len(bad))(bad + old[-20:])
        )
        with pytest.raises(DamagedGroupError):
            cache.read(path, "point")


@pytest.mark.parametrize(("offset", "size"), [(0, 2**40), (2**63, 8), (2**62, 2**62), (2**64 - 1, 2**64 - 1)])
def test_an_index_that_leads_anywhere_is_damage(sound_folder: Path, offset: int, size: int) -> None:
    edit_chunk(sound_folder, f"{SHARD}/points/xyz", with_first_chunk(offset, size))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DamagedGroupError, match="its chunk index leads outside the file"):
        Cache(str(sound_folder)).read(GroupPath("toy-000", "points"), "xyz")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_large_random_values_are_within_the_bounds(sound_folder: Path) -> None:
    """The largest frame that zstd makes of values that it cannot compress."""
    import numpy as np

    rng = np.random.default_rng(0)
    for pixels in (1, 5, 700, 1100):
        reseal(
            sound_folder,
            f"{SHARD}/sam",
            mask_ids=lambda _, pixels=pixels: rng.integers(0, 2**16, (3, pixels, 977)).astype(np.uint16),
        )
        assert Cache(str(sound_folder)).read(GroupPath("toy-000", "sam"), "mask_ids")["mask_ids"].shape[1] == pixels

"""Locks: one run at a time may write to a cache, and its lock is freed when its process ends."""

import errno
import fcntl
import os
import select
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cache_schemas import lock
from cache_schemas.errors import CacheError, CacheLockedError
from cache_schemas.lock import run_lock, writing
from cache_schemas.lock_files import open_lock

Holder = subprocess.Popen[str]
StartHolder = Callable[[str, str], Holder]

HOLD = """
import sys, time
from cache_schemas import lock
with getattr(lock, sys.argv[1])(sys.argv[2]):
    print("held", flush=True)
    sys.stdin.readline()
    time.sleep(0.3)
    print("done", flush=True)
"""
"""Hold a lock until a line arrives, and 0.3 s longer."""


@pytest.fixture
def start_holder() -> Iterator[StartHolder]:
    """Return a function that starts another process which holds `run_lock` or `writing` on a cache."""
    holders: list[Holder] = []

    def start(kind: str, cache: str) -> Holder:
        command = [sys.executable, "-c", HOLD, kind, cache]
        holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        holders.append(holder)
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        return holder

    yield start
    for holder in holders:
        holder.kill()
        holder.communicate()


@pytest.fixture
def cache(tmp_path: Path) -> str:
    return str(tmp_path / "runs" / "cache")


def test_a_second_process_is_refused_and_told_who_holds_the_lock(cache: str, start_holder: StartHolder) -> None:
    holder = start_holder("run_lock", cache)
    with pytest.raises(CacheLockedError, match=f"process {holder.pid} on .* is already writing"), run_lock(cache):
        pass


def test_a_refused_run_does_not_free_the_lock(cache: str) -> None:
    with run_lock(cache):
        for _ in range(2):
            with pytest.raises(CacheLockedError), run_lock(cache + "/"):
                pass


@pytest.mark.kill
def test_a_killed_holder_frees_the_lock(cache: str, start_holder: StartHolder) -> None:
    holder = start_holder("run_lock", cache)
    holder.kill()
    holder.wait()
    with run_lock(cache), pytest.raises(CacheLockedError), run_lock(cache):
        pass


@pytest.mark.parametrize("url", [False, True])
def test_the_lock_is_free_after_the_run_also_when_it_failed(cache: str, url: bool) -> None:
    place = f"memory://{uuid.uuid4().hex}/cache" if url else cache
    with pytest.raises(ZeroDivisionError), run_lock(place):
        raise ZeroDivisionError
    with run_lock(place):
        pass


def test_locks_lie_in_the_cache(cache: str) -> None:
    with run_lock(cache), writing(cache):
        assert {path.name for path in Path(cache).iterdir()} == {".run.lock", ".writers.lock"}
        assert [path.name for path in Path(cache).parent.iterdir()] == ["cache"]


def test_a_run_that_made_nothing_leaves_no_folder(cache: str) -> None:
    with run_lock(cache):
        pass
    assert not Path(cache).exists()


def test_the_lock_of_a_release_that_put_it_beside_the_cache_is_no_obstacle(cache: str) -> None:
    Path(cache).mkdir(parents=True)
    Path(f"{cache}.run.lock").write_text("run 0123abcd (process 1 on elsewhere)")
    with run_lock(cache), writing(cache):
        pass


def test_other_caches_are_free(cache: str) -> None:
    with run_lock(cache), run_lock(cache + "-2"):
        pass


def test_a_regular_file_in_the_way_is_a_cache_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = pytest.raises(CacheError, match=r"cannot write here .*; choose another cache folder")
    with refused, run_lock(str(tmp_path / "file" / "cache")):
        pass


@pytest.mark.kill
def test_a_new_run_waits_for_an_orphan_that_still_writes(cache: str, start_holder: StartHolder) -> None:
    orphan = start_holder("writing", cache)
    assert orphan.stdin is not None and orphan.stdout is not None
    orphan.stdin.write("finish\n")
    orphan.stdin.flush()
    with run_lock(cache):
        said_already, _, _ = select.select([orphan.stdout], [], [], 0)
        assert said_already and orphan.stdout.readline() == "done\n"


@pytest.mark.kill
def test_an_orphan_that_never_ends_is_an_error(
    cache: str, start_holder: StartHolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    orphan = start_holder("writing", cache)
    monkeypatch.setattr(lock, "ORPHAN_WAIT_SECONDS", 0.1)
    refused = pytest.raises(CacheLockedError, match="workers of an earlier run still write to it after 0 s")
    with refused, run_lock(cache):
        pass
    orphan.kill()
    orphan.wait()
    with run_lock(cache):
        pass


def test_workers_write_side_by_side_while_the_run_holds_the_lock(cache: str, start_holder: StartHolder) -> None:
    with run_lock(cache):
        start_holder("writing", cache)
        with writing(cache):
            pass


# Object stores


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4().hex}/cache"


def test_a_leased_url_is_refused_at_once(url: str) -> None:
    with run_lock(url):
        with pytest.raises(CacheLockedError, match=r"process .* is already writing"), run_lock(url):
            pass
        with run_lock(url + "-2"), writing(url):
            pass


def test_a_lease_is_renewed_while_it_is_held(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LEASE_SECONDS", 0.8)
    with run_lock(url):
        time.sleep(1)
        with pytest.raises(CacheLockedError), run_lock(url):
            pass


def test_a_lease_taken_over_ends_without_an_error(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with run_lock(url):
        monkeypatch.setattr(lock, "LEASE_SECONDS", 0.001)
        time.sleep(0.01)
        with run_lock(url):
            pass


# File systems that fail


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_one_error(cache: str, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    for kind in (run_lock, writing):
        with pytest.raises(CacheError, match="this file system has no file locks"), kind(cache):
            pass


def test_a_full_disk_is_one_error(cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    refused = pytest.raises(CacheError, match=r"\.run\.lock: cannot write here \(No space left.*free some space")
    with refused, run_lock(cache):
        pass


def test_a_lock_removed_while_another_run_waits_for_it_is_not_held_by_two(cache: str) -> None:
    """A run that made nothing removes its lock; a run that had opened the file before must not hold that one."""
    Path(cache).mkdir(parents=True)
    with open_lock(cache, ".run.lock") as old:
        Path(cache, ".run.lock").unlink()
        with run_lock(cache):
            assert old.exclusive() and not old.is_current()
            with pytest.raises(CacheLockedError), run_lock(cache):
                pass

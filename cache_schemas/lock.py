"""Locks for one run at a time on a cache: that of the driver, and that of the workers, who can outlive a killed driver.

A local cache has file locks, which the system frees when their process ends. A cache in an object store has a lease: an
object that the run renews.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from cache_schemas.errors import CacheError, CacheLockedError
from cache_schemas.location import StoreError, file_system, is_url

LEASE_SECONDS = 60.0
"""A lease that was not renewed for this long counts as abandoned."""

ORPHAN_WAIT_SECONDS = 60.0
"""How long a new run waits for the workers of a killed one to finish their last write."""


@contextmanager
def run_lock(cache: str) -> Iterator[str]:
    """Hold the lock of a run on `cache`; yields the name of the holder, for `writing`.

    Raises:
        CacheLockedError: if another run holds it, or workers of a killed run are still writing.
        CacheError: if the lock file cannot be written.
    """
    holder = f"run {uuid.uuid4().hex[:8]} (process {os.getpid()} on {socket.gethostname()})"
    with _lease(cache, holder) if is_url(cache) else _file_lock(cache, holder):
        yield holder


@contextmanager
def writing(cache: str, holder: str | None = None) -> Iterator[None]:
    """Mark this process as writing to `cache` for the run `holder`, so that a new run waits for it.

    For a URL, only the holder is compared with the lease: a new run does not wait.

    Raises:
        CacheLockedError: if another run holds the lock now.
    """
    if is_url(cache):
        lease = _read_lease(*file_system(_lock_path(cache, "run")))
        _refuse_if_followed(cache, holder, lease["holder"] if lease else "")
        yield
        return
    import fcntl

    with _open_lock(cache, "writers") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        with _open_lock(cache, "run") as run:
            run.seek(0)
            _refuse_if_followed(cache, holder, run.read())
        yield


def _refuse_if_followed(cache: str, holder: str | None, current: str) -> None:
    """Stop a worker of a killed run: the plan of the next run may rely on the group that it is about to replace.

    An empty name in the lock is not a new run: a new run writes its name before it waits for the workers.
    """
    if holder and current and current != holder:
        raise CacheLockedError(
            f"{cache}: {current} has taken over from {holder}, whose workers stop; wait for the new run, which keeps "
            "all sealed groups"
        )


def _lock_path(cache: str, kind: str) -> str:
    """Return the path of a lock; links are resolved, so that all paths to a local cache have the same lock."""
    location = cache.rstrip("/") if is_url(cache) else Path(cache).resolve()
    return f"{location}.{kind}.lock"


def _open_lock(cache: str, kind: str) -> IO[str]:
    path = Path(_lock_path(cache, kind))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a+")
    except OSError as error:
        raise CacheError(f"{path}: cannot write here ({error.strerror}); choose another cache folder") from error


@contextmanager
def _file_lock(cache: str, holder: str) -> Iterator[None]:
    import fcntl

    with _open_lock(cache, "run") as run, _open_lock(cache, "writers") as writers:
        try:
            fcntl.flock(run, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            run.seek(0)
            other = run.read().strip() or "another process"
            raise CacheLockedError(
                f"{cache}: {other} is already writing this cache; wait for it to end, or choose another cache"
            ) from None
        run.truncate(0)
        run.write(holder)
        run.flush()
        _wait_for_orphans(cache, writers)
        yield


def _wait_for_orphans(cache: str, writers: IO[str]) -> None:
    """Wait until no worker holds the writers' lock."""
    import fcntl

    deadline = time.monotonic() + ORPHAN_WAIT_SECONDS
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(writers, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(writers, fcntl.LOCK_UN)
            return
        if time.monotonic() > deadline:
            raise CacheLockedError(
                f"{cache}: workers of an earlier run still write to it after {ORPHAN_WAIT_SECONDS:.0f} s; "
                "stop them (`ray stop`), then rerun"
            )
        time.sleep(0.2)


@contextmanager
def _lease(cache: str, holder: str) -> Iterator[None]:
    """Hold a lease object beside the cache, and renew it until the run ends.

    Object stores have no lock that is freed when its holder ends. Of two runs that start at the same instant, both may
    hold the lease for a moment; the one whose name is not in the lease stops before it writes.
    """
    fs, path = file_system(_lock_path(cache, "run"))
    lease = _read_lease(fs, path)
    if lease is not None and _is_renewed(fs, path, lease):
        raise _lease_error(cache, lease)
    done = threading.Event()

    def renew() -> None:
        fs.pipe_file(path, json.dumps({"holder": holder, "renewed": time.time()}).encode())

    def keep_renewing() -> None:
        while not done.wait(LEASE_SECONDS / 4):
            with suppress(Exception):  # the store may be unreachable for a moment; three renewals may be missed
                lease = _read_lease(fs, path)
                if lease and lease["holder"] != holder:
                    return
                renew()

    renew()
    lease = _read_lease(fs, path)
    if lease and lease["holder"] != holder:
        raise _lease_error(cache, lease)
    keeper = threading.Thread(target=keep_renewing, daemon=True)
    keeper.start()
    try:
        yield
    finally:
        done.set()
        keeper.join()
        with suppress(StoreError):  # a finished run must not fail because of it; the lease expires by itself
            lease = _read_lease(fs, path)
            if lease and lease["holder"] == holder:
                fs.rm_file(path)


def _lease_error(cache: str, lease: dict[str, Any]) -> CacheLockedError:
    return CacheLockedError(
        f"{cache}: {lease.get('holder', 'another process')} is already writing this cache; wait for it to end, "
        f"choose another cache, or, if it was killed, try again in {LEASE_SECONDS:.0f} s"
    )


def _is_renewed(fs: Any, path: str, lease: dict[str, Any]) -> bool:
    """Return whether a run still renews this lease.

    The time in the lease is that of another machine's clock, which may be wrong or may have been changed. A recent
    lease is taken as renewed: at worst, a run is refused. An old one, or one from the future, is watched for two
    renewals.
    """
    if lease and abs(time.time() - lease["renewed"]) < LEASE_SECONDS:
        return True
    deadline = time.monotonic() + LEASE_SECONDS / 2
    while time.monotonic() < deadline:
        time.sleep(LEASE_SECONDS / 60)
        now = _read_lease(fs, path)
        if now != lease:
            return now is not None
    return False


def _read_lease(fs: Any, path: str) -> dict[str, Any] | None:
    """Return the lease, {} if it is only partly written, or None if there is none."""
    try:
        lease: dict[str, Any] = json.loads(fs.cat_file(path))
        return lease
    except FileNotFoundError:
        return None
    except ValueError:
        return {}

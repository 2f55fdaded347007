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
from typing import Any

from cache_schemas.errors import CacheLockedError
from cache_schemas.group_path import LOCKS
from cache_schemas.location import StoreError, canonical, file_system, is_url
from cache_schemas.lock_files import LockFile, hold_alone, open_lock, remove_unused_folder
from cache_schemas.packed_file import refuse_packed

LEASE_SECONDS = 60.0
"""A lease that was not renewed for this long counts as abandoned."""

RUN_LOCK, WRITERS_LOCK = LOCKS

LEASE_BYTES = 4096
"""No lease is longer."""

ORPHAN_WAIT_SECONDS = 60.0
"""How long a new run waits for the workers of a killed one to finish their last write."""


@contextmanager
def run_lock(cache: str) -> Iterator[str]:
    """Hold the lock of a run on `cache`; yields the name of the holder, for `writing`.

    Raises:
        CacheLockedError: if another run holds it, or workers of a killed run are still writing.
        CacheError: if the lock file cannot be written, or the cache is packed.
    """
    refuse_packed(cache)
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
        lease = _read_lease(*file_system(_lease_url(cache)))
        _refuse_if_followed(cache, holder, lease["holder"] if lease else "")
        yield
        return
    with open_lock(cache, WRITERS_LOCK) as writers:
        writers.shared()
        with open_lock(cache, RUN_LOCK) as run:
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


def _lease_url(cache: str) -> str:
    return f"{canonical(cache)}/{RUN_LOCK}"


@contextmanager
def _file_lock(cache: str, holder: str) -> Iterator[None]:
    existed = Path(canonical(cache)).exists()
    with hold_alone(cache, RUN_LOCK) as run, open_lock(cache, WRITERS_LOCK) as writers:
        if isinstance(run, str):
            raise CacheLockedError(
                f"{cache}: {run} is already writing this cache; wait for it to end, or choose another cache"
            )
        run.write(holder)
        _wait_for_orphans(cache, writers)
        try:
            yield
        finally:
            if not existed:
                remove_unused_folder(cache)


def _wait_for_orphans(cache: str, writers: LockFile) -> None:
    """Wait until no worker holds the writers' lock."""
    deadline = time.monotonic() + ORPHAN_WAIT_SECONDS
    while not writers.exclusive():
        if time.monotonic() > deadline:
            raise CacheLockedError(
                f"{cache}: workers of an earlier run still write to it after {ORPHAN_WAIT_SECONDS:.0f} s; "
                "stop them (`ray stop`), then rerun"
            )
        time.sleep(0.2)
    writers.free()


@contextmanager
def _lease(cache: str, holder: str) -> Iterator[None]:
    """Hold a lease object in the cache, and renew it until the run ends.

    Object stores have no lock that is freed when its holder ends. Of two runs that start at the same instant, both may
    hold the lease for a moment; the one whose name is not in the lease stops before it writes.
    """
    fs, path = file_system(_lease_url(cache))
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
        # A finished run must not fail because of its lease, which expires by itself.
        with suppress(StoreError, FileNotFoundError):
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
    """Return the lease, {} if the object is not a whole one, or None if there is none."""
    try:
        lease = json.loads(fs.cat_file(path, start=0, end=LEASE_BYTES))
    except FileNotFoundError:
        return None
    except (ValueError, OSError):  # an empty object has no range that could be read
        return {}
    whole = isinstance(lease, dict) and isinstance(lease.get("holder"), str)
    return lease if whole and isinstance(lease.get("renewed"), int | float) else {}

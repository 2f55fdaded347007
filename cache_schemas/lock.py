"""One run at a time on a cache: the driver's lock, and the writers' lock that outlives a killed driver."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from cache_schemas.errors import CacheError, CacheLockedError
from cache_schemas.place import file_system, is_url

LEASE_SECONDS = 60.0
"""On an object store, a lease not renewed for this long counts as abandoned."""

ORPHAN_WAIT_SECONDS = 60.0
"""How long a new run waits for the workers of a killed one to finish their last write."""


@contextmanager
def run_lock(cache: str) -> Iterator[None]:
    """Hold the right to write `cache`; local paths take a file lock, which dies with the process.

    Raises:
        CacheLockedError: if another run holds it, or workers of a killed run are still writing.
    """
    with _lease(cache) if is_url(cache) else _file_lock(cache):
        yield


@contextmanager
def writing(cache: str) -> Iterator[None]:
    """Mark this process as writing into `cache` (local paths only), so that a new run waits for it."""
    if is_url(cache):
        yield
        return
    import fcntl

    with _open_lock(cache, "writers") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def _open_lock(cache: str, kind: str) -> IO[str]:
    path = Path(f"{cache.rstrip('/')}.{kind}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a+")
    except OSError as error:
        raise CacheError(f"{path}: cannot write here ({error.strerror}); choose another cache folder") from error


@contextmanager
def _file_lock(cache: str) -> Iterator[None]:
    import fcntl

    with _open_lock(cache, "run") as run, _open_lock(cache, "writers") as writers:
        try:
            fcntl.flock(run, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            run.seek(0)
            holder = run.read().strip() or "another process"
            raise CacheLockedError(
                f"{cache}: {holder} is already writing this cache; wait for it to end, or choose another cache"
            ) from None
        run.truncate(0)
        run.write(f"process {os.getpid()} on {socket.gethostname()}")
        run.flush()
        _wait_for_orphans(cache, writers)
        yield


def _wait_for_orphans(cache: str, writers: IO[str]) -> None:
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
                "end them (ray stop), then run again"
            )
        time.sleep(0.2)


@contextmanager
def _lease(cache: str) -> Iterator[None]:
    """Hold a lease object beside the cache, renewed while the run lives.

    Object stores have no lock that dies with its holder: two runs that start within the same instant could both
    take the lease, a later one is refused.
    """
    fs, path = file_system(f"{cache.rstrip('/')}.run.lock")
    holder = f"process {os.getpid()} on {socket.gethostname()}"
    lease = _read_lease(fs, path)
    if lease and time.time() - lease["renewed"] < LEASE_SECONDS:
        raise CacheLockedError(
            f"{cache}: {lease['holder']} is already writing this cache; wait for it to end, choose another cache, "
            f"or, if it was killed, try again in {LEASE_SECONDS:.0f} s"
        )
    done = threading.Event()

    def renew() -> None:
        fs.pipe_file(path, json.dumps({"holder": holder, "renewed": time.time()}).encode())

    def keep() -> None:
        while not done.wait(LEASE_SECONDS / 4):
            with suppress(Exception):  # a store that is away for a moment; the lease outlasts three missed renewals
                renew()

    renew()
    keeper = threading.Thread(target=keep, daemon=True)
    keeper.start()
    try:
        yield
    finally:
        done.set()
        keeper.join()
        lease = _read_lease(fs, path)
        if lease and lease["holder"] == holder:
            fs.rm_file(path)


def _read_lease(fs: Any, path: str) -> dict[str, Any] | None:
    """Return the lease, or None where there is none that can be read."""
    try:
        lease: dict[str, Any] = json.loads(fs.cat_file(path))
        return lease
    except (FileNotFoundError, ValueError):
        return None

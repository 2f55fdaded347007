"""One run at a time on a cache: the driver's lock, and the writers' lock that outlives a killed driver."""

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
from cache_schemas.place import StoreError, file_system, is_url

LEASE_SECONDS = 60.0
"""On an object store, a lease not renewed for this long counts as abandoned."""

ORPHAN_WAIT_SECONDS = 60.0
"""How long a new run waits for the workers of a killed one to finish their last write."""


@contextmanager
def run_lock(cache: str) -> Iterator[str]:
    """Hold the right to write `cache`; yields the holder's name, for `writing`.

    Local paths take a file lock, which dies with the process.

    Raises:
        CacheLockedError: if another run holds it, or workers of a killed run are still writing.
    """
    holder = f"run {uuid.uuid4().hex[:8]} (process {os.getpid()} on {socket.gethostname()})"
    with _lease(cache, holder) if is_url(cache) else _file_lock(cache, holder):
        yield holder


@contextmanager
def writing(cache: str, holder: str | None = None) -> Iterator[None]:
    """Mark this process as writing into `cache` (local paths only), so that a new run waits for it.

    Raises:
        CacheLockedError: if `holder`, the run that this process writes for, has been followed by another.
    """
    if is_url(cache):
        lease = _read_lease(*file_system(_lock_path(cache, "run")))
        _refuse_successor(cache, holder, lease["holder"] if lease else "")
        yield
        return
    import fcntl

    with _open_lock(cache, "writers") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        with _open_lock(cache, "run") as run:
            run.seek(0)
            _refuse_successor(cache, holder, run.read())
        yield


def _refuse_successor(cache: str, holder: str | None, current: str) -> None:
    """Stop a worker that outlived its run: the next run may have planned on what it is about to replace.

    An empty name is no successor yet: one that takes a local cache writes its name before it waits for the writers.
    """
    if holder and current and current != holder:
        raise CacheLockedError(
            f"{cache}: {current} has taken over from {holder}, which stops here; nothing sealed is lost, let it finish"
        )


def _lock_path(cache: str, kind: str) -> str:
    """Return where a lock of `cache` is; a local cache has one such place, by whatever links it is reached."""
    place = cache.rstrip("/") if is_url(cache) else Path(cache).resolve()
    return f"{place}.{kind}.lock"


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
def _lease(cache: str, holder: str) -> Iterator[None]:
    """Hold a lease object beside the cache, renewed while the run lives.

    Object stores have no lock that dies with its holder. Of two runs that start within the same instant both may
    think for a moment that they hold it; the one whose name is not in the lease stops before it writes.
    """
    fs, path = file_system(_lock_path(cache, "run"))
    lease = _read_lease(fs, path)
    if lease is not None and _is_renewed(fs, path, lease):
        raise _leased(cache, lease)
    done = threading.Event()

    def renew() -> None:
        fs.pipe_file(path, json.dumps({"holder": holder, "renewed": time.time()}).encode())

    def keep() -> None:
        while not done.wait(LEASE_SECONDS / 4):
            with suppress(Exception):  # a store that is away for a moment; the lease outlasts three missed renewals
                lease = _read_lease(fs, path)
                if lease and lease["holder"] != holder:
                    return
                renew()

    renew()
    lease = _read_lease(fs, path)
    if lease and lease["holder"] != holder:
        raise _leased(cache, lease)
    keeper = threading.Thread(target=keep, daemon=True)
    keeper.start()
    try:
        yield
    finally:
        done.set()
        keeper.join()
        with suppress(StoreError):  # the lease lapses by itself, and a finished run must not fail for it
            lease = _read_lease(fs, path)
            if lease and lease["holder"] == holder:
                fs.rm_file(path)


def _leased(cache: str, lease: dict[str, Any]) -> CacheLockedError:
    return CacheLockedError(
        f"{cache}: {lease.get('holder', 'another process')} is already writing this cache; wait for it to end, "
        f"choose another cache, or, if it was killed, try again in {LEASE_SECONDS:.0f} s"
    )


def _is_renewed(fs: Any, path: str, lease: dict[str, Any]) -> bool:
    """Tell whether somebody keeps renewing a lease.

    The time in it comes from a clock that may differ from ours, or that has jumped since. A lease that looks young is
    believed: no harm comes of that. One that looks old, or made in the future, is watched for two renewals.
    """
    if lease and abs(time.time() - lease["renewed"]) < LEASE_SECONDS:
        return True
    watched = time.monotonic() + LEASE_SECONDS / 2
    while time.monotonic() < watched:
        time.sleep(LEASE_SECONDS / 60)
        now = _read_lease(fs, path)
        if now != lease:
            return now is not None
    return False


def _read_lease(fs: Any, path: str) -> dict[str, Any] | None:
    """Return the lease, empty while it is being written; None where there is none."""
    try:
        lease: dict[str, Any] = json.loads(fs.cat_file(path))
        return lease
    except FileNotFoundError:
        return None
    except ValueError:
        return {}

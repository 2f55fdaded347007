"""The Ray cluster of a run: a running one by address, or a local one that leaves nothing behind."""

import logging
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path

from pipelines.errors import PipelineError
from pipelines.stop import take_sigterm_for_ctrl_c

KNOCK_SECONDS = 10
FOLDER_PREFIX = "labels-ray-"
LONGEST_TEMP_FOLDER = 22
"""Ray puts sockets up to 64 characters below the folder that we make, whose name has 19, and a socket's path may have
107; in a longer temporary folder no cluster would start."""

LAST_WORDS_SECONDS = 5.0
"""How long Ray's processes may still write to their logs after its shutdown."""

_KEEP_MEMORY = "glibc.malloc.mmap_threshold=2147483648:glibc.malloc.trim_threshold=4294967296:glibc.malloc.arena_max=1"


@contextmanager
def cluster(address: str | None) -> Iterator[dict[str, float]]:
    """Connect to the cluster at `address` (or RAY_ADDRESS), else start a local one; yields its resources.

    Raises:
        PipelineError: if no cluster answers there.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    # A call has two references, and the one that nobody awaits after a failure would be reported a second time.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    # Ray prints news of dead workers to standard output, which belongs to the run's own summary.
    with redirect_stdout(sys.stderr), _remote(address) if address else _local():
        import ray

        take_sigterm_for_ctrl_c()  # once more: starting Ray has put a handler of its own in place
        yield ray.cluster_resources()


@contextmanager
def _remote(address: str) -> Iterator[None]:
    _refuse_silent_host(address)
    import ray

    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _no_cluster(address, str(error).splitlines()[0]) from None
    try:
        yield
    finally:
        ray.shutdown()


def _refuse_silent_host(address: str) -> None:
    """Knock at a host:port address first: Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or "://" in address or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=KNOCK_SECONDS).close()
    except OSError as error:
        raise _no_cluster(address, error.strerror or str(error)) from None


def _no_cluster(address: str, reason: str) -> PipelineError:
    return PipelineError(
        f"no Ray cluster answers at {address!r} ({reason}); start one with `ray start --head`, "
        "or leave out --ray-address and RAY_ADDRESS for a local one"
    )


@contextmanager
def _local() -> Iterator[None]:
    # A local cluster is this process's own: without these, Ray writes a token into HOME, phones home, and listens on
    # every network interface (the third is its switch for "this machine only", named after where it is the default).
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    # Workers keep what they free, in large pages: else SAM spends a twentieth of its time on getting memory anew.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    os.environ.setdefault("GLIBC_TUNABLES", _KEEP_MEMORY)
    import ray

    folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=_temp_folder()))
    with _holding(folder):
        try:
            ray.init(
                address="local",
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=str(folder),
            )
            yield
        except SystemExit:  # how Ray answers a SIGTERM that comes while it starts
            raise KeyboardInterrupt from None
        finally:
            ray.shutdown()
            _remove(folder)


def sweep_dead_clusters() -> None:
    """Remove what the local clusters of killed runs left behind: folders that no run holds."""
    for folder in _temp_folder().glob(f"{FOLDER_PREFIX}*"):
        with suppress(OSError), _holding(folder):  # held by a run, another user's, or just removed by another sweep
            _remove(folder)


@contextmanager
def _holding(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder, which dies with this process, whatever becomes of its number.

    Raises:
        BlockingIOError: if another process holds it.
    """
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _remove(folder: Path) -> None:
    deadline = time.monotonic() + LAST_WORDS_SECONDS
    while folder.exists() and time.monotonic() < deadline:
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.02)


def _temp_folder() -> Path:
    folder = tempfile.gettempdir()
    return Path(folder if len(folder) <= LONGEST_TEMP_FOLDER else "/tmp")

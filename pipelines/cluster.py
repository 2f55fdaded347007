"""The Ray cluster of a run: a running one by address, or a local one that leaves no files or processes behind."""

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

CONNECT_SECONDS = 10
FOLDER_PREFIX = "labels-ray-"
LONGEST_TEMP_FOLDER = 22
"""The longest path, in characters, of a temporary folder in which Ray can start. The path of a socket has at most 107
characters: up to 64 are below the folder that we make, and the name of that folder takes 19 with its slash."""

LOG_FLUSH_SECONDS = 5.0
"""How long processes of Ray may still write log files after the shutdown."""

_KEEP_MEMORY = "glibc.malloc.mmap_threshold=2147483648:glibc.malloc.trim_threshold=4294967296:glibc.malloc.arena_max=1"


@contextmanager
def cluster(address: str | None) -> Iterator[dict[str, float]]:
    """Connect to the cluster at `address` (or RAY_ADDRESS), else start a local one; yields its resources.

    Raises:
        PipelineError: if no cluster answers there.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    # A call has two references. After a failure only one is awaited, and Ray would report the other as unhandled.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    # Ray prints messages about dead workers to standard output, where only the summary of the run belongs.
    with redirect_stdout(sys.stderr), _remote(address) if address else _local():
        import ray

        take_sigterm_for_ctrl_c()  # again, since Ray has installed its own handler
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]  # so in Ray
        yield resources


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
    """Try to connect to a host:port address first, since Ray itself would retry for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or "://" in address or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise _no_cluster(address, error.strerror or str(error)) from None


def _no_cluster(address: str, reason: str) -> PipelineError:
    return PipelineError(
        f"no Ray cluster answers at {address!r} ({reason}); start one with `ray start --head`, "
        "or leave out --ray-address and RAY_ADDRESS for a local one"
    )


@contextmanager
def _local() -> Iterator[None]:
    # A local cluster is for this process alone. Without these variables Ray writes a token into HOME, sends usage
    # statistics, and listens on every network interface. The third one restricts it to this machine; its name says
    # where that is the default.
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    # Workers keep freed memory, in large pages. Otherwise SAM spends 5 % of its time on allocating memory again.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    os.environ.setdefault("GLIBC_TUNABLES", _KEEP_MEMORY)
    import ray

    folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=_temp_folder()))
    with _locked(folder):
        try:
            ray.init(
                address="local",
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=str(folder),
            )
            yield
        except SystemExit:  # Ray raises this for a SIGTERM that arrives while it starts
            raise KeyboardInterrupt from None
        finally:
            ray.shutdown()
            _remove(folder)


def sweep_dead_clusters() -> None:
    """Remove the folders that local clusters of killed runs left behind: those that no run has locked."""
    for folder in _temp_folder().glob(f"{FOLDER_PREFIX}*"):
        with suppress(OSError), _locked(folder):  # locked by a run, of another user, or removed by another sweep
            _remove(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a folder. The lock ends with this process, so a reused process number does not matter.

    Raises:
        BlockingIOError: if another process has locked it.
    """
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _remove(folder: Path) -> None:
    deadline = time.monotonic() + LOG_FLUSH_SECONDS
    while folder.exists() and time.monotonic() < deadline:
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.02)


def _temp_folder() -> Path:
    folder = tempfile.gettempdir()
    return Path(folder if len(folder) <= LONGEST_TEMP_FOLDER else "/tmp")

"""The local Ray cluster of a run: closed to other users, and without traces after its end."""

import importlib
import logging
import os
import re
import secrets
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipelines.errors import PipelineError
from pipelines.stop import children_ignore_sigterm, stops_although_blocked

FOLDER_PREFIX = "labels-ray-"
FOLDER_NAME = re.compile(re.escape(FOLDER_PREFIX) + "[a-z0-9_]{8}")
MARKER = "made-by-labelgen-run"
"""A file that is in every folder that we made. The sweep removes no folder without it."""

LONGEST_TEMP_FOLDER = 20
"""The longest path, in characters, of a temporary folder in which Ray can start. The path of a socket has at most 107
characters: up to 64 are below Ray's folder, and the names of our folder and of Ray's in it take 21 with their slashes.
"""

END_SECONDS = 5.0
"""How long it may take, after the shutdown, until all processes have ended and their files are removed."""

_KEEP_MEMORY = "glibc.malloc.mmap_threshold=2147483648:glibc.malloc.trim_threshold=4294967296:glibc.malloc.arena_max=1"


@contextmanager
def local_cluster(num_cpus: int | None = None, log_to_driver: bool = False) -> Iterator[None]:
    """Start a cluster for this process alone, and connect to it; `num_cpus` None means all cores of the machine.

    On a shared machine, other users reach the loopback interface and all that is readable under /tmp. So each request
    needs a token, and token and sockets are in a folder that only this user may enter. The token is in no command line
    and in no environment.

    Raises:
        PipelineError: if the installed Ray cannot require a token.
    """
    # Without these variables Ray sends usage statistics, and listens on every network interface. The second one
    # restricts it to this machine; its name says where that is the default.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    # Workers keep freed memory, in large pages. Otherwise SAM spends 5 % of its time on allocating memory again.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    os.environ.setdefault("GLIBC_TUNABLES", _KEEP_MEMORY)
    with _private_folder() as folder, _token_required(folder):
        import ray

        try:
            with stops_although_blocked(clean_up=lambda: _end(folder)), children_ignore_sigterm():
                ray.init(
                    address="local",
                    num_cpus=num_cpus,
                    include_dashboard=False,
                    log_to_driver=log_to_driver,
                    logging_level=logging.ERROR,
                    _temp_dir=str(folder / "r"),  # Ray gives all users all rights on this folder, so it is not ours
                )
            yield
        except SystemExit:  # Ray raises this for a SIGTERM that arrives while it starts
            raise KeyboardInterrupt from None
        finally:
            _kill_without_grace()
            ray.shutdown()


def _kill_without_grace() -> None:
    """Have Ray kill its processes at once: it would give each one a second to end on SIGTERM, which they never get."""
    node: Any = importlib.import_module("ray._private.worker")._global_node
    if node:
        kill = node.kill_all_processes
        node.kill_all_processes = lambda **_: kill(check_alive=False)


def sweep_dead_clusters() -> None:
    """Remove the folders that local clusters of killed runs left: those with our marker that no run has locked."""
    for folder in _temp_folder().glob(f"{FOLDER_PREFIX}*"):
        # An OSError: the folder is locked by a run, of another user, a link, or removed by another sweep.
        with suppress(OSError):
            if FOLDER_NAME.fullmatch(folder.name) and stat.S_ISREG((folder / MARKER).lstat().st_mode):
                with _locked(folder):
                    _end(folder)


@contextmanager
def _private_folder() -> Iterator[Path]:
    """Make a folder that only this user may enter; in the end, remove it and end the processes that still use it."""
    folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=_temp_folder()))  # mode 0700
    with _locked(folder):
        (folder / MARKER).touch()
        try:
            yield folder
        finally:
            _end(folder)


@contextmanager
def _token_required(folder: Path) -> Iterator[None]:
    """Have Ray require a new token, in a file that only this user may read; other tokens in the environment are hidden.

    Raises:
        PipelineError: if the installed Ray cannot require a token.
    """
    token = _token_file(folder)
    with os.fdopen(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
    changes = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_AUTH_TOKEN": None}
    with _environment(changes):
        raylet: Any = importlib.import_module("ray._raylet")
        try:
            raylet.Config.initialize("")  # an earlier cluster of this process may have left other values
            raylet.AuthenticationTokenLoader.instance().reset_cache()
            required = raylet.get_authentication_mode() == raylet.AuthenticationMode.TOKEN
        except AttributeError:  # an old Ray
            required = False
        if not required:
            raise PipelineError(
                "the installed Ray cannot keep other users of this machine out of the cluster of this run; "
                "install ray 2.60 or newer"
            )
        yield


@contextmanager
def _environment(changes: Mapping[str, str | None]) -> Iterator[None]:
    """Set environment variables, or remove those that are None; the old values return in the end."""
    before = {name: os.environ.get(name) for name in changes}
    _set_environment(changes)
    try:
        yield
    finally:
        _set_environment(before)


def _set_environment(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a folder. The lock ends with this process, so a reused process number does not matter.

    Raises:
        OSError: if another process has locked it, or it is a link.
    """
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _end(folder: Path) -> None:
    """Kill what still runs of the cluster in a folder, and remove the folder.

    Ray can miss workers that were being started when it was told to stop.
    """
    deadline = time.monotonic() + END_SECONDS
    while (left := _processes_of(folder)) or folder.exists():
        for process in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
        if time.monotonic() > deadline:
            return
        time.sleep(0.02)


def _processes_of(folder: Path) -> list[int]:
    """Return the processes of the cluster in a folder: those started with its token, and Ray's with files open there.

    Some of Ray's processes overwrite their environment with their title.
    """
    mark = f"RAY_AUTH_TOKEN_PATH={_token_file(folder)}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            titled_by_ray = (process / "cmdline").read_bytes().startswith(b"ray::")
            ours = mark in (process / "environ").read_bytes() or (titled_by_ray and _has_open(process, folder))
        except OSError:  # it has ended, or is another user's
            continue
        if ours and int(process.name) != os.getpid():
            found.append(int(process.name))
    return found


def _has_open(process: Path, folder: Path) -> bool:
    return any(str(link.readlink()).startswith(f"{folder}/") for link in (process / "fd").iterdir())


def _token_file(folder: Path) -> Path:
    return folder / "token"


def _temp_folder() -> Path:
    folder = tempfile.gettempdir()
    return Path(folder if len(folder) <= LONGEST_TEMP_FOLDER else "/tmp")

"""What a run leaves in the process table and in its cache: for tests that disturb it and look again."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""Processes of Ray itself that bear titles like its workers."""

Seals = dict[str, dict[str, tuple[int, int, int]]]
"""Inode, modification time and size of each file of a group, by path; by the group's path and fingerprint."""


def title(process: int) -> str:
    """Return a process's command line, which Ray sets to what a worker is doing; nothing if it is gone."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""


def users_of(folder: Path) -> dict[int, str]:
    """Return the titles of all processes that have a file below `folder` open, or have it in their command line."""
    found = {}
    for process in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
        named = title(process)
        if process != os.getpid() and named and (str(folder) in named or _opens(process, folder)):
            found[process] = named
    return found


def left_in(temp: Path) -> list[str]:
    """Return what runs left in their temporary folder; an empty one is torch's own, made in any process."""
    return [entry.name for entry in temp.iterdir() if not entry.name.startswith("torchinductor_")]


def _opens(process: int, folder: Path) -> bool:
    try:
        return any(link.startswith(f"{folder}/") for link in _links(process))
    except OSError:
        return False


def _links(process: int) -> Iterator[str]:
    for descriptor in Path(f"/proc/{process}/fd").iterdir():
        yield str(descriptor.readlink())


def sockets_of(process: int) -> set[str]:
    """Return the inodes of a process's sockets."""
    try:
        return {link[8:-1] for link in _links(process) if link.startswith("socket:[")}
    except OSError:
        return set()


def workers(folder: Path, actors: bool) -> list[int]:
    """Return the Ray workers below `folder` that hold a teacher, or those that do not."""
    return [
        process
        for process, named in users_of(folder).items()
        if named.startswith("ray::") and not named.startswith(AGENTS) and ("Actor" in named) == actors
    ]


def wait_for(what: Callable[[], bool], seconds: float = 120.0, run: "subprocess.Popen[str] | None" = None) -> None:
    """Wait until something holds; fails if it does not in time, and shows what `run` said so far."""
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            raise AssertionError(f"not so after {seconds:.0f} s" + (f"; the run said:\n{_kill(run)}" if run else ""))
        time.sleep(0.05)


def said_by(run: "subprocess.Popen[str]", seconds: float = 240.0) -> str:
    """Wait until a run ends, and return its standard error; a run that does not end in time is killed and shown."""
    try:
        return run.communicate(timeout=seconds)[1]
    except subprocess.TimeoutExpired:
        raise AssertionError(f"not finished after {seconds:.0f} s; it said:\n{_kill(run)}") from None


def _kill(run: "subprocess.Popen[str]") -> str:
    """Kill the processes of a run, and return its standard error."""
    os.killpg(run.pid, signal.SIGKILL)
    return run.communicate()[1]


def seals(cache: Path, shards: str = "*") -> Seals:
    """Return every sealed group of a cache's shards, and `text`, as it lies on the disk; one that is redone differs."""
    found: Seals = {}
    for document in (cache / "text/zarr.json", *cache.glob(f"shards/{shards}/*/zarr.json")):
        try:
            attributes = json.loads(document.read_text()).get("attributes", {})
        except FileNotFoundError:
            continue
        if attributes.get("state") == "sealed":
            group = document.parent
            files = {path: path.stat() for path in group.rglob("*") if path.is_file()}
            found[f"{group.relative_to(cache)} {attributes['fingerprint']}"] = {
                str(path): (stat.st_ino, stat.st_mtime_ns, stat.st_size) for path, stat in files.items()
            }
    return found

"""Lock files of a local cache: opened without following links, locked with `flock`, removed if they are all there is.

They lie inside the cache, so that everyone who reaches the cache finds the same ones, also where only the cache itself
is mounted or may be written.
"""

import errno
import fcntl
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cache_schemas.errors import CacheError
from cache_schemas.group_path import LOCKS
from cache_schemas.location import canonical

NAME_BYTES = 4096
"""No name of a run is longer."""


class LockFile:
    """An open lock file; `exclusive` and `shared` lock it, and closing it frees it."""

    def __init__(self, path: Path) -> None:
        """Open or create the file.

        Raises:
            CacheError: if it is a link or a special file, or cannot be written.
        """
        self.path = path
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            self._descriptor = os.open(path, flags, 0o666)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):
                raise self._not_a_lock() from None
            raise _cannot_write(path, error) from error
        if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            os.close(self._descriptor)
            raise self._not_a_lock()

    def close(self) -> None:
        """Free the lock."""
        os.close(self._descriptor)

    def exclusive(self) -> bool:
        """Take the lock alone; returns False if another process has it."""
        return self._flock(fcntl.LOCK_EX | fcntl.LOCK_NB)

    def shared(self) -> bool:
        """Share the lock; waits for a process that has it alone."""
        return self._flock(fcntl.LOCK_SH)

    def free(self) -> None:
        """Give the lock back."""
        self._flock(fcntl.LOCK_UN)

    def read(self) -> str:
        """Return the text of the file."""
        return os.pread(self._descriptor, NAME_BYTES, 0).decode(errors="replace").strip()

    def write(self, text: str) -> None:
        """Replace the text of the file.

        Raises:
            CacheError: if that fails, for example because the disk is full.
        """
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, text.encode(), 0)
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def is_current(self) -> bool:
        """Return whether this is still the file of that path, and has no other name."""
        with suppress(FileNotFoundError):
            here, there = os.fstat(self._descriptor), os.lstat(self.path)
            return (here.st_dev, here.st_ino, here.st_nlink) == (there.st_dev, there.st_ino, 1)
        return False

    def _flock(self, operation: int) -> bool:
        try:
            fcntl.flock(self._descriptor, operation)
        except BlockingIOError:
            return False
        except OSError as error:
            raise CacheError(
                f"{self.path}: this file system has no file locks ({error.strerror}), without which two runs could "
                "write one cache; mount it with locks, or choose a cache folder on another disk"
            ) from error
        return True

    def _not_a_lock(self) -> CacheError:
        return CacheError(f"{self.path}: a link or special file in place of a lock; remove it, then run again")


@contextmanager
def open_lock(cache: str, name: str) -> Iterator[LockFile]:
    """Open a lock file of a cache, whose folder is made if it does not exist.

    Raises:
        CacheError: if the file is a link or a special file, or the folder cannot be written.
    """
    folder = Path(canonical(cache))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(folder, error) from error
    lock = LockFile(folder / name)
    try:
        yield lock
    finally:
        lock.close()


@contextmanager
def hold_alone(cache: str, name: str) -> Iterator[LockFile | str]:
    """Hold a lock alone; yields it, or the name of its holder if another process has it.

    A file that was replaced in the meantime is opened again. One with a second name, as in a hard-linked copy of a
    cache, is replaced by a file of the cache's own, so that nothing is written into the other.
    """
    while True:
        with open_lock(cache, name) as lock:
            if not lock.exclusive():
                yield lock.read() or "another process"
                return
            if lock.is_current():
                yield lock
                return
            _replace_second_name(lock.path)


def remove_unused_folder(cache: str) -> None:
    """Remove a cache folder that holds nothing but lock files, as after a run that was refused.

    The caller holds the lock of the run.
    """
    folder = Path(canonical(cache))
    with suppress(OSError):
        if {entry.name for entry in folder.iterdir()} <= set(LOCKS):
            for name in LOCKS:
                (folder / name).unlink(missing_ok=True)
            folder.rmdir()


def _replace_second_name(path: Path) -> None:
    """Replace a lock file that has a second name, if the path still leads to one."""
    with suppress(FileNotFoundError):
        if os.lstat(path).st_nlink > 1:
            fresh = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
            try:
                fresh.touch(exist_ok=False)
                fresh.replace(path)
            except OSError as error:
                raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> CacheError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        fix = "free some space, then run the same command again"
    else:
        fix = "choose another cache folder"
    return CacheError(f"{path}: cannot write here ({error.strerror}); {fix}")

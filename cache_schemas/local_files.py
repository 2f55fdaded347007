"""The files of a local cache: read them without following links, list them with their sizes, and remove them."""

import errno
import os
import shutil
import stat
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cache_schemas.durable_store import sync_folder, write_durably
from cache_schemas.errors import CacheError
from cache_schemas.group_path import SHARDS
from cache_schemas.location import ABSENT, disk_error

THREADS = 16

FileSize = tuple[str, int | None]
"""The path of a file inside the cache, and its bytes; None for a pipe and other special files."""

Folder = tuple[str, str]
"""A folder: its path inside the cache with a slash at the end (empty for the cache itself), and its full path."""


class NoFileError(FileNotFoundError):
    """There is no file of that name."""


# Reading


def read_range(path: str, start: int = 0, stop: int | None = None) -> bytearray:
    """Return the bytes from `start` to `stop` (None is the end), as far as the file has them.

    A negative `start` counts from the end.

    Raises:
        NoFileError: if there is no such file.
        ValueError: if it is not a regular file, or its name cannot be that of a file.
        CacheError: if it is a link.
        StoreError: if it cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return _read_descriptor(descriptor, start, stop)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in ABSENT:
            raise NoFileError(error.errno, error.strerror or "absent") from None
        if error.errno == errno.ELOOP:
            raise link_error(path) from None
        raise disk_error(path, error) from error


def _read_descriptor(descriptor: int, start: int, stop: int | None) -> bytearray:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is not a regular file")
    size = status.st_size
    first = min(size, start if start >= 0 else max(0, size + start))
    last = size if stop is None else min(size, stop)
    return read_at(descriptor, first, last)


def read_at(descriptor: int, first: int, last: int) -> bytearray:
    """Return the bytes `first`:`last` of an open file; none if `last` is not behind `first`.

    Raises:
        ValueError: if the file ends before.
        OSError: if it cannot be read.
    """
    content = bytearray(max(0, last - first))
    done, view = 0, memoryview(content)
    while done < len(content):
        count = os.preadv(descriptor, [view[done:]], first + done)
        if count == 0:
            raise ValueError(f"it ended after {first + done} of {last} bytes while it was read")
        done += count
    return content


def file_size(path: str) -> int:
    """Return the bytes of a regular file.

    Raises:
        NoFileError: if there is no such file, or it is a link or a special file.
        StoreError: if that cannot be found out.
    """
    try:
        status = os.lstat(path)
    except OSError as error:
        if error.errno in ABSENT:
            raise NoFileError(error.errno, "absent") from None
        raise disk_error(path, error) from error
    if not stat.S_ISREG(status.st_mode):
        raise NoFileError(errno.ENOENT, "it is not a regular file")
    return status.st_size


# Links


def link_error(path: str | Path) -> CacheError:
    """Return the error of a link inside a cache."""
    return CacheError(
        f"{path}: a link inside a cache, where only the cache itself may be one; remove the link, or replace it by a "
        "copy of what it leads to"
    )


def refuse_links(base: str, path: str) -> None:
    """Check that neither a path inside the cache at `base` nor a folder on the way to it is a link.

    Raises:
        CacheError: if one is.
    """
    place = Path(base)
    for step in Path(path).parts:
        place /= step
        if place.is_symlink():
            raise link_error(place)


# Listing


def local_file_sizes(base: str) -> dict[str, int | None]:
    """Return the bytes of all files below the folder `base`, by path inside it; several shards are listed at once.

    Raises:
        CacheError: if there is a link among them.
        StoreError: if a folder cannot be read.
    """
    sizes, folders = _list_folder(("", base))
    shards = [folder for folder in folders if folder[0] == f"{SHARDS}/"]
    for folder in shards:
        files, children = _list_folder(folder)
        sizes += files
        folders += children
    sizes += _list_trees(folder for folder in folders if folder not in shards)
    return dict(sizes)


def sizes_below(base: str, folders: Iterable[str]) -> dict[str, int | None]:
    """Return the bytes of all files below some folders of the cache at `base`, by path inside the cache.

    Raises:
        CacheError: if there is a link among them.
        StoreError: if a folder cannot be read.
    """
    wanted = list(folders)
    for folder in wanted:
        refuse_links(base, folder)
    return dict(_list_trees((f"{folder}/", str(Path(base, folder))) for folder in wanted))


def entry_names(folder: str) -> list[str]:
    """Return the names of all that is directly inside a folder; none if there is no such folder.

    Raises:
        StoreError: if the folder cannot be read.
    """
    try:
        return os.listdir(folder)  # noqa: PTH208  # names alone
    except OSError as error:
        if error.errno in ABSENT:
            return []
        raise disk_error(folder, error) from error


def folder_names(folder: str) -> list[str]:
    """Return the names of the folders directly inside a folder; none if there is no such folder.

    Raises:
        StoreError: if the folder cannot be read.
    """
    return [name.rstrip("/") for name, _ in _list_folder(("", folder))[1]]


def _list_trees(folders: Iterable[Folder]) -> list[FileSize]:
    with ThreadPoolExecutor(THREADS) as pool:
        return [file for files in pool.map(_list_tree, folders) for file in files]


def _list_tree(folder: Folder) -> list[FileSize]:
    sizes, waiting = [], [folder]
    while waiting:
        files, children = _list_folder(waiting.pop())
        sizes += files
        waiting += children
    return sizes


def _list_folder(folder: Folder) -> tuple[list[FileSize], list[Folder]]:
    """Return the files and the folders directly inside a folder."""
    prefix, full_path = folder
    files: list[FileSize] = []
    children: list[Folder] = []
    try:
        with os.scandir(full_path) as entries:
            for entry in entries:
                if entry.is_symlink():
                    raise link_error(entry.path)
                if entry.is_dir(follow_symlinks=False):
                    children.append((f"{prefix}{entry.name}/", entry.path))
                else:
                    status = entry.stat(follow_symlinks=False)
                    files.append((prefix + entry.name, status.st_size if stat.S_ISREG(status.st_mode) else None))
    except OSError as error:
        if error.errno in ABSENT:
            return [], []
        raise disk_error(full_path, error) from error
    return files, children


# Removing


def remove(base: str, path: str) -> None:
    """Remove a file, or a folder with all that is in it, from the cache at `base`, if it exists.

    Raises:
        CacheError: if a link is on the way to it.
    """
    refuse_links(base, path)
    place = Path(base, path)
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def remove_durably(base: str, file: str) -> None:
    """Remove a file if it exists, and bring that to the disk before anything else of its folder changes."""
    refuse_links(base, file)
    place = Path(base, file)
    if place.is_file():
        place.unlink()
        sync_folder(place.parent)


def remove_empty_folders(folder: Path, root: Path) -> None:
    """Remove a folder if it is empty, then its parents while they are empty, up to but without `root`."""
    while folder != root and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def link_or_copy(source: Path, place: Path) -> None:
    """Give a file a second name, or copy it if the place is on another disk."""
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, place)
    except OSError:
        write_durably(place, source.read_bytes())

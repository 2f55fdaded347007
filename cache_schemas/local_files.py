"""The files of a local cache: list all of them with their sizes, and remove folders that became empty."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cache_schemas.group_path import SHARDS

THREADS = 16

FileSize = tuple[str, int | None]
"""The path of a file inside the cache, and its bytes; None for a link, a pipe and other special files."""

Folder = tuple[str, str]
"""A folder: its path inside the cache with a slash at the end (empty for the cache itself), and its full path."""


def local_file_sizes(base: str) -> dict[str, int | None]:
    """Return the bytes of all files below the folder `base`, by path inside it; several shards are listed at once.

    Links are not followed.
    """
    sizes, folders = _list_folder(("", base))
    shards = [folder for folder in folders if folder[0] == f"{SHARDS}/"]
    for folder in shards:
        files, children = _list_folder(folder)
        sizes += files
        folders += children
    with ThreadPoolExecutor(THREADS) as pool:
        for files in pool.map(_list_tree, (folder for folder in folders if folder not in shards)):
            sizes += files
    return dict(sizes)


def remove_empty_folders(folder: Path, root: Path) -> None:
    """Remove a folder if it is empty, then its parents while they are empty, up to but without `root`."""
    while folder != root and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


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
    with os.scandir(full_path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                children.append((f"{prefix}{entry.name}/", entry.path))
            else:
                status = entry.stat(follow_symlinks=False)
                files.append((prefix + entry.name, status.st_size if stat.S_ISREG(status.st_mode) else None))
    return files, children

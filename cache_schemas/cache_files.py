"""The files of a cache, on a disk or in an object store: listed with their sizes, read as texts, and removed.

Paths are those inside the cache. Objects of a store are read and removed by their names, which may contain `*`, `?` and
`[`: the general calls of fsspec take these for patterns.
"""

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from typing_extensions import override

from cache_schemas import local_files
from cache_schemas.array_storage import METADATA
from cache_schemas.durable_store import BytesLike, sync_folder, sync_folders, write_durably
from cache_schemas.group_path import SHARDS
from cache_schemas.location import file_system, is_packed, is_url
from cache_schemas.packed_files import PackedFiles
from cache_schemas.zarr_documents import LARGEST_DOCUMENT_BYTES, Text, read_local_files

LISTS_AT_ONCE = 64
"""A store answers a list with 1,000 objects at most, so the shards are listed one by one, many at once."""

FileSizes = dict[str, int | None]
"""The bytes of files, by path; None for special files."""


class CacheFiles(Protocol):
    """The files of one cache."""

    def sizes(self, folders: Iterable[str] | None = None) -> FileSizes:
        """Return the bytes of all files, or of those in some folders.

        Raises:
            CacheError: if there is a link among them.
            StoreError: if a folder cannot be read.
        """

    def folder_names(self, folder: str) -> list[str]:
        """Return the names of the folders directly inside a folder."""

    def top_names(self) -> list[str]:
        """Return the names of all files and folders at the top; none if the place is empty or absent."""

    def size(self, path: str) -> int:
        """Return the bytes of a file.

        Raises:
            FileNotFoundError: if there is no such regular file.
        """

    def texts(self, paths: Sequence[str]) -> Mapping[str, Text | Exception]:
        """Return the content of those files that exist, up to one byte more than a document may have, by path."""

    def content(self, path: str) -> bytes:
        """Return the whole content of a file."""

    def take(self, path: str, source: "CacheFiles") -> None:
        """Make a file equal to that of the same path in another cache; a link to it where both are on one disk."""

    def put(self, files: Mapping[str, BytesLike]) -> None:
        """Write files, or replace them, each as one write."""

    def start_group(self, folder: str, document: bytes) -> None:
        """Replace a folder, if it exists, by one that holds nothing but this `zarr.json`. Its seal goes first."""

    def remove(self, path: str) -> None:
        """Remove a file, or a folder and all that is in it, if it exists."""

    def remove_folder(self, folder: str, first: str) -> None:
        """Remove a folder and all that is in it, if it exists: the file `first` before anything else."""

    def remove_empty_folders(self, folder: str) -> None:
        """Remove a folder of the cache if it is empty, then its parents while they are empty."""

    def refuse_links(self, path: str) -> None:
        """Raise CacheError if a path, or a folder on the way to it, is a link."""

    def sync_below(self, folder: str) -> None:
        """Bring the names in a folder and below it to the disk."""

    def sync_way_to(self, folder: str) -> None:
        """Bring the names in a folder, and in the folders on the way to it, to the disk."""


def files_at(url: str) -> CacheFiles:
    """Return the files of the cache at a path or URL."""
    fs, base = file_system(url)
    if is_packed(url):
        return PackedFiles(base)
    return StoredObjects(fs, base) if is_url(url) else LocalFiles(base)


class LocalFiles(CacheFiles):
    """Files on a disk. Links among them are refused."""

    def __init__(self, base: str) -> None:
        """Refer to the folder `base`."""
        self._base = base

    @override
    def sizes(self, folders: Iterable[str] | None = None) -> FileSizes:
        if folders is None:
            return local_files.local_file_sizes(self._base)
        return local_files.sizes_below(self._base, folders)

    @override
    def folder_names(self, folder: str) -> list[str]:
        return local_files.folder_names(self._path(folder))

    @override
    def top_names(self) -> list[str]:
        return local_files.entry_names(self._base)

    @override
    def size(self, path: str) -> int:
        return local_files.file_size(self._path(path))

    @override
    def texts(self, paths: Sequence[str]) -> Mapping[str, Text | Exception]:
        path_of = {self._path(path): path for path in paths}
        return {path_of[file]: text for file, text in read_local_files(path_of).items()}

    @override
    def content(self, path: str) -> bytes:
        return bytes(local_files.read_range(self._path(path)))

    @override
    def take(self, path: str, source: CacheFiles) -> None:
        place = Path(self._path(path))
        if isinstance(source, LocalFiles):
            local_files.link_or_copy(Path(source._path(path)), place)
        else:
            write_durably(place, source.content(path))

    @override
    def put(self, files: Mapping[str, BytesLike]) -> None:
        for path, content in files.items():
            write_durably(Path(self._path(path)), content)

    @override
    def start_group(self, folder: str, document: bytes) -> None:
        self.remove_folder(folder, f"{folder}/{METADATA}")
        self.put({f"{folder}/{METADATA}": document})

    @override
    def remove(self, path: str) -> None:
        local_files.remove(self._base, path)

    @override
    def remove_folder(self, folder: str, first: str) -> None:
        local_files.remove_durably(self._base, first)
        self.remove(folder)

    @override
    def remove_empty_folders(self, folder: str) -> None:
        local_files.remove_empty_folders(Path(self._base, folder), Path(self._base))

    @override
    def refuse_links(self, path: str) -> None:
        local_files.refuse_links(self._base, path)

    @override
    def sync_below(self, folder: str) -> None:
        sync_folders(Path(self._base, folder))

    @override
    def sync_way_to(self, folder: str) -> None:
        place = Path(self._base, folder)
        sync_folder(place)
        while place != Path(self._base):
            place = place.parent
            sync_folder(place)

    def _path(self, path: str) -> str:
        return posixpath.join(self._base, path) if path else self._base


class StoredObjects(CacheFiles):
    """Objects in a store, which has neither links nor folders."""

    def __init__(self, fs: Any, base: str) -> None:
        """Refer to the objects below `base` in an fsspec file system."""
        self._fs, self._base = fs, base

    @override
    def sizes(self, folders: Iterable[str] | None = None) -> FileSizes:
        self._fs.invalidate_cache()
        found: FileSizes = {}
        if folders is None:
            top = self._entries("")
            shards = self._entries(SHARDS) if SHARDS in top else {}
            found = {path: size for path, size in (top | shards).items() if size is not None}
            folders = [path for path, size in (top | shards).items() if size is None and path != SHARDS]
        with ThreadPoolExecutor(LISTS_AT_ONCE) as pool:
            for sizes in pool.map(self._sizes_below, folders):
                found |= sizes
        return found

    def _entries(self, folder: str) -> dict[str, int | None]:
        """Return the bytes of the objects directly in a folder, and None for each folder there, by path."""
        try:
            entries = self._fs.ls(self._path(folder), detail=True)
        except FileNotFoundError:
            return {}
        return {
            self._inside(entry["name"]): None if entry["type"] == "directory" else int(entry["size"])
            for entry in entries
        }

    def _sizes_below(self, folder: str) -> FileSizes:
        found = self._fs.find(self._path(folder), detail=True)
        return {self._inside(path): int(entry["size"]) for path, entry in found.items()}

    def _inside(self, path: str) -> str:
        return str(path).removeprefix(self._base.rstrip("/") + "/")

    @override
    def folder_names(self, folder: str) -> list[str]:
        place = self._path(folder)
        self._fs.invalidate_cache(place)
        if not self._fs.isdir(place):
            return []
        entries = self._fs.ls(place, detail=True)
        return [posixpath.basename(entry["name"].rstrip("/")) for entry in entries if entry["type"] == "directory"]

    @override
    def top_names(self) -> list[str]:
        place = self._path("")
        self._fs.invalidate_cache(place)
        if not self._fs.isdir(place):
            return []
        return [posixpath.basename(name.rstrip("/")) for name in self._fs.ls(place, detail=False)]

    @override
    def size(self, path: str) -> int:
        return int(self._fs.size(self._path(path)))

    @override
    def texts(self, paths: Sequence[str]) -> Mapping[str, Text | Exception]:
        if not paths:
            return {}
        found = self._fs.cat_ranges([self._path(path) for path in paths], 0, LARGEST_DOCUMENT_BYTES + 1)
        pairs = zip(paths, found, strict=True)
        return {path: text for path, text in pairs if not isinstance(text, FileNotFoundError)}

    @override
    def content(self, path: str) -> bytes:
        return bytes(self._fs.cat_file(self._path(path)))

    @override
    def take(self, path: str, source: CacheFiles) -> None:
        self._fs.pipe_file(self._path(path), source.content(path))

    @override
    def put(self, files: Mapping[str, BytesLike]) -> None:
        self._fs.pipe({self._path(path): bytes(content) for path, content in files.items()})

    @override
    def start_group(self, folder: str, document: bytes) -> None:
        """Replace the objects of a group by its document.

        The document is replaced before the others are listed: listing a folder without objects takes three requests.
        """
        file = f"{folder}/{METADATA}"
        self.put({file: document})
        self._fs.remove(self._path(folder), keep=self._path(file))

    @override
    def remove(self, path: str) -> None:
        self._fs.remove(self._path(path))

    @override
    def remove_folder(self, folder: str, first: str) -> None:
        self._fs.remove(self._path(folder), first=self._path(first))

    @override
    def remove_empty_folders(self, folder: str) -> None:
        pass

    @override
    def refuse_links(self, path: str) -> None:
        pass

    @override
    def sync_below(self, folder: str) -> None:
        pass

    @override
    def sync_way_to(self, folder: str) -> None:
        pass

    def _path(self, path: str) -> str:
        return posixpath.join(self._base, path) if path else self._base

"""The cache: create or open it, write and seal whole groups, read sealed groups, list and remove files."""

import posixpath
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import zarr
from zarr.errors import ContainsArrayError

from cache_schemas.array_storage import METADATA, checksum, chunk_file, least_file_bytes, write_array
from cache_schemas.documents import ArraySeal, CacheManifest, GroupSeal, Provenance, ShardRecord
from cache_schemas.errors import CacheError, DamagedGroupError, NoCacheError, UnsealedGroupError
from cache_schemas.group_path import SHARDS, GroupPath, is_folder_name, shard_path
from cache_schemas.layout import SHARD_GROUPS, AnyArray, check_arrays, group_spec
from cache_schemas.local_files import local_file_sizes, remove_empty_folders
from cache_schemas.location import StoreError, file_system, is_url, zarr_store
from cache_schemas.zarr_documents import Document, group_attributes, parse_document, read_local_files

READ_MEMORY_FACTOR = 4
"""Reading an array takes at most so many times its own memory: the file, the values, and a copy of each."""


class Cache:
    """A cache at a local path or an fsspec URL.

    A group is written by one task as a whole. Readers see it once its seal (the attributes of its Zarr group) is
    written.
    """

    def __init__(self, url: str, mode: Literal["r", "a"] = "r") -> None:
        """Refer to the cache at `url`; `open` and `create` also read and write its manifest."""
        self.url = url.rstrip("/")
        self._mode = mode
        self._fs, self._base = file_system(self.url)

    @classmethod
    def open(cls, url: str, mode: Literal["r", "a"] = "r") -> tuple[Self, CacheManifest]:
        """Return the existing cache at `url` and its manifest.

        Raises:
            NoCacheError: if there is none.
            SchemaVersionError: if it follows another version of the contract.
            CacheError: if its manifest is damaged.
        """
        cache = cls(url, mode)
        manifest = cache.manifest()
        if manifest is None:
            raise NoCacheError(f"{url}: no cache here; make one with `labelgen run --dataset .. --data .. --cache ..`")
        return cache, manifest

    @classmethod
    def create(cls, url: str, manifest: CacheManifest) -> Self:
        """Return a writable cache at `url` with this manifest; an existing cache keeps its shards and groups.

        Raises:
            CacheError: if it cannot be written there.
        """
        cache = cls(url, "a")
        try:
            root = zarr.open_group(zarr_store(cache.url), mode="a", attributes=manifest.to_attrs())
            root.require_group(SHARDS)
            root.attrs.put(manifest.to_attrs())
        except (OSError, ContainsArrayError) as error:
            reason = getattr(error, "strerror", None) or error
            raise CacheError(f"{url}: cannot write the cache here ({reason}); choose another cache folder") from error
        return cache

    def manifest(self) -> CacheManifest | None:
        """Return the manifest, or None if there is no cache."""
        attrs = self._attributes([""]).get("")
        if attrs is None:
            return None
        if "schema_version" not in attrs:
            raise CacheError(f"{self.url}: a Zarr group that is not a cache; choose another cache folder")
        return CacheManifest.from_attrs(attrs, self.url)

    # Shards

    def shard_keys(self) -> list[str]:
        """Return the keys of all shards, finished or not, sorted."""
        folder = self._path(SHARDS)
        self._fs.invalidate_cache(folder)
        if not self._fs.isdir(folder):
            return []
        entries = self._fs.ls(folder, detail=True)
        names = (
            posixpath.basename(entry["name"].rstrip("/"))
            for entry in entries
            if entry["type"] == "directory" and not entry.get("islink")
        )
        return sorted(filter(is_folder_name, names))

    def shard_records(self, keys: Iterable[str]) -> dict[str, ShardRecord]:
        """Return the records of those shards that have one, by key; all are read at once."""
        key_of = {shard_path(key): key for key in keys}
        return {
            key_of[path]: ShardRecord.from_attrs(attrs, f"{self.url}/{path}")
            for path, attrs in self._attributes(key_of).items()
            if attrs
        }

    def write_shard_record(self, key: str, record: ShardRecord) -> None:
        """Write a shard's record; its Zarr group is created if it does not exist."""
        self._check_writable()
        self._root().require_group(shard_path(key)).attrs.put(record.to_attrs())

    # Groups

    def seals(self, paths: Iterable[GroupPath]) -> dict[GroupPath, GroupSeal]:
        """Return the seals of those groups that are sealed, by path; all are read at once."""
        path_of = {str(path): path for path in paths}
        return {
            path_of[path]: GroupSeal.from_attrs(attrs, f"{self.url}/{path}")
            for path, attrs in self._attributes(path_of).items()
            if attrs.get("state") == "sealed"
        }

    def shard_seals(self, key: str) -> dict[str, GroupSeal]:
        """Return the seals of one shard's sealed groups, by group name."""
        return {path.name: seal for path, seal in self.seals(GroupPath(key, name) for name in SHARD_GROUPS).items()}

    def write_group(self, path: GroupPath, arrays: Mapping[str, AnyArray], provenance: Provenance) -> GroupSeal:
        """Write a whole group and seal it; an older group at this path is removed first.

        Raises:
            LayoutError: if the arrays break the contract; nothing is changed then.
            OSError: if it cannot be written; the group is unsealed then.
        """
        check_arrays(path, dict(arrays))
        self.remove_group(path)
        group = self._root().create_group(str(path))
        specs = group_spec(path).arrays
        for name, array in arrays.items():
            write_array(group, name, array, specs[name])
        sealed = {
            name: ArraySeal(shape=array.shape, dtype=array.dtype.name, crc32c=checksum(array))
            for name, array in arrays.items()
        }
        seal = GroupSeal.of(provenance, sealed)
        group.attrs.put(seal.to_attrs())
        return seal

    def arrays(self, path: GroupPath, *names: str) -> dict[str, Any]:
        """Return Zarr arrays of a sealed group (those named, or all), by name, without reading their values.

        Raises:
            UnsealedGroupError: if the group is absent or not sealed.
            DamagedGroupError: if an array is absent or is not the one that was sealed.
        """
        seal = self.seals([path]).get(path)
        if seal is None:
            raise UnsealedGroupError(
                f"{self.url}/{path}: not sealed; the run that writes it did not finish, rerun `labelgen run`"
            )
        try:
            group = self._root()[str(path)]
            return {name: _sealed_array(group, name, seal) for name in names or seal.arrays}
        except StoreError:
            raise
        except Exception as error:
            raise self._damaged(path, error) from error

    def read(self, path: GroupPath, *names: str) -> dict[str, AnyArray]:
        """Return the values of a sealed group's arrays (those named, or all), by name.

        The sizes in the documents are checked against the size of the file before memory is allocated.

        Raises:
            UnsealedGroupError: if the group is absent or not sealed.
            DamagedGroupError: if its bytes cannot be read back.
            StoreError: if the object store fails.
            MemoryError: if there is not enough memory for the values.
        """
        arrays = self.arrays(path, *names)
        for name, array in arrays.items():
            self._check_size(path, name, array)
            # Zarr reports a lack of memory as a broken chunk; this allocation raises MemoryError before it starts.
            np.empty((READ_MEMORY_FACTOR, *array.shape), array.dtype)
        try:
            return {name: np.asarray(array[...]) for name, array in arrays.items()}
        except StoreError:
            raise
        except Exception as error:
            raise self._damaged(path, error) from error

    def remove_group(self, path: GroupPath) -> None:
        """Remove a group if it exists, its seal first; of a link, only the link is removed."""
        self.remove_folder(str(path))

    # Files

    def stored_bytes(self, path: GroupPath) -> dict[str, int]:
        """Return the bytes on disk of each array of a group, by name."""
        prefix = self._path(str(path)).rstrip("/") + "/"
        sizes: dict[str, int] = {}
        for file, entry in self._fs.find(prefix, detail=True).items():
            name, _, rest = file.removeprefix(prefix).partition("/")
            if rest:
                sizes[name] = sizes.get(name, 0) + int(entry["size"])
        return sizes

    def file_sizes(self) -> dict[str, int | None]:
        """Return the bytes of all files by their path in the cache; None for links and special files."""
        if is_url(self.url):
            self._fs.invalidate_cache()
            prefix = self._base.rstrip("/") + "/"
            found = self._fs.find(self._base, detail=True)
            return {str(path).removeprefix(prefix): int(entry["size"]) for path, entry in found.items()}
        return local_file_sizes(self._base)

    def documents(self, paths: Iterable[str]) -> dict[str, Document]:
        """Return the `zarr.json` of many Zarr groups or arrays, by their path in the cache; all are read at once.

        Absent ones are left out. If one cannot be read, or is not a JSON object, its value is the error.
        """
        files = {self._path(posixpath.join(path, METADATA)): path for path in paths}
        if is_url(self.url):
            found = self._fs.cat(list(files), on_error="return") if files else {}
            found = {file: text for file, text in found.items() if not isinstance(text, FileNotFoundError)}
        else:
            found = read_local_files(files)
        return {files[file]: parse_document(file, text) for file, text in found.items()}

    def restore_shards_node(self) -> None:
        """Replace the `zarr.json` of the Zarr group `shards`, which has no attributes."""
        self.remove_file(f"{SHARDS}/{METADATA}")
        self._root().require_group(SHARDS)

    def remove_folder(self, path: str) -> None:
        """Remove a folder of the cache if it exists, its `zarr.json` first; of a link, only the link is removed."""
        self._check_writable()
        folder = self._path(path)
        if not self._is_link(folder):
            self._remove(self._path(f"{path}/{METADATA}"))
        self._remove(folder)

    def remove_file(self, path: str) -> None:
        """Remove a file of the cache if it exists, and the folders that are empty then."""
        self._check_writable()
        self._remove(self._path(path))
        if not is_url(self.url):
            remove_empty_folders(Path(self._base) / Path(path).parent, Path(self._base))

    def _check_writable(self) -> None:
        if self._mode == "r":
            raise CacheError(f"{self.url}: opened for reading; open it with mode 'a' to write")

    def _root(self) -> zarr.Group:
        mode: Literal["r", "r+"] = "r" if self._mode == "r" else "r+"
        return zarr.open_group(zarr_store(self.url), mode=mode, use_consolidated=False)

    def _path(self, relative: str) -> str:
        return posixpath.join(self._base, relative) if relative else self._base

    def _attributes(self, paths: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return the attributes of those Zarr groups that exist, by path."""
        return {
            path: group_attributes(document, f"{self.url}/{path}") for path, document in self.documents(paths).items()
        }

    def _check_size(self, path: GroupPath, name: str, array: Any) -> None:
        least = least_file_bytes(group_spec(path).arrays[name], array.shape, array.dtype.name)
        file = self._path(posixpath.join(str(path), name, chunk_file(array.ndim)))
        try:
            if array.size and (size := self._fs.size(file)) < least:
                raise ValueError(f"{name} has {size} bytes, its shape {array.shape} needs at least {least}")
        except StoreError:
            raise
        except (OSError, ValueError) as error:
            raise self._damaged(path, error) from error

    def _damaged(self, path: GroupPath, error: Exception) -> DamagedGroupError:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return DamagedGroupError(
            f"{self.url}/{path}: damaged ({reason}); remove this folder, then rerun the same `labelgen run`; "
            "`labelgen verify` lists all damage"
        )

    def _is_link(self, path: str) -> bool:
        return not is_url(self.url) and Path(path).is_symlink()

    def _remove(self, path: str) -> None:
        if self._is_link(path):
            Path(path).unlink()
        elif self._fs.exists(path):
            self._fs.rm(path, recursive=self._fs.isdir(path))


def _sealed_array(group: Any, name: str, seal: GroupSeal) -> Any:
    """Return an array of a Zarr group if its shape and dtype are those in the seal."""
    array, sealed = group[name], seal.arrays[name]
    if (array.shape, array.dtype.name) != (sealed.shape, sealed.dtype):
        raise ValueError(f"{name} is {array.dtype.name} {array.shape}, sealed as {sealed.dtype} {sealed.shape}")
    return array

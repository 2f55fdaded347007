"""The cache itself: create or open it, write and seal whole groups, read sealed ones."""

import json
import os
import posixpath
import stat
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, Self

import google_crc32c
import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.errors import ContainsArrayError

from cache_schemas.documents import ArraySeal, CacheManifest, GroupSeal, Provenance, ShardRecord
from cache_schemas.errors import CacheError, DamagedGroupError, NoCacheError, UnsealedGroupError
from cache_schemas.group_path import SHARDS, GroupPath, shard_path
from cache_schemas.layout import (
    SHARD_GROUPS,
    AnyArray,
    ArraySpec,
    check_arrays,
    chunk_shapes,
    group_spec,
    least_file_bytes,
)
from cache_schemas.place import StoreError, file_system, is_url, zarr_store

THREADS, FILES_A_THREAD = 16, 64

READING_TAKES = 4
"""Reading an array takes no more memory than so many of it: its file, its values, and a copy of each on the way."""


def checksum(array: AnyArray) -> str:
    """Return the crc32c of the array's values in C order, little-endian, as eight hex digits."""
    flat = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8)
    return f"{google_crc32c.value(flat.tobytes()):08x}"


class Cache:
    """A cache at a local path or an fsspec URL.

    Groups are named by their `GroupPath`. Each is written whole by one task, and exists for readers once its seal (the
    attributes of its Zarr group) is in place.
    """

    def __init__(self, url: str, mode: Literal["r", "a"] = "r") -> None:
        """Point at the cache at `url`; use `open` or `create` to also read or write its manifest."""
        self.url = url.rstrip("/")
        self._mode = mode
        self._fs, self._base = file_system(self.url)

    @classmethod
    def open(cls, url: str, mode: Literal["r", "a"] = "r") -> tuple[Self, CacheManifest]:
        """Return the existing cache at `url` and its manifest.

        Raises:
            NoCacheError: if nothing is there.
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
        """Return a writable cache at `url`, made if absent, whose manifest is now `manifest`.

        Raises:
            CacheError: if the place cannot be written.
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
        """Return the manifest, or None where there is no cache."""
        attrs = self._attributes([""]).get("")
        if attrs is None:
            return None
        if "schema_version" not in attrs:
            raise CacheError(f"{self.url}: a Zarr group, but not a cache of ours; choose another cache folder")
        return CacheManifest.from_attrs(attrs, self.url)

    def restore_shards_node(self) -> None:
        """Write the Zarr group `shards` anew, which holds nothing but the shards' folders."""
        self.remove_file(f"{SHARDS}/zarr.json")
        self._root().require_group(SHARDS)

    def shard_keys(self) -> list[str]:
        """Return the keys of all shards, sealed or not, sorted."""
        folder = self._path(SHARDS)
        self._fs.invalidate_cache(folder)
        if not self._fs.isdir(folder):
            return []
        entries = self._fs.ls(folder, detail=True)
        return sorted(
            posixpath.basename(entry["name"].rstrip("/"))
            for entry in entries
            if entry["type"] == "directory" and not entry.get("islink")
        )

    def shard_records(self, keys: Iterable[str]) -> dict[str, ShardRecord]:
        """Return the records of those shards that have one, by key."""
        paths = {shard_path(key): key for key in keys}
        found = self._attributes(paths)
        return {
            paths[path]: ShardRecord.from_attrs(attrs, f"{self.url}/{path}") for path, attrs in found.items() if attrs
        }

    def write_shard_record(self, key: str, record: ShardRecord) -> None:
        """Create the shard's Zarr group if need be, and set its record."""
        self._check_writable()
        self._root().require_group(shard_path(key)).attrs.put(record.to_attrs())

    def seals(self, paths: Iterable[GroupPath]) -> dict[GroupPath, GroupSeal]:
        """Return the seals of those groups that are sealed, by path; many are read at once."""
        wanted = {str(path): path for path in paths}
        return {
            wanted[path]: GroupSeal.from_attrs(attrs, f"{self.url}/{path}")
            for path, attrs in self._attributes(wanted).items()
            if attrs.get("state") == "sealed"
        }

    def shard_seals(self, key: str) -> dict[str, GroupSeal]:
        """Return the seals of one shard's sealed groups, by group name."""
        return {path.name: seal for path, seal in self.seals(GroupPath(key, name) for name in SHARD_GROUPS).items()}

    def write_group(self, path: GroupPath, arrays: Mapping[str, AnyArray], provenance: Provenance) -> GroupSeal:
        """Write a whole group and seal it; whatever stood there before is removed first.

        Raises:
            LayoutError: if the arrays break the contract; nothing is touched then.
            OSError: if the place cannot be written; the group is then unsealed.
        """
        check_arrays(path, dict(arrays))
        self.remove_group(path)
        group = self._root().create_group(str(path))
        specs = group_spec(path).arrays
        for name, array in arrays.items():
            _write_array(group, name, array, specs[name])
        sealed = {
            name: ArraySeal(shape=array.shape, dtype=array.dtype.name, crc32c=checksum(array))
            for name, array in arrays.items()
        }
        seal = GroupSeal.of(provenance, sealed)
        group.attrs.put(seal.to_attrs())
        return seal

    def remove_group(self, path: GroupPath) -> None:
        """Remove a group if it is there, its seal first; of a link, the link alone goes."""
        self.remove_folder(str(path))

    def remove_folder(self, path: str) -> None:
        """Remove a folder of the cache if it is there, its zarr.json first; of a link, the link alone goes."""
        self._check_writable()
        folder = self._path(path)
        if not self._is_link(folder):
            self._remove(self._path(f"{path}/zarr.json"))
        self._remove(folder)

    def remove_file(self, path: str) -> None:
        """Remove a file of the cache if it is there, and the folders that are left empty."""
        self._check_writable()
        self._remove(self._path(path))
        if not is_url(self.url):
            _remove_empty_folders(Path(self._base) / Path(path).parent, Path(self._base))

    def arrays(self, path: GroupPath, *names: str) -> dict[str, Any]:
        """Return Zarr arrays of a sealed group (those named, or all), by name, without reading their values.

        Raises:
            UnsealedGroupError: if the group is absent or not sealed.
        """
        seal = self.seals([path]).get(path)
        if seal is None:
            raise UnsealedGroupError(
                f"{self.url}/{path}: not sealed; the run that writes it has not finished, run it again"
            )
        try:
            group = self._root()[str(path)]
            return {name: _sealed_array(group, name, seal) for name in names or seal.arrays}
        except StoreError:
            raise
        except Exception as error:
            raise self._damaged(path, error) from error

    def read(self, path: GroupPath, *names: str) -> dict[str, AnyArray]:
        """Return values of a sealed group's arrays, by name: those named, or all.

        Nothing is allocated for an array that its file cannot hold, whatever its documents claim.

        Raises:
            UnsealedGroupError: if the group is absent or not sealed.
            DamagedGroupError: if its bytes cannot be read back.
            StoreError: if the object store fails.
            MemoryError: if the values take more than there is.
        """
        arrays = self.arrays(path, *names)
        for name, array in arrays.items():
            self._check_size(path, name, array)
            np.empty((READING_TAKES, *array.shape), array.dtype)  # too little memory shows here; below, a chunk lies
        try:
            return {name: np.asarray(array[...]) for name, array in arrays.items()}
        except StoreError:
            raise
        except Exception as error:
            raise self._damaged(path, error) from error

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
        """Return the bytes of all files by their path in the cache; None for links and whatever else is no file."""
        if is_url(self.url):
            self._fs.invalidate_cache()
            prefix = self._base.rstrip("/") + "/"
            found = self._fs.find(self._base, detail=True)
            return {str(path).removeprefix(prefix): int(entry["size"]) for path, entry in found.items()}
        return _local_sizes(self._base)

    def documents(self, paths: Iterable[str]) -> dict[str, dict[str, Any] | CacheError]:
        """Read the `zarr.json` of many groups or arrays at once, by their path.

        Absent ones are left out; of one that cannot be read, or is no JSON object, the error is returned.
        """
        places = {self._path(posixpath.join(path, "zarr.json")): path for path in paths}
        if is_url(self.url):
            found = self._fs.cat(list(places), on_error="return") if places else {}
            found = {place: text for place, text in found.items() if not isinstance(text, FileNotFoundError)}
        else:
            found = _read_present(places)
        return {places[place]: _parse(place, text) for place, text in found.items()}

    def _check_writable(self) -> None:
        if self._mode == "r":
            raise CacheError(f"{self.url}: opened for reading; open it with mode 'a' to write")

    def _root(self) -> zarr.Group:
        mode: Literal["r", "r+"] = "r" if self._mode == "r" else "r+"
        return zarr.open_group(zarr_store(self.url), mode=mode, use_consolidated=False)

    def _path(self, relative: str) -> str:
        return posixpath.join(self._base, relative) if relative else self._base

    def _attributes(self, paths: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Read the attributes of many groups at once; absent groups are left out."""
        documents = self.documents(paths)
        return {path: group_attributes(document, f"{self.url}/{path}") for path, document in documents.items()}

    def _check_size(self, path: GroupPath, name: str, array: Any) -> None:
        least = least_file_bytes(group_spec(path).arrays[name], array.shape, array.dtype.name)
        file = self._path(posixpath.join(str(path), name, "c", *["0"] * array.ndim))
        try:
            if array.size and (size := self._fs.size(file)) < least:
                raise ValueError(f"{name} has {size} bytes, its shape {array.shape} takes {least} or more")
        except StoreError:
            raise
        except (OSError, ValueError) as error:
            raise self._damaged(path, error) from error

    def _damaged(self, path: GroupPath, error: Exception) -> DamagedGroupError:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return DamagedGroupError(
            f"{self.url}/{path}: damaged ({reason}); remove this folder, then run the same "
            "`labelgen run` again; `labelgen verify` lists all damage"
        )

    def _is_link(self, path: str) -> bool:
        return not is_url(self.url) and Path(path).is_symlink()

    def _remove(self, path: str) -> None:
        if self._is_link(path):
            Path(path).unlink()
        elif self._fs.exists(path):
            self._fs.rm(path, recursive=self._fs.isdir(path))


def group_attributes(document: dict[str, Any] | CacheError, where: str) -> dict[str, Any]:
    """Return the attributes in a Zarr group's document.

    Raises:
        CacheError: if it could not be read, or is no group's.
    """
    if isinstance(document, CacheError):
        raise document
    attributes, node = document.get("attributes", {}), document.get("node_type", "group")
    if node != "group" or not isinstance(attributes, dict):
        raise CacheError(
            f"{where}/zarr.json: not a Zarr group (node_type {node!r:.40}, attributes {type(attributes).__name__}); "
            "let `labelgen verify --repair` remove it, then run `labelgen run` again"
        )
    return attributes


def _parse(place: str, text: bytes | Exception) -> dict[str, Any] | CacheError:
    if isinstance(text, Exception):
        return CacheError(f"{place}: cannot be read ({text}); make it readable, or remove it and run again")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        return CacheError(f"{place}: not a Zarr group or array ({error}); remove it, then run again")
    if not isinstance(document, dict):
        return CacheError(f"{place}: not a Zarr group or array ({text[:40]!r}); remove it, then run again")
    return document


def _read_present(paths: Iterable[str]) -> dict[str, bytes | Exception]:
    """Read many files, several at once: on a network file system each takes a while, and most of it is waiting."""
    wanted = list(paths)
    parts = [wanted[start : start + FILES_A_THREAD] for start in range(0, len(wanted), FILES_A_THREAD)]
    if len(parts) == 1:
        return _read_some(parts[0])
    with ThreadPoolExecutor(THREADS) as pool:
        return {path: text for found in pool.map(_read_some, parts) for path, text in found.items()}


def _read_some(paths: Sequence[str]) -> dict[str, bytes | Exception]:
    found: dict[str, bytes | Exception] = {}
    for path in paths:
        try:
            with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - tens of thousands a cache
                found[path] = file.readall()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as error:
            found[path] = error
    return found


def _local_sizes(base: str) -> dict[str, int | None]:
    """List all files below a folder with their sizes, several shards at once."""
    sizes, folders = _list_folder(("", base))
    shards = [folder for folder in folders if folder[0] == f"{SHARDS}/"]
    for folder in shards:
        files, below = _list_folder(folder)
        sizes += files
        folders += below
    with ThreadPoolExecutor(THREADS) as pool:
        for files in pool.map(_list_below, (folder for folder in folders if folder not in shards)):
            sizes += files
    return dict(sizes)


def _list_below(folder: tuple[str, str]) -> list[tuple[str, int | None]]:
    sizes, waiting = [], [folder]
    while waiting:
        files, below = _list_folder(waiting.pop())
        sizes += files
        waiting += below
    return sizes


def _list_folder(folder: tuple[str, str]) -> tuple[list[tuple[str, int | None]], list[tuple[str, str]]]:
    """Return files with their sizes, and folders; both the folder and these with their path in the cache."""
    prefix, place = folder
    files: list[tuple[str, int | None]] = []
    below = []
    with os.scandir(place) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                below.append((f"{prefix}{entry.name}/", entry.path))
            else:
                found = entry.stat(follow_symlinks=False)
                files.append((prefix + entry.name, found.st_size if stat.S_ISREG(found.st_mode) else None))
    return files, below


def _remove_empty_folders(folder: Path, root: Path) -> None:
    while folder != root and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _sealed_array(group: Any, name: str, seal: GroupSeal) -> Any:
    """Return an array of a group if it is the one that was sealed."""
    array, promise = group[name], seal.arrays[name]
    if (array.shape, array.dtype.name) != (promise.shape, promise.dtype):
        raise ValueError(f"{name} is {array.dtype.name} {array.shape}, sealed as {promise.dtype} {promise.shape}")
    return array


def _write_array(group: zarr.Group, name: str, array: AnyArray, spec: ArraySpec) -> None:
    """Write one array as a single Zarr shard, so that it is one file whatever its inner chunks are."""
    inner, outer = chunk_shapes(spec, array.shape)
    target = group.create_array(
        name,
        shape=array.shape,
        dtype=array.dtype,
        chunks=inner,
        shards=outer,
        compressors=[ZstdCodec(level=1, checksum=True) if spec.compressed else Crc32cCodec()],
        filters=None,
        fill_value=0,
        dimension_names=[str(axis) for axis in spec.axes],
        config={"write_empty_chunks": True},
    )
    if array.size:
        target[...] = array

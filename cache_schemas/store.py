"""The cache: create or open it, write and seal whole groups, read sealed groups, list and remove files."""

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Self

import zarr

from cache_schemas.array_storage import METADATA, checksum, chunk_file, encode_array, encode_group
from cache_schemas.cache_files import files_at
from cache_schemas.documents import ArraySeal, CacheManifest, GroupSeal, Provenance, ShardRecord
from cache_schemas.errors import CacheError, DamagedGroupError, NoCacheError, UnsealedGroupError
from cache_schemas.file_checks import has_whole_files, wrong_size
from cache_schemas.group_path import SHARDS, GroupPath, is_folder_name, shard_path
from cache_schemas.layout import SHARD_GROUPS, AnyArray, group_spec
from cache_schemas.layout_checks import check_arrays
from cache_schemas.location import StoreError, disk_error, file_system, zarr_store
from cache_schemas.row_reader import RowReader, StoredArray, StoredRows
from cache_schemas.zarr_documents import Document, group_attributes, parse_document


class Cache:
    """A cache at a local path or an fsspec URL.

    A group is written by one task as a whole. Readers see it once its seal (the attributes of its Zarr group) is
    written.
    """

    def __init__(self, url: str, mode: Literal["r", "a"] = "r") -> None:
        """Refer to the cache at `url`; `open` and `create` also read and write its manifest."""
        self.url = url.rstrip("/")
        self._mode = mode
        self._base = file_system(self.url)[1]
        self._files = files_at(self.url)

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
        try:
            cache = cls(url, "a")
            cache._attributes([""])
        except CacheError as error:
            raise CacheError(f"{url}: cannot write the cache here ({error}); choose another cache folder") from error
        try:
            cache.write_document(SHARDS, encode_group({}))
            cache.write_document("", encode_group(manifest.to_attrs()))
        except OSError as error:
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
        return sorted(filter(is_folder_name, self._files.folder_names(SHARDS)))

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
        self.write_document(shard_path(key), encode_group(record.to_attrs()))

    def group_names(self, key: str) -> list[str]:
        """Return the names of all folders in the folder of a shard: its groups, sealed or not."""
        return sorted(filter(is_folder_name, self._files.folder_names(shard_path(key))))

    # Groups

    def seals(self, paths: Iterable[GroupPath]) -> dict[GroupPath, GroupSeal]:
        """Return the seals of those groups that are sealed, by path; all are read at once."""
        path_of = {str(path): path for path in paths}
        return {
            path_of[path]: GroupSeal.from_attrs(attrs, f"{self.url}/{path}")
            for path, attrs in self._attributes(path_of).items()
            if attrs.get("state") == "sealed"
        }

    def whole_seals(self, paths: Iterable[GroupPath]) -> dict[GroupPath, GroupSeal]:
        """Return the seals of those sealed groups whose files have the sizes in their seals, by path.

        A loss of power can leave files empty on a disk that does not keep what it was told to keep.
        """
        seals = self.seals(paths)
        sizes = self._files.sizes({shard_path(path.shard) if path.shard else path.name for path in seals})
        return {path: seal for path, seal in seals.items() if has_whole_files(path, seal, sizes)}

    def shard_seals(self, key: str) -> dict[str, GroupSeal]:
        """Return the seals of one shard's sealed groups, by group name."""
        return {path.name: seal for path, seal in self.seals(GroupPath(key, name) for name in SHARD_GROUPS).items()}

    def write_group(self, path: GroupPath, arrays: Mapping[str, AnyArray], provenance: Provenance) -> GroupSeal:
        """Write a whole group and seal it; an older group at this path is removed first.

        On a local path, all of it is on the disk before the seal is, so a loss of power leaves no seal over files that
        were not written.

        Raises:
            LayoutError: if the arrays break the contract; nothing is changed then.
            CacheError: if a link is on the way to it.
            OSError: if it cannot be written; the group is unsealed then.
        """
        check_arrays(path, dict(arrays))
        self._check_writable(str(path))
        self._files.start_group(str(path), encode_group({}))
        sealed = {name: self._write_array(path, name, array) for name, array in arrays.items()}
        seal = GroupSeal.of(provenance, sealed)
        self._files.sync_below(str(path))
        self._files.put({f"{path}/{METADATA}": encode_group(seal.to_attrs())})
        self._files.sync_way_to(str(path))
        return seal

    def _write_array(self, path: GroupPath, name: str, array: AnyArray) -> ArraySeal:
        """Write the files of one array; returns what the seal of its group says of it."""
        files = encode_array(array, group_spec(path).arrays[name])
        self._files.put({f"{path}/{name}/{file}": content for file, content in files.items()})
        stored = len(files.get(chunk_file(array.ndim), b""))
        return ArraySeal(shape=array.shape, dtype=array.dtype.name, crc32c=checksum(array), bytes=stored)

    def arrays(self, path: GroupPath, *names: str) -> dict[str, Any]:
        """Return Zarr arrays of a sealed group (those named, or all), by name, without reading their values.

        Raises:
            UnsealedGroupError: if the group is absent or not sealed.
            DamagedGroupError: if an array is absent or is not the one that was sealed.
        """
        seal = self._seal(path)
        wanted = names or tuple(seal.arrays)
        self.documents(f"{path}/{name}" for name in wanted)  # Zarr reads a document of any size
        try:
            group = zarr.open_group(zarr_store(self.url), path=str(path), mode="r", use_consolidated=False)
            return {name: _sealed_array(group, name, seal) for name in wanted}
        except StoreError:
            raise
        except OSError as error:
            raise disk_error(f"{self.url}/{path}", error) from error
        except Exception as error:
            raise self._damaged(path, error) from error

    def rows(self, path: GroupPath, name: str) -> StoredRows:
        """Return an array of a sealed group whose rows are read when they are taken from it.

        Raises:
            UnsealedGroupError: if the group is absent or not sealed.
            DamagedGroupError: if the array is not the one that was sealed, or smaller than its shape needs.
            StoreError: if it cannot be read.
        """
        reader = RowReader(self.url)
        return StoredRows(reader, self._locate(reader, path, [name])[name])

    def read(self, path: GroupPath, *names: str) -> dict[str, AnyArray]:
        """Return the values of a sealed group's arrays (those named, or all), by name.

        The sizes in the documents are checked against the size of the file before memory is allocated.

        Raises:
            UnsealedGroupError: if the group is absent or not sealed.
            DamagedGroupError: if its bytes were read and are not those of its arrays.
            StoreError: if they cannot be read.
            MemoryError: if there is not enough memory for the values.
        """
        reader = RowReader(self.url)
        return {name: StoredRows(reader, array)[:] for name, array in self._locate(reader, path, names).items()}

    def copy_group(self, path: GroupPath, seal: GroupSeal, source: "Cache") -> None:
        """Copy a group of another cache, where it has this seal; the files come first and the seal last.

        Raises:
            OSError: if it cannot be written; the group is unsealed then.
        """
        self.remove_group(path)
        for name, sealed in seal.arrays.items():
            self._files.take(f"{path}/{name}/{METADATA}", source._files)
            if 0 not in sealed.shape:
                self._files.take(f"{path}/{name}/{chunk_file(len(sealed.shape))}", source._files)
        self._files.sync_below(str(path))
        self.write_document(str(path), source._files.content(f"{path}/{METADATA}"))
        self._files.sync_way_to(str(path))

    def remove_group(self, path: GroupPath) -> None:
        """Remove a group if it exists, its seal first."""
        self.remove_folder(str(path))

    # Files

    def stored_bytes(self, path: GroupPath) -> dict[str, int]:
        """Return the bytes on disk of each array of a group, by name."""
        sizes: dict[str, int] = {}
        for file, size in self._files.sizes([str(path)]).items():
            name, _, rest = file.removeprefix(f"{path}/").partition("/")
            if rest and size:
                sizes[name] = sizes.get(name, 0) + size
        return sizes

    def top_names(self) -> list[str]:
        """Return the names of all files and folders at the top of the cache; none if there is nothing."""
        return self._files.top_names()

    def file_sizes(self) -> dict[str, int | None]:
        """Return the bytes of all files by their path in the cache; None for special files.

        Raises:
            CacheError: if there is a link among them.
            StoreError: if a folder cannot be read.
        """
        return self._files.sizes()

    def documents(self, paths: Iterable[str]) -> dict[str, Document]:
        """Return the `zarr.json` of many Zarr groups or arrays, by their path in the cache; all are read at once.

        Absent ones are left out. If one is not a JSON object, its value is the error.

        Raises:
            CacheError: if one is a link.
            StoreError: if one cannot be read.
        """
        files = {posixpath.join(path, METADATA): path for path in paths}
        texts = self._files.texts(list(files))
        return {files[file]: parse_document(f"{self._base}/{file}", text) for file, text in texts.items()}

    def write_document(self, path: str, text: bytes) -> None:
        """Write or replace the `zarr.json` of a Zarr group or array, or of the cache itself (""), as one write."""
        self._check_writable(path)
        self._files.put({posixpath.join(path, METADATA): text})

    def restore_shards_node(self) -> None:
        """Replace the `zarr.json` of the Zarr group `shards`, which has no attributes."""
        self.remove_file(f"{SHARDS}/{METADATA}")
        self.write_document(SHARDS, encode_group({}))

    def remove_folder(self, path: str) -> None:
        """Remove a folder of the cache if it exists, its `zarr.json` first."""
        self._check_writable(path)
        self._files.remove_folder(path, f"{path}/{METADATA}")

    def remove_file(self, path: str) -> None:
        """Remove a file of the cache if it exists, and the folders that are empty then."""
        self._check_writable(path)
        self._files.remove(path)
        self._files.remove_empty_folders(posixpath.dirname(path))

    def _check_writable(self, path: str) -> None:
        if self._mode == "r":
            raise CacheError(f"{self.url}: opened for reading; open it with mode 'a' to write")
        self._files.refuse_links(path)

    def _seal(self, path: GroupPath) -> GroupSeal:
        seal = self.seals([path]).get(path)
        if seal is None:
            raise UnsealedGroupError(
                f"{self.url}/{path}: not sealed; the run that writes it did not finish, rerun `labelgen run`"
            )
        return seal

    def _attributes(self, paths: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return the attributes of those Zarr groups that exist, by path."""
        return {
            path: group_attributes(document, f"{self.url}/{path}") for path, document in self.documents(paths).items()
        }

    def _locate(self, reader: RowReader, path: GroupPath, names: Sequence[str]) -> dict[str, StoredArray]:
        """Find arrays of a sealed group (those named, or all); their files are large enough for them."""
        seal = self._seal(path)
        wanted = names or tuple(seal.arrays)
        for name in wanted:
            if name not in seal.arrays:
                raise self._damaged(path, KeyError(f"the seal does not list {name}"))
            self._check_size(path, name, seal.arrays[name])
        return dict(zip(wanted, reader.locate({path: seal}, {path: wanted}).values(), strict=True))

    def _check_size(self, path: GroupPath, name: str, sealed: ArraySeal) -> None:
        """Check the size of the file of an array.

        Raises:
            DamagedGroupError: if it is wrong.
        """
        if 0 in sealed.shape:
            return
        try:
            size = self._files.size(f"{path}/{name}/{chunk_file(len(sealed.shape))}")
            if wrong := wrong_size(size, group_spec(path).arrays[name], sealed):
                raise ValueError(f"{name} has {wrong}")
        except (FileNotFoundError, ValueError) as error:
            raise self._damaged(path, error) from error

    def _damaged(self, path: GroupPath, error: Exception) -> DamagedGroupError:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return DamagedGroupError(
            f"{self.url}/{path}: damaged ({reason}); remove this folder, then rerun the same `labelgen run`; "
            "`labelgen verify` lists all damage"
        )


def _sealed_array(group: Any, name: str, seal: GroupSeal) -> Any:
    """Return an array of a Zarr group if its shape and dtype are those in the seal."""
    array, sealed = group[name], seal.arrays[name]
    if (array.shape, array.dtype.name) != (sealed.shape, sealed.dtype):
        raise ValueError(f"{name} is {array.dtype.name} {array.shape}, sealed as {sealed.dtype} {sealed.shape}")
    return array

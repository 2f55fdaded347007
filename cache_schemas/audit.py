"""Finds what is wrong with a cache from its documents and the sizes of its files, without reading array values."""

from collections.abc import Iterable, Iterator, Mapping

from cache_schemas.array_storage import METADATA
from cache_schemas.audit_arrays import audit_arrays
from cache_schemas.audit_consistency import audit_axes, audit_origins, audit_record
from cache_schemas.audit_files import (
    FileSizes,
    disappeared,
    files_by_group,
    is_of_a_cache,
    sources_by_shard,
    stray_files,
)
from cache_schemas.audit_part import Part, finding
from cache_schemas.documents import CacheManifest, GroupSeal, ShardRecord
from cache_schemas.errors import CacheError
from cache_schemas.group_path import SHARDS, GroupPath, is_folder_name, shard_path
from cache_schemas.layout import ROOT_GROUPS, SHARD_GROUPS, group_spec
from cache_schemas.problems import ProblemKind
from cache_schemas.store import Cache
from cache_schemas.zarr_documents import Document, Documents, group_attributes

SHARDS_PER_READ = 128
"""The documents of so many shards are read at once, which bounds the memory that they take."""


def audit(cache: Cache, manifest: CacheManifest, *, array_metadata: bool = True) -> Iterator[Part]:
    """Yield the root groups, then every shard, each with its documents and problems.

    Documents are compared with the contract, with one another, and with the sizes of the files. Only wrong values and
    checksums are not found; `validate` reads values. Without `array_metadata`, the metadata of arrays is not read,
    which is most of the documents: readers that take it from the contract do not need it.

    Raises:
        CacheError: if there is a link in the cache.
        StoreError: if a file or folder cannot be read, or disappears.
    """
    sizes = cache.file_sizes()
    files = files_by_group(sizes)
    root = _audit_root(cache, manifest, files, sizes, array_metadata)
    for path, reason in stray_files(sizes):
        root.add(ProblemKind.STRAY_FILE if is_of_a_cache(path) else ProblemKind.UNRELATED_FILE, path, reason)
    yield root
    known_sizes = {"C": len(manifest.taxonomy.classes)}
    text = root.readable.get(GroupPath.root("text"))
    if text is not None and "embeddings" in text.arrays:
        known_sizes["D"] = text.arrays["embeddings"].shape[-1]
    keys = cache.shard_keys()
    listed = {path.split("/")[1] for path in files if path.startswith(f"{SHARDS}/")}
    if lost := set(filter(is_folder_name, listed)) - set(keys):
        raise disappeared(shard_path(min(lost)))
    shard_of_sample: dict[str, str] = {}
    for start in range(0, len(keys), SHARDS_PER_READ):
        parts = _read_shards(cache, manifest, keys[start : start + SHARDS_PER_READ], files, sizes)
        audit_arrays(parts, cache, manifest, files, metadata=array_metadata)
        for part in parts:
            audit_record(part, manifest, shard_of_sample)
            audit_axes(part, known_sizes | part.axis_sizes)
            audit_origins(part, manifest, root.own_seals | part.own_seals)
            yield part


def _audit_root(
    cache: Cache, manifest: CacheManifest, files: Mapping[str, FileSizes], sizes: FileSizes, array_metadata: bool
) -> Part:
    root = Part("")
    documents = _read_documents(cache, [SHARDS, *ROOT_GROUPS], sizes)
    try:
        group_attributes(documents.get(SHARDS, CacheError("there is no zarr.json; write it")), SHARDS)
    except CacheError as error:
        root.add(ProblemKind.DAMAGED_DOCUMENT, SHARDS, finding(error, SHARDS))
    for name, spec in ROOT_GROUPS.items():
        _read_seal(root, GroupPath.root(name), documents.get(name), name in files, required=not spec.optional)
    audit_arrays([root], cache, manifest, files, metadata=array_metadata)
    audit_axes(root, {"C": len(manifest.taxonomy.classes)})
    audit_origins(root, manifest, root.own_seals)
    return root


def _read_shards(
    cache: Cache, manifest: CacheManifest, keys: list[str], files: Mapping[str, FileSizes], sizes: FileSizes
) -> list[Part]:
    """Return some shards with their documents; the problems are those of each document by itself."""
    parts = [Part(key) for key in keys]
    sources = sources_by_shard(files)
    names = {key: [*SHARD_GROUPS, *sources.get(key, [])] for key in keys}
    paths = [str(GroupPath(key, name)) for key in keys for name in names[key]]
    documents = _read_documents(cache, [*map(shard_path, keys), *(path for path in paths if path in files)], sizes)
    for part in parts:
        _read_record(part, documents.get(shard_path(part.key)))
        for name in names[part.key]:
            path = GroupPath(part.key, name)
            if part.record and not part.record.samples:
                if str(path) in files:
                    part.add(ProblemKind.FOREIGN_GROUP, path, "its shard holds no sample, and therefore no group")
            elif group_spec(path).of_points and "point" not in manifest.modalities:
                if str(path) in files:
                    part.add(ProblemKind.FOREIGN_GROUP, path, "the samples of the cache have no points")
            else:
                required = part.record is not None and not group_spec(path).optional
                _read_seal(part, path, documents.get(str(path)), str(path) in files, required)
    return parts


def _read_record(part: Part, document: Document | None) -> None:
    path = shard_path(part.key)
    try:
        attributes = {} if document is None else group_attributes(document, path)
        if attributes:
            part.record = ShardRecord.from_attrs(attributes, path)
        else:
            part.add(ProblemKind.MISSING_RECORD, path, "the shard has no record of its samples")
    except CacheError as error:
        part.add(ProblemKind.DAMAGED_DOCUMENT, path, finding(error, path))


def _read_documents(cache: Cache, paths: Iterable[str], sizes: FileSizes) -> Documents:
    """Return the documents of Zarr groups, of which those in the list of files must still be there.

    Raises:
        StoreError: if one disappeared.
    """
    wanted = list(paths)
    documents = cache.documents(wanted)
    for path in wanted:
        if path not in documents and f"{path}/{METADATA}" in sizes:
            raise disappeared(f"{path}/{METADATA}")
    return documents


def _read_seal(part: Part, path: GroupPath, document: Document | None, has_files: bool, required: bool) -> None:
    try:
        attributes = {} if document is None else group_attributes(document, str(path))
        if attributes.get("state") == "sealed":
            part.seals[path] = GroupSeal.from_attrs(attributes, str(path))
        elif has_files:
            part.add(ProblemKind.UNSEALED_GROUP, path, "not sealed: the run that wrote it did not finish")
        elif required:
            part.add(ProblemKind.UNSEALED_GROUP, path, "not sealed: the group is absent")
    except CacheError as error:
        part.add(ProblemKind.DAMAGED_DOCUMENT, path, finding(error, str(path)))

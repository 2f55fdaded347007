"""Sorts the files of a cache into its groups, and finds those that are not part of the cache format."""

from collections.abc import Iterable, Iterator, Mapping

from cache_schemas.array_storage import METADATA, chunk_file
from cache_schemas.durable_store import PARTIAL
from cache_schemas.group_path import CARD, LOCKS, NO_FOLDER_NAMES, SHARDS, SUMMARY
from cache_schemas.layout import ROOT_GROUPS, shard_group, source_name
from cache_schemas.location import StoreError

FileSizes = Mapping[str, int | None]
"""The bytes of files, by path; None for special files."""


def files_by_group(sizes: FileSizes) -> dict[str, dict[str, int | None]]:
    """Return the files of each group: their sizes by path inside the group, by the path of the group."""
    groups: dict[str, dict[str, int | None]] = {}
    for path, size in sizes.items():
        steps = path.split("/")
        depth = 1 if steps[0] in ROOT_GROUPS else 3
        if len(steps) > depth:
            groups.setdefault("/".join(steps[:depth]), {})["/".join(steps[depth:])] = size
    return groups


def sources_by_shard(groups: Iterable[str]) -> dict[str, list[str]]:
    """Return the names of the groups of imported labels of each shard; `groups` are the paths of all groups."""
    sources: dict[str, list[str]] = {}
    for path in groups:
        match path.split("/"):
            case [folder, shard, name] if folder == SHARDS and source_name(name):
                sources.setdefault(shard, []).append(name)
    return sources


def is_of_a_cache(path: str) -> bool:
    """Return whether a path, or the name of a folder, is one that a cache or a run that was killed can have made."""
    first, *_ = path.split("/")
    return first in (METADATA, SHARDS, *ROOT_GROUPS, *LOCKS, SUMMARY) or path.endswith(PARTIAL)


def disappeared(path: str) -> StoreError:
    """Return the error of a file that was listed and is gone: its disk went away, or a run replaced it."""
    return StoreError(
        f"{path}: disappeared while the cache was read; check the disk and the mount, wait for a run that writes this "
        "cache to end, then run the same command again"
    )


def stray_files(sizes: FileSizes) -> Iterator[tuple[str, str]]:
    """Yield the files that the cache format does not have, such as half-written ones of a killed run, and the reason.

    A folder in a group that is not an array of the contract is left out: it is an unknown array, or part of an unsealed
    group.
    """
    for path, size in sorted(sizes.items()):
        if size is None:
            yield path, "a special file"
        elif not _is_expected(path.split("/")):
            yield path, "not part of the cache format"


def _is_expected(steps: list[str]) -> bool:
    if not NO_FOLDER_NAMES.isdisjoint(steps):  # object stores allow such names
        return False
    root = ROOT_GROUPS.get(steps[0])
    if root is None and steps[0] != SHARDS:
        return steps == [METADATA] or (len(steps) == 1 and steps[0] in (*LOCKS, SUMMARY, *CARD))
    within = steps[1:] if root else steps[3:]
    if not within:
        return steps[-1] == METADATA
    group = root or shard_group(steps[2])
    if group is None or within == [METADATA]:
        return group is not None
    spec = group.arrays.get(within[0])
    return len(within) > 1 and (spec is None or "/".join(within[1:]) in (METADATA, chunk_file(len(spec.axes))))

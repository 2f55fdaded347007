"""Removes what is damaged in a cache, and nothing else, so that the next run redoes only that."""

from collections.abc import Iterable

from cache_schemas.array_storage import METADATA
from cache_schemas.group_path import SHARDS
from cache_schemas.layout import shard_group
from cache_schemas.problems import Problem, ProblemKind
from cache_schemas.store import Cache


def repair(cache: Cache, problems: Iterable[Problem]) -> list[str]:
    """Remove what `validate` found to be damaged; returns the removed paths, each once.

    Unknown arrays and stray files are removed alone. For any other problem of a group, the group is removed as a whole,
    its seal first; a group that was never sealed loses all its files. Of a shard with a damaged or missing record, only
    the record is removed: the next run keeps the groups that fit. A shard of another run is removed as a whole. Files
    that no cache has at its top are left: they may be a user's own. The caller holds `run_lock`.

    Raises:
        CacheError: if the cache is open for reading only.
        OSError: if something cannot be removed.
    """
    removed: dict[str, None] = {}
    for problem in problems:
        if problem.kind is ProblemKind.UNRELATED_FILE:
            continue
        path = _path_to_remove(problem)
        if path in removed:
            continue
        removed[path] = None
        if path == f"{SHARDS}/{METADATA}":
            cache.restore_shards_node()
        elif problem.kind is ProblemKind.STRAY_FILE or path.endswith(METADATA):
            cache.remove_file(path)
        else:
            cache.remove_folder(path)
    return list(removed)


def _path_to_remove(problem: Problem) -> str:
    if problem.kind in (ProblemKind.STRAY_FILE, ProblemKind.UNKNOWN_ARRAY, ProblemKind.FOREIGN_SHARD):
        return problem.path
    steps = problem.path.split("/")
    if steps[0] != SHARDS:
        return steps[0]
    if len(steps) > 2 and shard_group(steps[2]):
        return "/".join(steps[:3])
    return f"{problem.path}/{METADATA}"

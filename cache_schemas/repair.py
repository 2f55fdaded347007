"""Drop what is bad in a cache, and nothing else, so that the next run redoes just that."""

from collections.abc import Iterable

from cache_schemas.group_path import SHARDS
from cache_schemas.layout import SHARD_GROUPS
from cache_schemas.problems import Problem, ProblemKind
from cache_schemas.store import Cache


def repair(cache: Cache, problems: Iterable[Problem]) -> list[str]:
    """Remove what `validate` found to be bad; returns the paths removed, each once.

    Of a group that is bad in any way, all goes, its seal first; of a shard without a sound record, that alone: its
    groups are kept if the next run finds that they fit. Groups that were never sealed leave their remains. A shard of
    another run goes as a whole, and an array or file that nobody knows goes alone. Hold `run_lock` meanwhile.

    Raises:
        CacheError: if the cache is open for reading only.
        OSError: if something cannot be removed.
    """
    removed: dict[str, None] = {}
    for problem in problems:
        path = _what_goes(problem)
        if path in removed:
            continue
        removed[path] = None
        if path == f"{SHARDS}/zarr.json":
            cache.restore_shards_node()
        elif problem.kind is ProblemKind.STRAY_FILE or path.endswith("zarr.json"):
            cache.remove_file(path)
        else:
            cache.remove_folder(path)
    return list(removed)


def _what_goes(problem: Problem) -> str:
    if problem.kind in (ProblemKind.STRAY_FILE, ProblemKind.UNKNOWN_ARRAY, ProblemKind.FOREIGN_SHARD):
        return problem.path
    steps = problem.path.split("/")
    if steps[0] != SHARDS:
        return steps[0]
    if len(steps) > 2 and steps[2] in SHARD_GROUPS:
        return "/".join(steps[:3])
    return f"{problem.path}/zarr.json"

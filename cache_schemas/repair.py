"""Drop what is bad in a cache, and nothing else, so that the next run redoes just that."""

from collections.abc import Iterable

from cache_schemas.layout import SHARD_GROUPS
from cache_schemas.store import Cache
from cache_schemas.validate import Problem, ProblemKind


def repair(cache: Cache, problems: Iterable[Problem]) -> list[str]:
    """Remove what `validate` found to be bad; returns the paths removed, each once.

    Of a group that is bad in any way, all goes, its seal first; of a shard without a sound record, that alone: its
    groups are kept if the next run finds that they fit. Groups that were never sealed leave their remains. Hold
    `run_lock` meanwhile.

    Raises:
        CacheError: if the cache is open for reading only.
        OSError: if something cannot be removed.
    """
    removed: dict[str, None] = {}
    for problem in problems:
        path = _what_goes(problem)
        if path not in removed:
            removed[path] = None
            if problem.kind is ProblemKind.STRAY_FILE or path.endswith("zarr.json"):
                cache.remove_file(path)
            else:
                cache.remove_group(path)
    return list(removed)


def _what_goes(problem: Problem) -> str:
    if problem.kind is ProblemKind.STRAY_FILE:
        return problem.path
    steps = problem.path.split("/")
    if steps[0] != "shards":
        return steps[0]
    if len(steps) > 2 and steps[2] in SHARD_GROUPS:
        return "/".join(steps[:3])
    return f"{problem.path}/zarr.json"

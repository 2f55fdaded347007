"""What killed runs leave in a cache folder besides unsealed groups."""

from pathlib import Path

from cache_schemas.durable_store import PARTIAL
from cache_schemas.errors import CacheError
from cache_schemas.group_path import SHARDS
from cache_schemas.location import canonical, is_url
from cache_schemas.store import Cache


def sweep_half_written(url: str) -> None:
    """Remove documents that a killed run wrote only in part; those inside groups go when the group is redone.

    A local document is written beside its final place and then moved there. Object stores have no half-written objects.

    Raises:
        CacheError: if one cannot be removed, or there is a link in the cache, through which the run would write
            elsewhere.
    """
    if is_url(url):
        return
    for file in Cache(url).file_sizes():
        if file.endswith(PARTIAL) and _is_outside_groups(file):
            path = Path(canonical(url), file)
            try:
                path.unlink()
            except OSError as error:
                raise CacheError(
                    f"{path}: cannot remove what a killed run left ({error.strerror}); make it writable"
                ) from error


def _is_outside_groups(file: str) -> bool:
    """Return whether a file is at the top of the cache, in `shards`, or in the folder of a shard."""
    steps = file.split("/")
    return len(steps) == 1 or (steps[0] == SHARDS and len(steps) <= 3)

"""What killed runs leave in a cache folder besides unsealed groups."""

from pathlib import Path

from cache_schemas.errors import CacheError
from cache_schemas.location import is_url


def sweep_half_written(url: str) -> None:
    """Remove documents that a killed run wrote only in part; those inside groups go when the group is redone.

    Zarr writes a local document beside its final place and then moves it there. Object stores have no half-written
    objects.

    Raises:
        CacheError: if one cannot be removed.
    """
    if is_url(url):
        return
    for pattern in ("*.partial", "shards/*.partial", "shards/*/*.partial"):
        for path in Path(url).glob(pattern):
            try:
                path.unlink()
            except OSError as error:
                raise CacheError(
                    f"{path}: cannot remove what a killed run left ({error.strerror}); make it writable"
                ) from error

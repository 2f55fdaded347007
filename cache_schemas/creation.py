"""Create a cache at a place where nothing else is."""

from cache_schemas.audit_files import is_of_a_cache
from cache_schemas.documents import CacheManifest
from cache_schemas.errors import CacheError
from cache_schemas.store import Cache


def create_new(url: str, manifest: CacheManifest) -> Cache:
    """Return a new, writable cache. Other files beside it would be called problems by `labelgen verify`.

    Raises:
        CacheError: if there are other files; it names the first of them.
    """
    unrelated = sorted(path for path in Cache(url).top_names() if not is_of_a_cache(path))
    if unrelated:
        raise CacheError(
            f"{url}: not a cache, and not empty (it holds {unrelated[0]!r}); give a new folder for the cache"
        )
    return Cache.create(url, manifest)

"""Where a cache is: a local path, or the URL of an object store."""

from typing import Any

from fsspec.core import url_to_fs

from cache_schemas.errors import CacheError


def is_url(cache: str) -> bool:
    """Tell an object-store URL from a local path."""
    return "://" in cache


def file_system(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL or path, and the path in it.

    Raises:
        CacheError: if the URL's protocol is unknown or its fsspec package is not installed.
    """
    try:
        fs, path = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise CacheError(f"{url}: {error}; install the fsspec package of this protocol, or give a folder") from None
    return fs, str(path)

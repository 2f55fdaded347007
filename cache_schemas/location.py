"""The location of a cache: a local folder, a local file (a packed cache), or the URL of an object store.

The failures of an object store or of a disk become `StoreError`, so that they are never taken for damage of the cache.
"""

import errno
import os
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from inspect import isawaitable
from pathlib import Path
from typing import Any

from fsspec.config import conf as fsspec_settings
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from zarr.abc.store import Store
from zarr.storage import FsspecStore, LocalStore, ZipStore

from cache_schemas.errors import CacheError

NO_LISTINGS_CACHE = {"use_listings_cache": False}
"""Disable the listing cache: other processes write to the same cache."""

S3_OPTIONS: dict[str, Any] = {
    "max_concurrency": 1,
    "config_kwargs": {"max_pool_connections": 128} | fsspec_settings.get("s3", {}).get("config_kwargs", {}),
}
"""Read each object with one request. With more, s3fs first asks for the size and reads a large object in parts, and it
does not retry a part whose body breaks off. Up to 128 requests are under way at once; botocore's default is 10, so that
the reads of a training step would wait for the latency of the store ten times."""


LOCAL_PROTOCOLS = ("file://", "local://")
ARCHIVES = ("zip", "tar", "libarchive")
"""Protocols of archives. A cache in an archive cannot be written, and a lock in it cannot be held."""

CANNOT = NotImplementedError | TypeError | AttributeError
"""What packages of protocols raise for what they cannot do, or for options that they do not know."""

ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
"""Errors which say for certain that there is no file of that name."""


class StoreError(CacheError):
    """A request to an object store or a disk failed, which says nothing about the content of the cache there."""


def is_url(location: str) -> bool:
    """Return whether the location is the URL of an object store, and not a local path or a `file://` URL."""
    return "://" in location and not location.startswith(LOCAL_PROTOCOLS)


def is_packed(location: str) -> bool:
    """Return whether the location is a file, which stands for a packed cache; false for folders and URLs."""
    return not is_url(location) and Path(_local_path(location)).is_file()


def canonical(location: str) -> str:
    """Return the one spelling of a location: an absolute path without links, or a URL without a slash at its end."""
    if is_url(location):
        protocol, _, path = location.rstrip("/").partition("://")
        return f"{'s3' if protocol == 's3a' else protocol}://{path}"
    return os.path.realpath(_local_path(location))


def file_system(location: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL or path, and the path in it; that of a URL raises `StoreError`.

    Raises:
        CacheError: if the URL's protocol is unknown, cannot hold a cache, or its fsspec package is not installed.
    """
    if not is_url(location):
        return LocalFileSystem(), os.path.realpath(_local_path(location))
    fs, path = _open_url(location)
    return _StoreErrors(fs, location), path


def zarr_store(location: str) -> Store:
    """Return a store from which Zarr can read; that of a URL raises `StoreError`."""
    if not is_url(location):
        path = canonical(location)
        return ZipStore(path, mode="r") if is_packed(path) else LocalStore(path, read_only=True)
    _open_url(location)
    store = FsspecStore.from_url(location, storage_options=_options(location))
    return FsspecStore(_StoreErrors(store.fs, location), path=store.path)


def disk_error(path: str | Path, error: OSError) -> StoreError:
    """Return the error of a local file or folder that cannot be read, which is no damage."""
    reason = error.strerror or str(error)
    return StoreError(
        f"{path}: cannot be read ({reason}), which says nothing about its content; check its permissions, the disk and "
        "the mount, then run the same command again"
    )


def _local_path(location: str) -> str:
    for protocol in LOCAL_PROTOCOLS:
        if location.startswith(protocol):
            return "/" + location.removeprefix(protocol).lstrip("/")
    return location


def _open_url(location: str) -> tuple[Any, str]:
    protocol = location.partition("://")[0]
    if not protocol:
        raise CacheError(f"{location}: the URL names no protocol; give one such as s3://, or a folder")
    if "::" in location or protocol in ARCHIVES:
        raise CacheError(
            f"{location}: a cache cannot be in an archive or behind another URL; give a file that `labelgen pack` "
            "made, or unpack the archive into a folder"
        )
    try:
        fs, path = url_to_fs(location, **_options(location))
    except Exception as error:  # whatever the package of a protocol raises for a URL that it does not understand
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CacheError(
            f"{location}: {reason}; install the fsspec package of this protocol, or give a folder"
        ) from None
    return fs, str(path)


def _options(location: str) -> dict[str, Any]:
    return NO_LISTINGS_CACHE | S3_OPTIONS if location.startswith(("s3://", "s3a://")) else NO_LISTINGS_CACHE


class _StoreErrors:
    """Wraps an fsspec file system: failures of the store are raised as `StoreError`, all else is passed through.

    The answer that an object does not exist is not a failure.
    """

    def __init__(self, fs: Any, url: str) -> None:
        self._fs, self._url = fs, url

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # pickle looks up such names before `_fs` exists
            raise AttributeError(name)
        attribute = getattr(self._fs, name)
        return self._wrap(attribute) if callable(attribute) else attribute

    def remove(self, path: str, *, first: str = "", keep: str = "") -> None:
        """Remove the object `path` and those below it but for `keep`, and check that they are gone.

        Each is removed by its name: `fs.rm` would take `*`, `?` and `[` in a name for a pattern of other names. Some
        stores report success for objects that they kept.
        """
        names = [name for name in self._wrap(self._fs.find)(path) if name != keep]
        for name in sorted(names, key=lambda name: name != first):
            self._wrap(self._fs.rm_file)(name)
        if not names:
            return
        if left := [name for name in self._wrap(self._fs.find)(path) if name != keep]:
            raise StoreError(f"{self._url}: the store did not remove {left[0]}; check that the credentials may delete")

    def _wrap(self, method: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            with _as_store_errors(self._url):
                result = method(*args, **kwargs)
                return self._await(result) if isawaitable(result) else _raise_returned_failure(result)

        return call

    async def _await(self, result: Awaitable[Any]) -> Any:
        with _as_store_errors(self._url):
            return _raise_returned_failure(await result)


def _raise_returned_failure(result: Any) -> Any:
    """Return the result of a call; raise a failure among many results, as `on_error="return"` gives them."""
    for part in result.values() if isinstance(result, dict) else result if isinstance(result, list) else ():
        if isinstance(part, Exception) and _is_store_failure(part):
            raise part
    return result


@contextmanager
def _as_store_errors(url: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not _is_store_failure(error):
            raise
        raise StoreError(_failure_message(url, error)) from error


def _is_store_failure(error: Exception) -> bool:
    """Return False for the answers that an object does not exist, or is shorter than the requested range."""
    if isinstance(error, FileNotFoundError):
        return _bucket_is_missing(error)
    if isinstance(error, IsADirectoryError | NotADirectoryError | StoreError) or "not satisfiable" in str(error):
        return False
    return (
        isinstance(error, OSError | NotImplementedError | TypeError | AttributeError)
        or type(error).__module__ != "builtins"
    )


def _bucket_is_missing(error: Exception) -> bool:
    return type(error.__cause__).__name__ == "NoSuchBucket"


def _failure_message(url: str, error: Exception) -> str:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    if _bucket_is_missing(error):
        return f"{url}: {reason}; create the bucket, or correct the URL"
    if "Credentials" in type(error).__name__:
        return f"{url}: {reason}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or what this store asks for"
    if isinstance(error, PermissionError):
        return (
            f"{url}: the store refuses access ({reason}); check the credentials: they must be allowed to list, read, "
            "write and delete there"
        )
    return (
        f"{url}: the store fails ({reason}); check that it is running and that its endpoint is correct, then rerun the "
        "same command: sealed groups are kept"
    )

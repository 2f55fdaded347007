"""Where a cache is: a local path, or the URL of an object store, whose own failures are told from the cache's."""

from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from inspect import isawaitable
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs
from zarr.storage import FsspecStore

from cache_schemas.errors import CacheError

FRESH = {"use_listings_cache": False}
"""Other processes write the same cache, so nothing is believed because it was listed before."""

S3 = {"max_concurrency": 1}
"""Read an object by one request: s3fs would ask for its size first, and read a large one in parts, whose bodies it does
not ask for again when they break off."""


class StoreError(CacheError):
    """An object store did not do as asked, which says nothing about the cache in it."""


def is_url(cache: str) -> bool:
    """Tell an object-store URL from a local path."""
    return "://" in cache


def file_system(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL or path, and the path in it; that of a URL raises `StoreError`.

    Raises:
        CacheError: if the URL's protocol is unknown or its fsspec package is not installed.
    """
    try:
        fs, path = url_to_fs(url, **_options(url))
    except (ImportError, ValueError) as error:
        raise CacheError(f"{url}: {error}; install the fsspec package of this protocol, or give a folder") from None
    return (_Asked(fs, url) if is_url(url) else fs), str(path)


def zarr_store(url: str) -> FsspecStore | str:
    """Return what Zarr can open a cache by; for a URL, a store that raises `StoreError`."""
    if not is_url(url):
        return str(Path(url).resolve())  # Zarr cannot make a folder through a link to where none is yet
    store = FsspecStore.from_url(url, storage_options=_options(url))
    return FsspecStore(_Asked(store.fs, url), path=store.path)


def _options(url: str) -> dict[str, Any]:
    if not is_url(url):
        return {}
    return FRESH | S3 if url.startswith(("s3://", "s3a://")) else FRESH


class _Asked:
    """A file system that raises the store's failures as `StoreError`; what it says of an object stays as it is."""

    def __init__(self, fs: Any, url: str) -> None:
        self._fs, self._url = fs, url

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # of this object itself, which pickle asks for before there is any `_fs`
            raise AttributeError(name)
        found = getattr(self._fs, name)
        return self._ask(found) if callable(found) else found

    def rm(self, path: str, recursive: bool = False) -> None:
        """Remove, and make sure: s3fs keeps silent about objects that the store did not remove."""
        self._ask(self._fs.rm)(path, recursive=recursive)
        if left := self._ask(self._fs.find)(path):
            raise StoreError(f"{self._url}: the store did not remove {left[0]}; check that the credentials may delete")

    def _ask(self, method: Any) -> Any:
        def ask(*args: Any, **kwargs: Any) -> Any:
            with _failures_told(self._url):
                answer = method(*args, **kwargs)
                return self._await(answer) if isawaitable(answer) else _settled(answer)

        return ask

    async def _await(self, answer: Awaitable[Any]) -> Any:
        with _failures_told(self._url):
            return _settled(await answer)


def _settled(answer: Any) -> Any:
    """Raise a failure that is one of many answers, as calls with `on_error="return"` give."""
    for part in answer.values() if isinstance(answer, dict) else answer if isinstance(answer, list) else ():
        if isinstance(part, Exception) and _is_of_store(part):
            raise part
    return answer


@contextmanager
def _failures_told(url: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not _is_of_store(error):
            raise
        raise StoreError(_sentence(url, error)) from error


def _is_of_store(error: Exception) -> bool:
    """Tell a store's failure from its answer that an object is absent, or shorter than the range asked for."""
    if isinstance(error, FileNotFoundError):
        return _lacks_bucket(error)
    if isinstance(error, IsADirectoryError | NotADirectoryError | StoreError) or "not satisfiable" in str(error):
        return False
    return isinstance(error, OSError) or type(error).__module__ != "builtins"


def _lacks_bucket(error: Exception) -> bool:
    return type(error.__cause__).__name__ == "NoSuchBucket"


def _sentence(url: str, error: Exception) -> str:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    if _lacks_bucket(error):
        return f"{url}: {reason}; make the bucket, or mend the URL"
    if "Credentials" in type(error).__name__:
        return f"{url}: {reason}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or what this store asks for"
    if isinstance(error, PermissionError):
        return (
            f"{url}: the store refuses ({reason}); check the credentials, and that they may list, read, write and "
            "delete there"
        )
    return (
        f"{url}: the store fails ({reason}); check that it is up and its endpoint right, then give the same command "
        "again: what is sealed stays"
    )

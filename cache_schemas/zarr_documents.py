"""Read many `zarr.json` files at once, and take the attributes of a Zarr group from one."""

import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cache_schemas.array_storage import METADATA
from cache_schemas.errors import CacheError
from cache_schemas.local_files import NoFileError, read_range

THREADS, FILES_PER_THREAD = 16, 64

LARGEST_DOCUMENT_BYTES = 4 * 2**20
"""No document of a cache comes close to this size. A parsed document takes about ten times its bytes in memory."""

Text = bytes | bytearray

Document = dict[str, Any] | CacheError
"""The JSON object in a `zarr.json`, or the error of one that cannot be read."""

Documents = Mapping[str, Document]
"""Documents by the path of their Zarr group or array in the cache."""


def read_local_files(paths: Iterable[str]) -> dict[str, Text | ValueError]:
    """Read those of many files that exist, by path, or the error of one that is no regular file.

    At most `LARGEST_DOCUMENT_BYTES` and one more byte of each are read.

    Several threads read at once: on a network file system most of the time is spent waiting.

    Raises:
        StoreError: if one cannot be read, which is no damage.
        CacheError: if one is a link.
    """
    wanted = list(paths)
    parts = [wanted[start : start + FILES_PER_THREAD] for start in range(0, len(wanted), FILES_PER_THREAD)]
    if len(parts) == 1:
        return _read_in_turn(parts[0])
    with ThreadPoolExecutor(THREADS) as pool:
        return {path: text for read in pool.map(_read_in_turn, parts) for path, text in read.items()}


def parse_document(file: str, text: Text | Exception) -> Document:
    """Return the JSON object in the text of a `zarr.json`; otherwise an error that names the file."""
    if isinstance(text, Exception):
        return CacheError(f"{file}: cannot be read ({text}); remove it and rerun `labelgen run`")
    if len(text) > LARGEST_DOCUMENT_BYTES:
        return CacheError(
            f"{file}: larger than {LARGEST_DOCUMENT_BYTES:,} bytes, which no document of a cache is; remove it and "
            "rerun `labelgen run`"
        )
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        return CacheError(f"{file}: not a Zarr group or array ({error}); remove it and rerun `labelgen run`")
    if not isinstance(document, dict):
        start = bytes(text[:40])
        return CacheError(f"{file}: not a Zarr group or array ({start!r}); remove it and rerun `labelgen run`")
    return document


def group_attributes(document: Document, path: str) -> dict[str, Any]:
    """Return the attributes in the `zarr.json` of the Zarr group at `path`.

    Raises:
        CacheError: if it could not be read, or is not that of a group.
    """
    if isinstance(document, CacheError):
        raise document
    attributes, node = document.get("attributes", {}), document.get("node_type", "group")
    if node != "group" or not isinstance(attributes, dict):
        raise CacheError(
            f"{path}/{METADATA}: not a Zarr group (node_type {node!r:.40}, attributes {type(attributes).__name__}); "
            "remove it with `labelgen verify --repair`, then rerun `labelgen run`"
        )
    return attributes


def _read_in_turn(paths: Sequence[str]) -> dict[str, Text | ValueError]:
    read: dict[str, Text | ValueError] = {}
    for path in paths:
        try:
            read[path] = read_range(path, 0, LARGEST_DOCUMENT_BYTES + 1)
        except NoFileError:
            continue
        except ValueError as error:
            read[path] = error
    return read

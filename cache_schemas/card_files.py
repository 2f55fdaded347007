"""The card of a cache: two files at its top that describe it to people and to programs; no reader needs them.

The card names the content that it describes by a digest, so that a card of an earlier state is known as such.
"""

import hashlib
import json
import re
from collections.abc import Sequence

from cache_schemas.audit_files import files_by_group, sources_by_shard
from cache_schemas.cache_files import files_at
from cache_schemas.documents import CacheManifest
from cache_schemas.errors import CacheError
from cache_schemas.group_path import CARD, GroupPath
from cache_schemas.layout import ROOT_GROUPS, SHARD_GROUPS
from cache_schemas.store import Cache

README, CROISSANT = CARD

MARKER = "<!-- written by `labelgen card`, which replaces this file; it describes the content {digest} -->"
MARKER_PATTERN = re.compile(re.escape(MARKER).replace(re.escape("{digest}"), "([0-9a-f]{64})").encode())

SHARDS_AT_ONCE = 128
"""The documents of so many shards are read at once, which bounds the memory that they take."""


def content_digest(cache: Cache, manifest: CacheManifest) -> str:
    """Return a digest of all that a cache says about its content: its manifest, records and seals."""
    digest = hashlib.sha256(_canonical(manifest.to_attrs()))
    files, keys = files_by_group(cache.file_sizes()), cache.shard_keys()
    imported = sources_by_shard(files)
    digest.update(_canonical(_seals(cache, [GroupPath.root(name) for name in ROOT_GROUPS])))
    for start in range(0, len(keys), SHARDS_AT_ONCE):
        some = keys[start : start + SHARDS_AT_ONCE]
        records = cache.shard_records(some)
        digest.update(_canonical({key: record.to_attrs() for key, record in records.items()}))
        paths = [GroupPath(key, name) for key in some for name in (*SHARD_GROUPS, *imported.get(key, []))]
        digest.update(_canonical(_seals(cache, [path for path in paths if str(path) in files])))
    return digest.hexdigest()


def _seals(cache: Cache, paths: Sequence[GroupPath]) -> dict[str, object]:
    return {str(path): seal.to_attrs() for path, seal in cache.seals(paths).items()}


def refuse_old_card(cache: Cache, manifest: CacheManifest) -> None:
    """Check that the card of a cache, if it has one, describes its present content.

    Raises:
        CacheError: if it does not.
    """
    if README not in cache.top_names():
        return
    described = _described_content(cache.url)
    if described is None:
        raise CacheError(f"{cache.url}/{README}: not a card; move this file away, then run `labelgen card {cache.url}`")
    if described != content_digest(cache, manifest):
        raise CacheError(
            f"{cache.url}/{README}: describes an earlier state of the cache; run `labelgen card {cache.url}` again"
        )


def write_card(cache: Cache, readme: str, croissant: str) -> tuple[str, ...]:
    """Write the two files of a card, or replace those of an earlier one; returns their names.

    The caller holds `run_lock`.

    Raises:
        CacheError: if there are files of these names that are no card, or links.
        OSError: if one cannot be written.
    """
    files = files_at(cache.url)
    for name in CARD:
        files.refuse_links(name)
    present = sorted({*CARD} & {*cache.top_names()})
    if present and _described_content(cache.url) is None:
        raise CacheError(
            f"{cache.url}/{present[0]}: not a card that `labelgen card` wrote, so it is kept; move this file away"
        )
    files.put({README: readme.encode(), CROISSANT: croissant.encode()})
    return CARD


def _described_content(url: str) -> str | None:
    """Return the digest in the card of a cache; None if the file is no card."""
    text = files_at(url).texts([README]).get(README)
    found = None if text is None or isinstance(text, Exception) else MARKER_PATTERN.search(text)
    return found[1].decode() if found else None


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()

"""Rewrites the documents of a cache of schema version 1 in place, as the present version has them.

No value of an array is touched, and no seal changes, so nothing is computed again. Groups of version 1 keep what they
are: their seals do not tell the sizes of files, and their pictures have names of cameras only.
"""

import json
from collections.abc import Iterable

from cache_schemas.errors import CacheError
from cache_schemas.group_path import GroupPath
from cache_schemas.layout import ROOT_GROUPS, SCHEMA_MINOR, SCHEMA_VERSION, SHARD_GROUPS, group_spec
from cache_schemas.store import Cache

SHARDS_AT_ONCE = 128


def migrate(cache: Cache) -> bool:
    """Bring a cache of schema version 1 to the present version; returns whether there was anything to do.

    The manifest is rewritten last. Until then this software reads the cache as one of version 1, so a migration that
    was stopped is done again from its start. The caller holds `run_lock`.

    Raises:
        CacheError: if a document is damaged; `labelgen verify` lists all of them.
        OSError: if a document cannot be written.
    """
    manifest = cache.manifest()
    if manifest is None or manifest.schema_version == SCHEMA_VERSION:
        return False
    keys = cache.shard_keys()
    _rename_dimensions(cache, (GroupPath.root(name) for name in ROOT_GROUPS))
    for start in range(0, len(keys), SHARDS_AT_ONCE):
        some = keys[start : start + SHARDS_AT_ONCE]
        for key, record in cache.shard_records(some).items():
            if not record.dataset:
                names = {"dataset": manifest.dataset, "split": manifest.split}
                cache.write_shard_record(key, record.model_copy(update=names))
        _rename_dimensions(cache, (GroupPath(key, name) for key in some for name in SHARD_GROUPS))
    Cache.create(
        cache.url, manifest.model_copy(update={"schema_version": SCHEMA_VERSION, "schema_minor": SCHEMA_MINOR})
    )
    return True


def _rename_dimensions(cache: Cache, groups: Iterable[GroupPath]) -> None:
    """Give the arrays of some groups the dimension names of the present version, which are unique."""
    names = {
        f"{path}/{name}": spec.dimension_names for path in groups for name, spec in group_spec(path).arrays.items()
    }
    for path, document in cache.documents(names).items():
        if isinstance(document, CacheError):
            raise document
        if document.get("dimension_names") != names[path]:
            text = json.dumps({**document, "dimension_names": names[path]}, indent=2)
            cache.write_document(path, text.encode())

"""What tests compare of caches."""

from pathlib import Path

from cache_schemas.store import Cache
from cache_schemas.validate import validate


def checksums(cache: Path) -> dict[str, str]:
    """Return the checksum of every array of a cache's shards, by path."""
    store = Cache(str(cache))
    return {
        f"{key}/{group}/{name}": array.crc32c
        for key in store.shard_keys()
        for group, seal in store.shard_seals(key).items()
        for name, array in seal.arrays.items()
    }


def problems(cache: Path) -> list[str]:
    return [f"{problem.path}: {problem.message}" for problem in validate(*Cache.open(str(cache)))]

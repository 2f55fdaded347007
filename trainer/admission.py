"""Which caches may be trained from: those whose documents and files are all in order; their values are not read."""

from collections.abc import Sequence

from cache_schemas.audit import audit
from cache_schemas.documents import CacheManifest, GroupSeal, ShardRecord
from cache_schemas.group_path import GroupPath
from cache_schemas.problems import ProblemKind
from cache_schemas.store import Cache
from trainer.errors import UnfitCacheError


def admit(
    cache: Cache, manifest: CacheManifest, arrays: Sequence[str]
) -> tuple[dict[str, ShardRecord], dict[GroupPath, GroupSeal]]:
    """Return the records of all shards with samples, by key, and the seals of their groups, by path.

    Stray files are left to `labelgen verify`: they spoil no training. `arrays` must be there in every shard.

    Raises:
        UnfitCacheError: with the first problem that tells that the cache is not as it was sealed, or not finished.
    """
    records: dict[str, ShardRecord] = {}
    seals: dict[GroupPath, GroupSeal] = {}
    for part in audit(cache, manifest):
        for problem in part.problems:
            if problem.kind is not ProblemKind.STRAY_FILE:
                raise UnfitCacheError(f"{cache.url}/{problem}")
        if part.record is not None and part.record.samples:
            records[part.key] = part.record
            seals |= part.seals
    if not records:
        raise UnfitCacheError(f"{cache.url}: no shard holds a sample; `labelgen run` has not come far enough")
    _refuse_without(arrays, records, seals, cache.url)
    return records, seals


def _refuse_without(
    arrays: Sequence[str], records: dict[str, ShardRecord], seals: dict[GroupPath, GroupSeal], url: str
) -> None:
    for key in records:
        for name in sorted(arrays):
            group, array = name.split("/")
            path = GroupPath(key, group)
            if (seal := seals.get(path)) is None:
                raise UnfitCacheError(f"{url}/{path}: not sealed; {_remedy(name)}")
            if array not in seal.arrays:
                raise UnfitCacheError(f"{url}/{path}/{array}: not in this cache; {_remedy(name)}")


def _remedy(name: str) -> str:
    if name == "clip/features":
        return "make it with `labelgen run --set clip.store_features=true`, or train with method.latent=sam"
    if name.startswith("truth/"):
        return "score a cache whose data set has truth"
    return "`labelgen verify` says what else is missing"

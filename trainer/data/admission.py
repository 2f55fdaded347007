"""Check before a training that a cache is complete: its documents and file sizes, not the values of its arrays.

The metadata of arrays is not read: the stream reads them as the contract and their seals say, and every byte has a
checksum.
"""

from collections.abc import Sequence

from cache_schemas.audit import audit
from cache_schemas.documents import CacheManifest, GroupSeal, ShardRecord
from cache_schemas.group_path import SHARDS, GroupPath
from cache_schemas.layout import ROOT_GROUPS, SOURCE_PREFIX, source_name
from cache_schemas.problems import ProblemKind
from cache_schemas.store import Cache
from trainer.errors import UnfitCacheError


def admit(
    cache: Cache, manifest: CacheManifest, arrays: Sequence[str], *, only_their_groups: bool = False
) -> tuple[dict[str, ShardRecord], dict[GroupPath, GroupSeal]]:
    """Check a cache and return the records of its shards that hold samples, by key, and their seals, by group path.

    Each of `arrays`, given as `<group>/<name>`, must be present in every such shard. Stray files are accepted:
    training does not read them, and `labelgen verify` reports them. So are problems of imported labels that are not
    asked for, and with `only_their_groups` those of any group of which no array is asked for.

    Raises:
        UnfitCacheError: if a group is unsealed, stale or damaged, or an array is missing; it
            names the first problem.
    """
    records: dict[str, ShardRecord] = {}
    seals: dict[GroupPath, GroupSeal] = {}
    groups = {name.split("/")[0] for name in arrays}
    for part in audit(cache, manifest, array_metadata=False):
        for problem in part.problems:
            if problem.kind in (ProblemKind.STRAY_FILE, ProblemKind.UNRELATED_FILE):
                continue
            if _concerns(problem.path, groups, only_their_groups):
                raise UnfitCacheError(f"{cache.url}/{problem}")
        if part.record is not None and part.record.samples:
            records[part.key] = part.record
            seals |= part.seals
    if not records:
        raise UnfitCacheError(
            f"{cache.url}: no shard holds a sample; run the same `labelgen run` command until it has finished"
        )
    _check_arrays_present(arrays, records, seals, cache.url)
    return records, seals


def refuse_without_points(url: str, manifest: CacheManifest) -> None:
    """Check that a cache has points.

    Raises:
        UnfitCacheError: if it holds pictures alone.
    """
    if "point" not in manifest.modalities:
        raise UnfitCacheError(
            f"{url}: holds pictures alone (data set {', '.join(manifest.datasets)}), but `trainer fit` and `trainer "
            "predict` need points (`trainer evaluate` scores a 2D network on it); choose a cache of a data set with "
            "points"
        )


def _concerns(path: str, groups: set[str], only_these: bool) -> bool:
    """Return whether a path in a cache matters to a training that reads these groups of a shard.

    That of another group does not if it has imported labels, or `only_these` matter.
    """
    first, *rest = path.split("/")
    if first == SHARDS:
        return len(rest) < 2 or rest[1] in groups or not (only_these or source_name(rest[1]))
    return first not in ROOT_GROUPS or not only_these


def _check_arrays_present(
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
        return "make it with `labelgen run --set clip.store_features=true`, or choose a recipe and options without it"
    if name == "points/colour":
        return "choose a cache whose points have colours, or train with networks.point_features=intensity"
    if name in ("labels/image_confidence", "labels/point_confidence"):
        return "make it with `labelgen run --set labels.confidence=true`, or train with terms.semantic.confidence=false"
    if name.startswith("sweeps/"):
        return "make it with `labelgen run --set sweeps.count=10`, or train with stream.sweeps=0"
    if name.startswith("truth/"):
        return "choose a cache whose data set has truth, or train without classes.seen"
    if name.startswith("instance_labels/"):
        return (
            "make it with `labelgen run --set instances.enabled=true`, or train without stream.label_source=instances"
        )
    if name.startswith("time/"):
        return "make it with `labelgen run --set time.enabled=true`, or train without stream.label_source=time"
    if name.startswith(SOURCE_PREFIX):
        return "import labels for every shard with `labelgen import-labels`, or train without stream.label_source"
    return "run `labelgen verify` to see what else is missing"

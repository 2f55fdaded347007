"""Count how voted labels differ between two caches, shard by shard."""

from collections.abc import Sequence
from dataclasses import dataclass

from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from labelgen.inspection.counting.statistics import Counts, count_together


@dataclass(frozen=True)
class LabelChanges:
    """Changes of the voted labels of one shard: (C+1, C+1) counts of (label there, label here), the last "ignore".

    A table is None if the labels cannot be compared; `reason` says why.
    """

    shard: str
    image: Counts | None
    point: Counts | None
    reason: str | None


def count_label_changes(here: str, there: str, keys: Sequence[str], classes: int) -> list[LabelChanges]:
    """Compare the voted labels of the shards `keys` of the caches at the URLs `here` and `there`.

    Raises:
        CacheError: if a shard cannot be read.
    """
    from dask.base import compute
    from dask.delayed import delayed

    tasks = [delayed(_compare_shard)(here, there, key, classes) for key in keys]
    # dask has no types here
    return list(compute(*tasks, scheduler="threads"))  # type: ignore[no-untyped-call]


def _compare_shard(here: str, there: str, key: str, classes: int) -> LabelChanges:
    caches = Cache(here), Cache(there)
    ours, theirs = (cache.shard_records([key])[key].samples for cache in caches)
    if ours != theirs:
        return LabelChanges(key, None, None, "holds other samples there")
    labels, other_labels = (cache.read(GroupPath(key, "labels")) for cache in caches)
    counts: dict[str, Counts | None] = {"point": None}
    reasons = []
    for target in ("image", "point") if "point" in labels.keys() & other_labels.keys() else ("image",):
        ids, other_ids = labels[target], other_labels[target]
        if ids.shape == other_ids.shape:
            counts[target] = count_together(other_ids, ids, classes)
        else:
            counts[target] = None
            reasons.append(f"{target} labels are {ids.shape} here, {other_ids.shape} there")
    return LabelChanges(key, counts["image"], counts["point"], "; ".join(reasons) or None)

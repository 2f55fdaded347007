"""What a cache holds, as far as its documents and the sizes of its files tell: shards, samples, problems, bytes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cache_schemas.audit import audit
from cache_schemas.audit_part import Part
from cache_schemas.documents import CacheManifest, GroupSeal, QuarantinedSample
from cache_schemas.layout import OPTIONAL_GROUPS, SHARD_GROUPS
from cache_schemas.problems import Problem, ProblemKind
from cache_schemas.store import Cache
from labelgen.teachers.checkpoints import UNTRAINED

_UNDONE = frozenset({ProblemKind.UNSEALED_GROUP, ProblemKind.STALE_GROUP, ProblemKind.MISSING_RECORD})
"""Problems that say that work is left, not that something is broken."""


@dataclass(frozen=True)
class ShardInventory:
    """One shard: its samples, those left out, its sealed groups, and what is wrong; `finished` has all its groups."""

    key: str
    samples: tuple[str, ...]
    quarantined: tuple[QuarantinedSample, ...]
    groups: tuple[str, ...]
    finished: bool
    stale: bool


@dataclass(frozen=True)
class Inventory:
    """All shards, what is broken, whether any network was untrained, and bytes on disk by array (`sam/features`)."""

    shards: tuple[ShardInventory, ...]
    broken: tuple[Problem, ...]
    untrained: bool
    stored_bytes: dict[str, int]

    @property
    def finished(self) -> dict[str, tuple[str, ...]]:
        """The samples of finished shards, by key."""
        return {shard.key: shard.samples for shard in self.shards if shard.finished}

    def to_dict(self) -> dict[str, Any]:
        """Return counts of shards, groups and samples as a JSON-ready object."""
        finished = [shard for shard in self.shards if shard.finished]
        empty = [shard for shard in self.shards if shard.quarantined and not shard.samples]
        quarantined = [entry for shard in self.shards for entry in shard.quarantined]
        return {
            "shards": {
                "sealed": len(finished),
                "stale": sum(shard.stale for shard in finished),
                "quarantined": len(empty),
                "unfinished": len(self.shards) - len(finished) - len(empty),
            },
            "groups_sealed": dict(sorted(Counter(group for shard in self.shards for group in shard.groups).items())),
            "samples": {
                "labelled": sum(len(shard.samples) for shard in finished),
                "quarantined": len(quarantined),
                "reasons": [{"sample": e.sample, "stage": e.stage, "reason": e.reason} for e in quarantined],
            },
        }


def take_inventory(cache: Cache, manifest: CacheManifest) -> Inventory:
    """Read a cache's documents, many at once, and compare them with one another and with its files."""
    shards, broken = [], []
    untrained = _is_untrained([*manifest.teachers.networks.values()])
    for part in audit(cache, manifest):
        broken += [problem for problem in part.problems if problem.kind not in _UNDONE]
        untrained |= _is_untrained([seal.teacher for seal in part.seals.values()])
        if part.key:
            shards.append(_shard(part))
    return Inventory(tuple(shards), tuple(broken), untrained, _stored_bytes(cache))


def _shard(part: Part) -> ShardInventory:
    groups = {path.name: seal for path, seal in part.readable.items()}
    samples = part.record.samples if part.record else ()
    return ShardInventory(
        key=part.key,
        samples=samples,
        quarantined=part.record.quarantined if part.record else (),
        groups=tuple(groups),
        finished=bool(samples) and _has_all(groups),
        stale=any(problem.kind is ProblemKind.STALE_GROUP for problem in part.problems),
    )


def _has_all(groups: dict[str, GroupSeal]) -> bool:
    return set(SHARD_GROUPS) - OPTIONAL_GROUPS <= set(groups)


def _is_untrained(teachers: Sequence[Any]) -> bool:
    return any(teacher is not None and teacher.weights.startswith(UNTRAINED) for teacher in teachers)


def _stored_bytes(cache: Cache) -> dict[str, int]:
    """Return bytes on disk by array, such as `sam/features`, summed over shards."""
    sizes: Counter[str] = Counter()
    for path, size in cache.file_sizes().items():
        steps = path.split("/")
        within = steps[2:] if steps[0] == "shards" else steps
        if len(within) > 2 and size:
            sizes["/".join(within[:2])] += size
    return dict(sorted(sizes.items()))

"""Count shards, samples, problems and bytes, as far as the documents and file sizes of a cache show them."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from cache_schemas.audit import audit
from cache_schemas.audit_part import Part
from cache_schemas.documents import CacheManifest, GroupSeal, QuarantinedSample, TeacherIdentity
from cache_schemas.layout import shard_groups
from cache_schemas.problems import Problem, ProblemKind
from cache_schemas.store import Cache
from labelgen.inspection.report import QuarantineReason, SampleCounts, ShardCounts

_UNFINISHED_WORK = frozenset({ProblemKind.UNSEALED_GROUP, ProblemKind.STALE_GROUP, ProblemKind.MISSING_RECORD})
"""Problems which mean that a run has work left, not that something is broken. A run does not make imported labels."""


@dataclass(frozen=True)
class ShardInventory:
    """The documents of one shard: its samples, those left out, and the names of its readable groups.

    A shard is `finished` if it has samples and all required groups. It is `stale` if a group was made with other
    settings, or from a group that was redone since.
    """

    key: str
    samples: tuple[str, ...]
    quarantined: tuple[QuarantinedSample, ...]
    groups: tuple[str, ...]
    finished: bool
    stale: bool


@dataclass(frozen=True)
class Inventory:
    """All shards, what is broken, whether a network is untrained, and bytes on disk by array (`sam/features`)."""

    shards: tuple[ShardInventory, ...]
    broken: tuple[Problem, ...]
    untrained: bool
    stored_bytes: dict[str, int]

    @property
    def finished_samples(self) -> dict[str, tuple[str, ...]]:
        """The samples of finished shards, by shard key."""
        return {shard.key: shard.samples for shard in self.shards if shard.finished}

    def count_shards(self) -> ShardCounts:
        """Return the numbers of shards by state."""
        sealed = sum(shard.finished for shard in self.shards)
        empty = sum(bool(shard.quarantined) and not shard.samples for shard in self.shards)
        return ShardCounts(
            sealed=sealed,
            stale=sum(shard.stale for shard in self.shards if shard.finished),
            quarantined=empty,
            unfinished=len(self.shards) - sealed - empty,
        )

    def count_samples(self) -> SampleCounts:
        """Return the numbers of samples, and why some were left out."""
        left_out = [sample for shard in self.shards for sample in shard.quarantined]
        return SampleCounts(
            labelled=sum(len(samples) for samples in self.finished_samples.values()),
            quarantined=len(left_out),
            reasons=tuple(QuarantineReason(sample=q.sample, stage=q.stage, reason=q.reason) for q in left_out),
        )

    def count_groups(self) -> dict[str, int]:
        """Return the number of sealed groups by group name."""
        return dict(sorted(Counter(group for shard in self.shards for group in shard.groups).items()))


def take_inventory(cache: Cache, manifest: CacheManifest) -> Inventory:
    """Read the documents of a cache, and compare them with one another and with the sizes of its files."""
    shards, broken = [], []
    untrained = _has_untrained(manifest.teachers.networks.values())
    for part in audit(cache, manifest):
        broken += [problem for problem in part.problems if not _is_unfinished_work(problem)]
        untrained |= _has_untrained(seal.teacher for seal in part.seals.values())
        if part.key:
            shards.append(_inventory_of_shard(part, manifest))
    return Inventory(tuple(shards), tuple(broken), untrained, _stored_bytes(cache))


def _inventory_of_shard(part: Part, manifest: CacheManifest) -> ShardInventory:
    groups = {path.name: seal for path, seal in part.readable.items()}
    samples = part.record.samples if part.record else ()
    return ShardInventory(
        key=part.key,
        samples=samples,
        quarantined=part.record.quarantined if part.record else (),
        groups=tuple(groups),
        finished=bool(samples) and _has_required(groups, manifest),
        stale=any(p.kind is ProblemKind.STALE_GROUP and _is_unfinished_work(p) for p in part.problems),
    )


def _is_unfinished_work(problem: Problem) -> bool:
    return problem.kind in _UNFINISHED_WORK and problem.source is None


def _has_required(groups: dict[str, GroupSeal], manifest: CacheManifest) -> bool:
    return {name for name, spec in shard_groups(manifest.modalities).items() if not spec.optional} <= set(groups)


def _has_untrained(teachers: Iterable[TeacherIdentity | None]) -> bool:
    """Tell whether a network is random: only untrained weights have no SHA-256."""
    return any(teacher is not None and teacher.sha256 is None for teacher in teachers)


def _stored_bytes(cache: Cache) -> dict[str, int]:
    """Return bytes on disk by array, such as `sam/features`, summed over shards."""
    sizes: Counter[str] = Counter()
    for path, size in cache.file_sizes().items():
        steps = path.split("/")
        within = steps[2:] if steps[0] == "shards" else steps
        if len(within) > 2 and size:
            sizes["/".join(within[:2])] += size
    return dict(sorted(sizes.items()))

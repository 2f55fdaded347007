"""What a run has to do: the shards, the fingerprints of their groups, and which groups are missing or changed."""

import fnmatch
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cache_schemas.documents import GroupSeal, Picture, Provenance, QuarantinedSample, ShardRecord
from cache_schemas.errors import CacheError, ConfigError
from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from labelgen.completeness import FILES, missing_files, quarantine_reason
from labelgen.samples import Sample, Scene, file_digests, file_sizes
from labelgen.stages import STAGES
from labelgen.stages.inputs import ResolvedSettings
from pipelines.fingerprints import digest, recipe_of, root_fingerprints, shard_fingerprints, sources_of

SHARD_GROUPS = tuple(name for name, stage in STAGES.items() if not stage.at_root)
MOST_IMAGES = 2**16
"""Pairs number the images of a shard in 16 bits."""

RAW_GROUPS = tuple(name for name, stage in STAGES.items() if stage.raw_inputs)
"""The groups that need files of the raw dataset."""


@dataclass(frozen=True)
class BadSample:
    """Why a sample cannot be used, and in which step of the work that was found."""

    stage: str
    reason: str


@dataclass(frozen=True)
class GroupPlan:
    """One group to make: its place, its samples (none for a root group), and what its seal will say besides counts."""

    path: GroupPath
    samples: tuple[Sample, ...]
    provenance: Provenance


@dataclass(frozen=True)
class ShardPlan:
    """One shard: the samples that it keeps, those that it leaves out, and the state of its groups.

    `fingerprints` has every group that the shard should hold; `todo` has those that are missing or differ. `labelled`
    are the samples of its sealed labels: they are never left out, since that would remove what was sealed.
    """

    key: str
    scene: str
    samples: tuple[Sample, ...]
    quarantined: tuple[QuarantinedSample, ...]
    fingerprints: dict[str, str]
    todo: frozenset[str]
    labelled: frozenset[str] = frozenset()
    dataset: str = ""
    split: str = ""

    @property
    def record(self) -> ShardRecord:
        """The record of the shard, as the cache holds it."""
        cameras = [camera for sample in self.samples for camera in sample.cameras]
        pictures = tuple(Picture(c.channel, c.picture, c.width_px, c.height_px) for c in cameras)
        tokens = tuple(sample.token for sample in self.samples)
        clouds = tuple(sample.cloud_token for sample in self.samples)
        return ShardRecord(
            dataset=self.dataset,
            split=self.split,
            scene=self.scene,
            samples=tokens,
            clouds=clouds,
            pictures=pictures,
            quarantined=self.quarantined,
        )


class Planner:
    """Compares what should be in the cache with what is there."""

    def __init__(self, data: Path, cache: Cache, resolved: ResolvedSettings) -> None:
        """Plan for the dataset folder `data` and `cache`."""
        self.data = data
        self.cache = cache
        self.resolved = resolved
        self.roots = root_fingerprints(resolved)
        self.missing: dict[str, tuple[str, ...]] = {}
        """The samples whose raw files are to be read and are missing, by token, with these files."""
        self.unlabelled: dict[str, str] = {}
        """Those of them that stay, since they were labelled before, by token, with the key of their shard."""
        self._sizes: dict[str, int | None] = {}
        self._digests: dict[str, str | None] = {}

    def plan(
        self,
        scenes: Iterable[Scene],
        *,
        pattern: str = "*",
        part: tuple[int, int] = (1, 1),
        limit: int | None = None,
        retry_quarantined: bool = False,
    ) -> list[ShardPlan]:
        """Plan the shards whose key matches `pattern` (shell style), at most `limit` of them.

        Of these, `part` (k, n) takes the k-th and then every n-th: each shard is in one of n parts.
        """
        shards = [(key, scene, samples) for key, scene, samples in self._cut(scenes) if fnmatch.fnmatch(key, pattern)]
        shards = shards[part[0] - 1 :: part[1]][:limit]
        self._look_up_files(sample for _, _, samples in shards for sample in samples)
        records = self.cache.shard_records(key for key, _, _ in shards)
        seals = self.cache.whole_seals(GroupPath(key, group) for key, _, _ in shards for group in SHARD_GROUPS)
        self._refuse_other_datasets(records)
        plans = []
        for key, scene, samples in shards:
            known = () if retry_quarantined or key not in records else records[key].quarantined
            plans.append(self._plan_shard(key, scene, samples, known, seals))
        return plans

    def _refuse_other_datasets(self, records: Mapping[str, ShardRecord]) -> None:
        """Refuse to overwrite shards of another data set, whose scenes have the same names.

        Raises:
            CacheError: naming the first of them.
        """
        own = self.resolved.settings.dataset
        for key, record in records.items():
            if record.dataset not in ("", own):
                raise CacheError(
                    f"{self.cache.url}: shard {key} is of data set {record.dataset}, and {own} has a scene of the same "
                    "name; give another cache folder"
                )

    def without(self, shard: ShardPlan, bad: Mapping[str, BadSample]) -> ShardPlan:
        """Return the plan of a shard without the samples whose tokens are in `bad`."""
        left_out = tuple(
            QuarantinedSample(
                sample=sample.token, stage=found.stage, reason=found.reason, inputs=self._inputs_digest(sample)
            )
            for sample in shard.samples
            if (found := bad.get(sample.token))
        )
        kept = tuple(sample for sample in shard.samples if sample.token not in bad)
        fingerprints = shard_fingerprints(kept, self.file_sizes, self.file_digests, self.resolved, {})
        paths = [GroupPath(shard.key, group) for group in SHARD_GROUPS]
        seals = {path.name: seal for path, seal in self.cache.whole_seals(paths).items()}
        return replace(
            shard,
            samples=kept,
            quarantined=shard.quarantined + left_out,
            fingerprints=fingerprints,
            todo=_changed(fingerprints, seals),
        )

    def group(self, shard: ShardPlan, name: str) -> GroupPlan:
        """Return the plan of one group of a shard."""
        return self._group(GroupPath(shard.key, name), shard.samples, {**self.roots, **shard.fingerprints})

    def due_roots(self) -> list[GroupPlan]:
        """Return the plans of the root groups that are missing or changed."""
        seals = self.cache.whole_seals(GroupPath.root(name) for name in self.roots)
        due = _changed(self.roots, {path.name: seal for path, seal in seals.items()})
        return [self._group(GroupPath.root(name), (), self.roots) for name in self.roots if name in due]

    def _group(self, path: GroupPath, samples: tuple[Sample, ...], fingerprints: Mapping[str, str]) -> GroupPlan:
        stage = STAGES[path.name]
        provenance = Provenance(
            fingerprint=fingerprints[path.name],
            recipe=recipe_of(path.name, self.resolved),
            teacher=self.resolved.teachers.networks[stage.teacher.name] if stage.teacher else None,
            upstream={source: fingerprints[source] for source in sources_of(path.name, self.resolved)},
            samples=tuple(sample.token for sample in samples),
        )
        return GroupPlan(path, samples, provenance)

    def _cut(self, scenes: Iterable[Scene]) -> Iterator[tuple[str, str, tuple[Sample, ...]]]:
        size = self.resolved.settings.shard_samples
        for scene in scenes:
            for number, start in enumerate(range(0, len(scene.samples), size)):
                key, samples = f"{scene.name}-{number:03d}", scene.samples[start : start + size]
                if (images := sum(len(sample.cameras) for sample in samples)) > MOST_IMAGES:
                    raise ConfigError(
                        f"shard {key} would have {images:,} images, and a shard has room for {MOST_IMAGES:,}; "
                        "lower shard_samples, or take fewer images of each sample"
                    )
                yield key, scene.name, samples

    def _plan_shard(
        self,
        key: str,
        scene: str,
        samples: Sequence[Sample],
        known: Sequence[QuarantinedSample],
        seals: Mapping[GroupPath, GroupSeal],
    ) -> ShardPlan:
        left_out = {entry.sample: entry for entry in known}
        kept, quarantined = [], []
        for sample in samples:
            inputs = self._inputs_digest(sample)
            entry = left_out.get(sample.token)
            if sample.defect:
                quarantined.append(
                    QuarantinedSample(sample=sample.token, stage="tables", reason=sample.defect, inputs=inputs)
                )
            elif entry and entry.inputs == inputs and entry.stage != "tables":
                quarantined.append(entry)
            else:
                kept.append(sample)
        present = {group: seals[path] for group in SHARD_GROUPS if (path := GroupPath(key, group)) in seals}
        accepted = self._sealed_without_poses(kept, present) | self._made_from_lost_files(kept, present)
        fingerprints = shard_fingerprints(kept, self.file_sizes, self.file_digests, self.resolved, accepted)
        todo = _changed(fingerprints, present)
        labelled = frozenset(present["labels"].samples) if "labels" in present else frozenset()
        dataset, split = self.resolved.settings.dataset, self.resolved.settings.split
        shard = ShardPlan(key, scene, tuple(kept), tuple(quarantined), fingerprints, todo, labelled, dataset, split)
        return self._without_incomplete(shard)

    def _without_incomplete(self, shard: ShardPlan) -> ShardPlan:
        """Leave out the samples whose files are to be read and are missing, unless they were labelled before."""
        while True:
            read = shard.todo.union(*(STAGES[group].more_files(self.resolved) for group in shard.todo))
            found = {s.token: missing_files(s, read, self.file_sizes) for s in shard.samples}
            missing = {token: files for token, files in found.items() if files}
            self.missing |= missing
            self.unlabelled |= dict.fromkeys(missing.keys() & shard.labelled, shard.key)
            bad = {
                token: BadSample(FILES, quarantine_reason(files))
                for token, files in missing.items()
                if token not in shard.labelled
            }
            if not bad:
                return shard
            shard = self.without(shard, bad)

    def _made_from_lost_files(self, samples: Sequence[Sample], present: Mapping[str, GroupSeal]) -> dict[str, str]:
        """Return the fingerprints of sealed groups to keep although raw files of the shard are gone, by group.

        A group is kept if it holds these samples and was made under these settings.
        """
        paths = tuple(path for sample in samples for path in sample.input_paths + sample.truth_paths)
        if None not in self.file_sizes(paths).values():
            return {}
        tokens = tuple(sample.token for sample in samples)
        return {
            group: present[group].fingerprint
            for group in RAW_GROUPS
            if group in present
            and present[group].recipe == recipe_of(group, self.resolved)
            and present[group].samples == tokens
        }

    def _sealed_without_poses(self, samples: Sequence[Sample], present: Mapping[str, GroupSeal]) -> dict[str, str]:
        """Return the fingerprint of sealed points to keep although they lack poses, as in caches of format 1."""
        if "points" not in present or "world_from_cloud" in present["points"].arrays:
            return {}
        unposed = [replace(sample, world_from_cloud=None) for sample in samples]
        before = shard_fingerprints(unposed, self.file_sizes, self.file_digests, self.resolved, {}).get("points")
        return {"points": before} if before == present["points"].fingerprint else {}

    def _look_up_files(self, samples: Iterable[Sample]) -> None:
        """Ask for the sizes of all files at once, and for the digests of those with truth: there are 100,000s."""
        looked_at = list(samples)
        paths = dict.fromkeys(path for sample in looked_at for path in (*sample.input_paths, *sample.truth_paths))
        self._sizes.update(file_sizes(self.data, tuple(paths)))
        self.file_digests(tuple(dict.fromkeys(path for sample in looked_at for path in sample.truth_paths)))

    def file_sizes(self, paths: tuple[str, ...]) -> dict[str, int | None]:
        """Return file sizes by path. The file system is asked once a file."""
        if unknown := tuple(path for path in paths if path not in self._sizes):
            self._sizes.update(file_sizes(self.data, unknown))
        return {path: self._sizes[path] for path in paths}

    def file_digests(self, paths: tuple[str, ...]) -> dict[str, str | None]:
        """Return digests of the content of files by path. Each file is read once."""
        if unknown := tuple(path for path in paths if path not in self._digests):
            self._digests.update(file_digests(self.data, unknown))
        return {path: self._digests[path] for path in paths}

    def _inputs_digest(self, sample: Sample) -> str:
        return digest(sample.defect, self.file_sizes(sample.input_paths + sample.truth_paths))


def needs_work(shard: ShardPlan, record: ShardRecord | None) -> bool:
    """Tell whether anything of a shard, whose record this is, is missing, changed, or left over."""
    if not shard.samples:
        return record != shard.record
    return bool(shard.todo) or record is None or not record.split or record.samples != shard.record.samples


def _changed(fingerprints: Mapping[str, str], seals: Mapping[str, GroupSeal]) -> frozenset[str]:
    return frozenset(
        group for group, value in fingerprints.items() if group not in seals or seals[group].fingerprint != value
    )

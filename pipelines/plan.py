"""What a run has to do: shards, the fingerprints of their groups, and which groups are missing or changed."""

import fnmatch
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cache_schemas.documents import GroupSeal, QuarantinedSample, ShardRecord, TeacherIdentity, Teachers
from cache_schemas.group_path import GroupPath
from cache_schemas.layout import ROOT_GROUPS, SCHEMA_VERSION, SHARD_GROUPS
from cache_schemas.store import Cache
from cache_schemas.taxonomy import Taxonomy
from labelgen.prompts import PromptSet
from labelgen.samples import Sample, Scene, file_sizes
from pipelines.config import RunConfig

RECIPES = {"text": 1, "images": 1, "clip": 1, "sam": 2, "points": 1, "pairs": 1, "labels": 1, "truth": 1}
"""Raise a group's number when its code changes what it computes: caches then redo that group."""

UPSTREAM = {"clip": ("text", "images"), "pairs": ("points",), "labels": ("clip", "sam", "pairs"), "truth": ("points",)}
"""The groups that a group is made from."""


RAW_GROUPS = ("images", "sam", "points", "pairs", "truth")
"""The groups that need the raw dataset."""


@dataclass(frozen=True)
class Recipe:
    """All that determines content besides the samples."""

    config: RunConfig
    taxonomy: Taxonomy
    prompts: PromptSet
    teachers: Teachers

    @property
    def text_fingerprint(self) -> str:
        """Fingerprint of the class embeddings."""
        return self.digest_of("text")

    def digest_of(self, group: str) -> str:
        """Return the digest of all settings that shape a group, its upstream groups' included, whatever the samples."""
        upstream = [self.digest_of(name) for name in UPSTREAM.get(group, ())]
        return digest(group, RECIPES[group], SCHEMA_VERSION, self.own_parts(group), upstream)

    def teacher_of(self, group: str) -> TeacherIdentity | None:
        """Return the network that a group's content comes from, if any."""
        teacher = {**ROOT_GROUPS, **SHARD_GROUPS}[group].teacher
        return self.teachers.networks[teacher] if teacher else None

    def own_parts(self, group: str) -> Any:
        """Return what shapes a group besides its inputs and upstream groups."""
        config = self.config
        parts: dict[str, Any] = {
            "text": [self.prompts.digest, self.teachers.networks["clip"].to_attrs()],
            "images": config.images.model_dump(),
            "clip": [config.clip.model_dump(exclude={"weights"}), self.teachers.networks["clip"].to_attrs()],
            "sam": [
                config.sam.model_dump(exclude={"weights", "points_per_batch", "compile"}),
                self.teachers.networks["sam"].to_attrs(),
                config.images.model_dump(),
            ],
            "points": [],
            "pairs": [config.points.model_dump(), config.images.model_dump()],
            "labels": [],
            "truth": [self.taxonomy.digest, config.images.model_dump()],
        }
        return parts[group]


@dataclass(frozen=True)
class ShardPlan:
    """One shard: the samples that it keeps, those it leaves out, and the state of its groups.

    `fingerprints` has every group that the shard should hold; `todo` those that are missing or differ.
    """

    key: str
    scene: str
    samples: tuple[Sample, ...]
    quarantined: tuple[QuarantinedSample, ...]
    fingerprints: dict[str, str]
    todo: frozenset[str]

    @property
    def record(self) -> ShardRecord:
        """The shard's record, as it stands in the cache."""
        cameras = tuple(camera.channel for sample in self.samples[:1] for camera in sample.cameras)
        tokens = tuple(sample.token for sample in self.samples)
        clouds = tuple(sample.cloud_token for sample in self.samples)
        return ShardRecord(
            scene=self.scene, samples=tokens, clouds=clouds, cameras=cameras, quarantined=self.quarantined
        )

    def upstream(self, group: str, text_fingerprint: str) -> dict[str, str]:
        """Return the fingerprints of the groups that `group` is made from, by name."""
        known = {**self.fingerprints, "text": text_fingerprint}
        return {name: known[name] for name in UPSTREAM.get(group, ())}


class Planner:
    """Compares what should be in the cache with what is."""

    def __init__(self, data: Path, cache: Cache, recipe: Recipe) -> None:
        """Plan for the dataset folder `data` and `cache`."""
        self.data = data
        self.cache = cache
        self.recipe = recipe
        self._sizes: dict[str, int | None] = {}

    def plan(
        self, scenes: Iterable[Scene], *, pattern: str = "*", limit: int | None = None, retry_quarantined: bool = False
    ) -> list[ShardPlan]:
        """Plan the shards whose key matches `pattern` (shell style), at most `limit` of them."""
        shards = [(key, scene, samples) for key, scene, samples in self._cut(scenes) if fnmatch.fnmatch(key, pattern)]
        shards = shards[:limit]
        records = self.cache.shard_records(key for key, _, _ in shards)
        seals = self.cache.seals(GroupPath(key, group) for key, _, _ in shards for group in SHARD_GROUPS)
        plans = []
        for key, scene, samples in shards:
            known = () if retry_quarantined or key not in records else records[key].quarantined
            plans.append(self._plan_shard(key, scene, samples, known, seals))
        return plans

    def without(self, shard: ShardPlan, reasons: Mapping[str, str], stage: str) -> ShardPlan:
        """Return the shard planned again without the samples in `reasons` (why, by token)."""
        left_out = tuple(
            QuarantinedSample(sample=s.token, stage=stage, reason=reasons[s.token], inputs=self._inputs_digest(s))
            for s in shard.samples
            if s.token in reasons
        )
        kept = tuple(sample for sample in shard.samples if sample.token not in reasons)
        fingerprints = self._fingerprints(kept)
        seals = self.cache.shard_seals(shard.key)
        return replace(
            shard,
            samples=kept,
            quarantined=shard.quarantined + left_out,
            fingerprints=fingerprints,
            todo=_changed(fingerprints, seals),
        )

    def _cut(self, scenes: Iterable[Scene]) -> Iterable[tuple[str, str, tuple[Sample, ...]]]:
        size = self.recipe.config.shard_samples
        for scene in scenes:
            for number, start in enumerate(range(0, len(scene.samples), size)):
                yield f"{scene.name}-{number:03d}", scene.name, scene.samples[start : start + size]

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
        held = self._held_without_files(kept, present)
        fingerprints = self._fingerprints(tuple(kept), held)
        return ShardPlan(key, scene, tuple(kept), tuple(quarantined), fingerprints, _changed(fingerprints, present))

    def _held_without_files(self, samples: Sequence[Sample], present: Mapping[str, GroupSeal]) -> dict[str, str]:
        """Return fingerprints to accept as they are, by group: what is sealed outlives the raw files it was made from.

        If a file of the shard is gone, groups made from raw files stay, as long as they hold these samples and were
        made under these settings.
        """
        paths = tuple(path for sample in samples for path in sample.input_paths + sample.truth_paths)
        if None not in self._file_sizes(paths).values():
            return {}
        tokens = tuple(sample.token for sample in samples)
        return {
            group: present[group].fingerprint
            for group in RAW_GROUPS
            if group in present
            and present[group].recipe == self.recipe.digest_of(group)
            and present[group].samples == tokens
        }

    def _fingerprints(self, samples: tuple[Sample, ...], held: Mapping[str, str] | None = None) -> dict[str, str]:
        if not samples:
            return {}
        inputs = self._inputs(samples)
        found: dict[str, str] = {"text": self.recipe.text_fingerprint}
        for group in SHARD_GROUPS:
            if group not in inputs:
                continue
            upstream = [found[name] for name in UPSTREAM.get(group, ())]
            own = self.recipe.own_parts(group)
            fresh = digest(group, RECIPES[group], SCHEMA_VERSION, inputs[group], own, upstream)
            found[group] = (held or {}).get(group, fresh)
        del found["text"]
        return found

    def _inputs(self, samples: tuple[Sample, ...]) -> dict[str, Any]:
        """Return what each group takes from the raw dataset: tokens, calibrations, files with their sizes.

        Sizes and not modification times or contents: a copy of the dataset is the same dataset, and a second run
        over 200,000 files takes seconds. Truth is left out where no sample has any.
        """
        tokens = [sample.token for sample in samples]
        pictures = [self._file_sizes(tuple(c.image_path for c in sample.cameras)) for sample in samples]
        clouds = [self._file_sizes((sample.cloud_path,)) for sample in samples]
        calibrations = [
            [[c.width_px, c.height_px, c.intrinsics.tolist(), c.cam_from_cloud.tolist()] for c in sample.cameras]
            for sample in samples
        ]
        inputs: dict[str, Any] = {
            "images": [tokens, pictures, calibrations],
            "clip": [],
            "sam": [tokens, pictures],
            "points": [tokens, clouds],
            "pairs": calibrations,
            "labels": [],
        }
        truth = [self._file_sizes(sample.truth_paths) for sample in samples]
        if any(truth):
            inputs["truth"] = truth
        return inputs

    def _file_sizes(self, paths: tuple[str, ...]) -> dict[str, int | None]:
        """Return file sizes by path, asking the file system once a file: a dataset has hundreds of thousands."""
        self._sizes.update(file_sizes(self.data, tuple(path for path in paths if path not in self._sizes)))
        return {path: self._sizes[path] for path in paths}

    def _inputs_digest(self, sample: Sample) -> str:
        return digest(sample.defect, self._file_sizes(sample.input_paths + sample.truth_paths))


def _changed(fingerprints: Mapping[str, str], seals: Mapping[str, GroupSeal]) -> frozenset[str]:
    return frozenset(
        group for group, value in fingerprints.items() if group not in seals or seals[group].fingerprint != value
    )


def digest(*parts: Any) -> str:
    """Return the SHA-256 of JSON-ready parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

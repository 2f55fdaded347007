"""Fingerprints: digests of all that determines the content of a group, from the declarations of the stages."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from cache_schemas.layout import shard_groups
from labelgen.samples import Sample
from labelgen.stages import STAGES
from labelgen.stages.inputs import ResolvedSettings
from labelgen.stages.raw_files import FileSizes
from labelgen.stages.stage import Stage

SCHEMA = 1
"""What all digests hold since the first format. It stays, so that groups that did not change stay up to date."""


def digest(*parts: Any) -> str:
    """Return the SHA-256 of JSON-ready parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def fingerprint_of(stage: Stage, raw: Any, settings: Any, upstream: Sequence[str | None]) -> str:
    """Return the fingerprint of a stage's group: made from raw inputs, settings, and groups with these fingerprints."""
    return digest(stage.name, stage.version, SCHEMA, raw, settings, upstream)


def stages_of(resolved: ResolvedSettings) -> dict[str, Stage]:
    """Return the stages whose groups a cache of these modalities has, by name."""
    groups = shard_groups(resolved.modalities)
    return {name: stage for name, stage in STAGES.items() if stage.at_root or name in groups}


def sources_of(group: str, resolved: ResolvedSettings) -> list[str]:
    """Return the groups that a group is made from, or shares raw files with, in a cache of these settings."""
    stages, stage = stages_of(resolved), STAGES[group]
    return [name for name in (*stage.sources(resolved), *stage.also_reads(resolved)) if name in stages]


def recipe_of(group: str, resolved: ResolvedSettings) -> str:
    """Return the digest of all settings that shape a group and the groups that it is made from, without the samples."""
    stage = STAGES[group]
    upstream = [recipe_of(name, resolved) for name in sources_of(group, resolved)]
    return digest(group, stage.version, SCHEMA, stage.settings(resolved), upstream)


def recipes_of(resolved: ResolvedSettings) -> dict[str, str]:
    """Return the recipes of all groups of a cache, by name."""
    return {name: recipe_of(name, resolved) for name in stages_of(resolved)}


def root_fingerprints(resolved: ResolvedSettings) -> dict[str, str]:
    """Return the fingerprints of the groups outside the shards. No sample shapes them, so each is its recipe."""
    return {name: recipe_of(name, resolved) for name, stage in STAGES.items() if stage.at_root}


def shard_fingerprints(
    samples: Sequence[Sample],
    sizes: FileSizes,
    digests: FileSizes,
    resolved: ResolvedSettings,
    accepted: Mapping[str, str],
) -> dict[str, str]:
    """Return the fingerprints of all groups that a shard of `samples` should hold, by name, in the table's order.

    Args:
        samples: the samples of the shard; without any, the shard has no groups.
        sizes: gives sizes of raw files.
        digests: gives digests of the content of raw files.
        resolved: the settings.
        accepted: fingerprints that replace those of their groups, because the raw files are no longer there.
    """
    if not samples:
        return {}
    roots = root_fingerprints(resolved)
    known: dict[str, str | None] = dict(roots)

    def fingerprint(group: str) -> str | None:
        if group not in known:
            known[group] = compute(group)
        return known[group]

    def compute(group: str) -> str | None:
        stage = STAGES[group]
        raw = stage.raw_inputs(samples, digests if stage.by_content else sizes) if stage.raw_inputs else []
        settings = stage.settings(resolved)
        upstream = [fingerprint(name) for name in sources_of(group, resolved)]
        if raw is None or settings is None or None in upstream:
            return None
        return accepted.get(group, fingerprint_of(stage, raw, settings, upstream))

    found = {name: fingerprint(name) for name in stages_of(resolved) if name not in roots}
    return {name: value for name, value in found.items() if value is not None}

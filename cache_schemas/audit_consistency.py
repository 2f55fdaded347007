"""Compares the documents of a cache with one another: samples, axis sizes, settings, networks and fingerprints."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping

from cache_schemas.audit_part import Part
from cache_schemas.documents import CacheManifest, GroupSeal, ShardRecord
from cache_schemas.group_path import GroupPath, shard_path
from cache_schemas.layout import ROOT_GROUPS, group_spec, shard_group
from cache_schemas.layout_checks import bind_axes
from cache_schemas.problems import ProblemKind


def audit_record(part: Part, manifest: CacheManifest, shard_of_sample: dict[str, str]) -> None:
    """Compare a shard's record with its key, with the manifest, with the shards before it, and with its seals.

    `shard_of_sample` holds the samples of the shards before; this shard's are added.
    """
    record, path = part.record, shard_path(part.key)
    if record is None:
        return
    if not re.fullmatch(re.escape(record.scene) + r"-\d{3,}", part.key):
        message = f"its record is of scene {record.scene!r}, whose shards are called {record.scene}-000 and so on"
        part.add(ProblemKind.FOREIGN_SHARD, path, message)
        return
    if record.dataset and record.dataset not in manifest.datasets:
        message = f"its record is of data set {record.dataset!r}, the cache holds {', '.join(manifest.datasets)}"
        part.add(ProblemKind.FOREIGN_SHARD, path, message)
        return
    if shared := [sample for sample in record.samples if sample in shard_of_sample]:
        message = f"sample {shared[0]} is in shard {shard_of_sample[shared[0]]} already"
        part.add(ProblemKind.FOREIGN_SHARD, path, message)
        return
    if len(set(record.samples)) < len(record.samples):
        part.add(ProblemKind.DAMAGED_DOCUMENT, path, "its record lists a sample twice")
    if record.clouds and len(record.clouds) != len(record.samples):
        message = f"its record lists {len(record.clouds)} clouds for {len(record.samples)} samples"
        part.add(ProblemKind.DAMAGED_DOCUMENT, path, message)
    shard_of_sample.update(dict.fromkeys(record.samples, part.key))
    _audit_samples(part, record)


def _audit_samples(part: Part, record: ShardRecord) -> None:
    """Compare the samples of the record with those of the seals.

    If all groups agree with one another and not with the record, the record is wrong, otherwise the groups that differ.
    """
    others = {path: seal.samples for path, seal in part.seals.items() if seal.samples != record.samples}
    if len(others) == len(part.seals) > 1 and len(set(others.values())) == 1:
        message = f"its record lists {len(record.samples)} samples, not those that all {len(others)} groups hold"
        part.add(ProblemKind.FOREIGN_RECORD, shard_path(part.key), message)
        return
    for path, samples in others.items():
        message = f"holds {len(samples)} samples, not the {len(record.samples)} of the shard's record"
        part.add(ProblemKind.FOREIGN_GROUP, path, message)


def audit_axes(part: Part, known: Mapping[str, int]) -> None:
    """Compare the sizes of axes across the groups of a part.

    The right size of an axis is that in `known`, or else the one that most groups have.
    """
    shapes = {path: _shapes_of_known_arrays(path, seal) for path, seal in part.seals.items()}
    votes: dict[str, Counter[int]] = defaultdict(Counter)
    for path, found in shapes.items():
        for axis, size in bind_axes(path, found)[0].items():
            votes[axis][size] += 1
    agreed = {axis: counts.most_common(1)[0][0] for axis, counts in votes.items()} | dict(known)
    for path, found in shapes.items():
        for misfit in bind_axes(path, found, agreed)[1]:
            part.add(ProblemKind.WRONG_LAYOUT, path, misfit)


def _shapes_of_known_arrays(path: GroupPath, seal: GroupSeal) -> dict[str, tuple[int, ...]]:
    specs = group_spec(path).arrays
    return {
        name: sealed.shape
        for name, sealed in seal.arrays.items()
        if name in specs and len(sealed.shape) == len(specs[name].axes)
    }


def audit_origins(part: Part, manifest: CacheManifest, seals: Mapping[str, GroupSeal]) -> None:
    """Add the groups that were made under other settings, by other networks, or from other groups.

    `seals` are those of the part and of the root groups, by group name.
    """
    stale = stale_groups(seals, manifest.recipes_of(part.record.dataset if part.record else ""))
    for path in part.seals:
        made_by = seals[path.name].teacher if path.name in seals else None
        teacher = group_spec(path).teacher
        expected = manifest.teachers.networks.get(teacher) if teacher else None
        if made_by and expected and path.name not in stale and made_by != expected:
            stale[path.name] = [f"made by {made_by.architecture} {made_by.weights}, not the manifest's network"]
        for reason in stale.get(path.name, ()):
            part.add(ProblemKind.STALE_GROUP, path, reason)


def stale_groups(seals: Mapping[str, GroupSeal], recipes: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the groups that do not fit the manifest or the groups that they were made from: reasons by group name.

    A group is stale if its settings are not the manifest's, or if a group that it was made from has been redone since
    with the manifest's settings. `seals` are one shard's and that of `text`, by group name; `recipes` are the
    manifest's.
    """
    stale = {
        name: ["made under other settings than the manifest's"]
        for name, seal in seals.items()
        if seal.recipe != recipes.get(name, seal.recipe)
    }
    current = {name: seal.fingerprint for name, seal in seals.items() if name not in stale}
    for name, seal in seals.items():
        for source, before in seal.upstream.items():
            if (now := current.get(source, before)) != before:
                stale.setdefault(name, []).append(f"made from {source} {before[:12]}, which is now {now[:12]}")
    return {name: reasons for name, reasons in stale.items() if shard_group(name) or name in ROOT_GROUPS}

"""What a run tells its user before it starts to work, and what it refuses."""

from collections.abc import Mapping, Sequence
from typing import Any

from cache_schemas.documents import CacheManifest, GroupSeal
from cache_schemas.group_path import SHARDS, GroupPath
from cache_schemas.plurals import counted
from labelgen.completeness import are_many, describe_complete, describe_missing, missing_folders
from labelgen.datasets.adapter import Adapter
from labelgen.errors import DatasetError
from labelgen.presets import preset_of
from labelgen.samples import Scene
from labelgen.settings import UNTRAINED
from labelgen.stages import STAGES
from labelgen.stages.inputs import ResolvedSettings
from pipelines.manifest import make_manifest
from pipelines.plan import RAW_GROUPS, GroupPlan, Planner, ShardPlan

LISTED_CHANGES = 6


def announce(plan: Sequence[ShardPlan], due: Sequence[ShardPlan], planner: Planner) -> list[str]:
    """Return the lines that say what will be done, and why. The manifest of the cache is that of the run before."""
    resolved, settings = planner.resolved, planner.resolved.settings
    samples = sum(len(shard.samples) for shard in plan)
    lines = [
        f"{settings.dataset}, split {settings.split}: {counted(len(plan), 'shard')}, {counted(samples, 'sample')}; "
        f"teachers {resolved.teachers.preset}, prompts {resolved.prompts.name}, "
        f"preset {preset_of(settings.model_dump(mode='json'))}"
    ]
    if has_untrained_teacher(resolved):
        lines.append("WARNING: a teacher is untrained: geometry and files are real, but the labels mean nothing")
    if changes := _changed_settings(planner.cache.manifest(), make_manifest(resolved)):
        more = f", and {len(changes) - LISTED_CHANGES} more" if len(changes) > LISTED_CHANGES else ""
        lines.append(f"changed since the last run: {', '.join(changes[:LISTED_CHANGES])}{more}")
    reasons_by_group = _reasons(due, planner)
    width = max(map(len, reasons_by_group), default=0) + 1
    for group, reasons in reasons_by_group.items():
        what = ", ".join(f"{reasons.count(reason)} {reason}" for reason in dict.fromkeys(reasons))
        lines.append(f"  {group:<{width}}{what}")
    lines.append(f"shards: {len(plan) - len(due):,} up to date, {len(due):,} to do")
    return lines


def _reasons(due: Sequence[ShardPlan], planner: Planner) -> dict[str, list[str]]:
    """Return why each group of a shard, or outside the shards, is made, by the name of the group."""
    roots = {group.path: group for group in planner.due_roots()}
    shards = {GroupPath(shard.key, name): shard for shard in due for name in shard.todo}
    sealed = planner.cache.seals([*roots, *shards])
    found: dict[str, list[str]] = {name: [] for name in STAGES}
    for path in [*roots, *shards]:
        reason = "to make"
        if path in sealed:
            group = roots.get(path) or planner.group(shards[path], path.name)
            todo = {root.name for root in roots} | (shards[path].todo if path in shards else set())
            reason = f"to redo, since {_change(group, sealed[path], todo)}"
        found[path.name].append(reason)
    return {name: reasons for name, reasons in found.items() if reasons}


def _change(group: GroupPlan, seal: GroupSeal, todo: set[str]) -> str:
    """Return what has changed since a group was sealed; `todo` are the groups that are made in this run."""
    planned = group.provenance
    if seal.fingerprint == planned.fingerprint:
        return "its files are too small"
    if sources := [name for name in planned.upstream if name in todo]:
        return f"{', '.join(sources)} changed"
    if seal.recipe != planned.recipe:
        return "settings changed"
    return "samples joined or left" if seal.samples != planned.samples else "raw files changed"


def _changed_settings(before: CacheManifest | None, now: CacheManifest) -> list[str]:
    """Return what differs between two manifests of a cache and may change its groups."""
    if before is None:
        return []
    old, new = _flat(before.config), _flat(now.config)
    changes = [
        f"{key} {old.get(key, '(none)')} -> {new.get(key, '(none)')}"
        for key in dict.fromkeys([*new, *old])
        if old.get(key) != new.get(key) and not key.startswith("ray.")
    ]
    if before.prompts.digest != now.prompts.digest and before.prompts.name == now.prompts.name:
        changes.append(f"the prompts in {now.prompts.name}")
    networks = before.teachers.networks
    return changes + [
        f"the weights of {name}"
        for name, network in now.teachers.networks.items()
        if name in networks and networks[name].sha256 != network.sha256 and networks[name].weights == network.weights
    ]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their dotted names, as --set takes them."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def has_untrained_teacher(resolved: ResolvedSettings) -> bool:
    """Tell whether any network has random weights."""
    return any(network.weights.startswith(UNTRAINED) for network in resolved.teachers.networks.values())


def refuse_incomplete(
    planner: Planner, due: Sequence[ShardPlan], scenes: Sequence[Scene], adapter: Adapter, only_complete: bool
) -> None:
    """Refuse to leave out samples that were labelled before, or many samples at once, because files are missing.

    `only_complete` says that the user wants to leave out the samples whose files are missing.

    Raises:
        DatasetError: naming the folders that lack files, and what to do about it.
    """
    missing = planner.missing
    if not missing:
        return
    to_read = {sample.token for shard in due if shard.todo & set(RAW_GROUPS) for sample in shard.samples}
    samples = len(to_read | missing.keys())
    said = f"{adapter.data}: {describe_missing(missing, samples)}"
    remedy = adapter.remedy_for_missing(missing_folders(missing))
    if planner.unlabelled:
        keys = sorted(set(planner.unlabelled.values()))
        raise DatasetError(
            f"{said}; {len(planner.unlabelled):,} of them were labelled before and stay as they are: is the disk "
            f"mounted? {remedy}; to give up their labels, remove {SHARDS}/{keys[0]} from the cache"
        )
    if not only_complete and are_many(len(missing), samples):
        complete = describe_complete(scenes, planner.file_sizes)
        raise DatasetError(f"{said}; {complete or 'is the disk mounted, are the archives extracted?'}; {remedy}")

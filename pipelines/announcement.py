"""What a run tells its user before it starts to work, and what it refuses."""

from collections.abc import Sequence

from cache_schemas.group_path import SHARDS, GroupPath
from cache_schemas.store import Cache
from labelgen.completeness import are_many, describe_complete, describe_missing, missing_folders
from labelgen.datasets.adapter import Adapter
from labelgen.errors import DatasetError
from labelgen.samples import Scene
from labelgen.settings import UNTRAINED
from labelgen.stages.inputs import ResolvedSettings
from pipelines.plan import RAW_GROUPS, SHARD_GROUPS, Planner, ShardPlan


def announce(
    plan: Sequence[ShardPlan], due: Sequence[ShardPlan], resolved: ResolvedSettings, cache: Cache
) -> list[str]:
    """Return the lines that say what will be done, and why."""
    settings = resolved.settings
    samples = sum(len(shard.samples) for shard in plan)
    lines = [
        f"{settings.dataset}, split {settings.split}: {len(plan)} shards, {samples:,} samples; "
        f"teachers {resolved.teachers.preset}, prompts {resolved.prompts.name}"
    ]
    if has_untrained_teacher(resolved):
        lines.append("WARNING: a teacher is untrained: geometry and files are real, but the labels mean nothing")
    sealed = cache.seals(GroupPath(shard.key, group) for shard in due for group in shard.todo)
    width = max(map(len, SHARD_GROUPS)) + 1
    for group in SHARD_GROUPS:
        todo = [shard for shard in due if group in shard.todo]
        changed = sum(GroupPath(shard.key, group) in sealed for shard in todo)
        counts = {"to make": len(todo) - changed, "to redo, since something changed": changed}
        if todo:
            what = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
            lines.append(f"  {group:<{width}}{what}")
    lines.append(f"shards: {len(plan) - len(due)} up to date, {len(due)} to do")
    return lines


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

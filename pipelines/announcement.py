"""What a run tells its user before it starts to work, and what it refuses."""

from collections.abc import Sequence
from pathlib import Path

from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from labelgen.errors import DatasetError
from labelgen.samples import file_sizes
from labelgen.stages.inputs import ResolvedSettings
from labelgen.teachers.checkpoints import UNTRAINED
from pipelines.plan import RAW_GROUPS, SHARD_GROUPS, ShardPlan


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


def refuse_missing_dataset(due: Sequence[ShardPlan], data: Path) -> None:
    """Refuse to quarantine a whole dataset because its files are not there.

    Raises:
        DatasetError: if not one file of the samples to be read exists.
    """
    samples = [sample for shard in due if shard.todo & set(RAW_GROUPS) for sample in shard.samples]
    if samples and not any(size for sample in samples for size in file_sizes(data, sample.input_paths).values()):
        raise DatasetError(
            f"{data}: none of the {len(samples):,} samples to be read has its files, such as {samples[0].cloud_path}; "
            "is the disk mounted, are the archives with the samples extracted?"
        )

"""What labels cost: the work of all stages that they follow from, as the last run of their cache measured it."""

from collections.abc import Mapping

from cache_schemas.documents import GroupSeal
from cache_schemas.past_run import PastRun
from cache_schemas.store import Cache
from labelgen.stages import STAGES


def seconds_per_sample(cache: Cache, key: str, group: str) -> dict[str, float | None]:
    """Return seconds of work for one sample, summed over workers, by task of the stages that a group follows from.

    None stands for a task that the last run did not do, or did for a part of its groups; there is no other record.
    `key` is a shard that has the group. The time to decode pictures for a teacher and to write its group is left out.
    """
    past = PastRun.of(cache.url)
    tasks: dict[str, list[str]] = {}
    for name in _groups_behind(cache.shard_seals(key), group):
        tasks.setdefault(STAGES[name].task_name, []).append(name)
    return {task: past.seconds_per_sample(task, names) if past else None for task, names in sorted(tasks.items())}


def _groups_behind(seals: Mapping[str, GroupSeal], group: str) -> set[str]:
    """Return a group and all groups of its shard that it was made from, directly or through others."""
    found, new = set(), {group}
    while new:
        found |= new
        new = {source for name in new for source in seals[name].upstream if source in seals} - found
    return found

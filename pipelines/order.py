"""The order of work in one shard, which follows from what each stage is made from."""

from collections.abc import Collection
from dataclasses import dataclass

from labelgen.stages import STAGES
from labelgen.stages.inputs import ResolvedSettings
from labelgen.stages.stage import Stage


@dataclass(frozen=True)
class Step:
    """Stages that one task makes together, or one stage of a teacher.

    `after` are the names of the steps that must end before this one starts, `roots` the groups outside the shards
    that it reads.
    """

    name: str
    stages: tuple[Stage, ...]
    after: frozenset[str]
    roots: frozenset[str]

    @property
    def reads_raw_files(self) -> bool:
        """Whether this is a CPU task that reads files of the dataset, and so finds those that are bad."""
        return any(stage.raw_inputs and not stage.teacher for stage in self.stages)


def steps_of(todo: Collection[str], resolved: ResolvedSettings) -> list[Step]:
    """Return the steps that make the groups in `todo`, by name; those in no other's `after` may run at once.

    A step starts once the groups that it is made from under these settings are sealed. A teacher also waits for all CPU
    tasks that read raw files, so that bad files are found before a teacher works on their samples.
    """
    stages = [stage for name, stage in STAGES.items() if name in todo]
    checks = {stage.task_name for stage in stages if stage.raw_inputs and not stage.teacher}
    tasks: dict[str, list[Stage]] = {}
    for stage in stages:
        tasks.setdefault(stage.task_name, []).append(stage)
    steps = []
    for name, members in tasks.items():
        sources = [STAGES[source] for stage in members for source in stage.sources(resolved)]
        after = {source.task_name for source in sources if source.name in todo}
        if any(stage.teacher for stage in members):
            after |= checks
        roots = frozenset(source.name for source in sources if source.at_root)
        steps.append(Step(name, tuple(members), frozenset(after - {name}), roots))
    return steps

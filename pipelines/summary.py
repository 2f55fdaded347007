"""What a run did: counted, as a JSON object, and as a table."""

import io
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cache_schemas.documents import ShardRecord
from cache_schemas.names import printable
from cache_schemas.plurals import counted
from labelgen.completeness import short_reason
from labelgen.stages import STAGES
from pipelines.plan import ShardPlan
from pipelines.setbacks import Setbacks

SHARD_TEACHERS = tuple(name for name, stage in STAGES.items() if stage.teacher and not stage.at_root)
"""The stages of a shard that a teacher computes."""


@dataclass
class RunSummary:
    """What a run did.

    `seconds` is the wall time. `stage_seconds` is the work summed over workers, and `stage_peak_mib` the largest
    resident memory of a process, both by kind of work. `stage_samples` and `stage_pictures` are what the stages worked
    on. `gpus` are those of the cluster at the end. `teacher_recipes` digest the settings of the teachers' stages.
    `finished` is a time of day in UTC (ISO 8601). `retries`, `node_losses`, `actor_restarts`: see `Setbacks`.
    `wall_over_teachers` is the wall time divided by the work of the teachers on shards: close to 1 on one GPU if all
    other work runs at the same time as theirs.
    """

    cache: str
    teachers: str
    shards_done: int = 0
    shards_kept: int = 0
    samples_labelled: int = 0
    samples_quarantined: int = 0
    quarantined_by_reason: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    groups_sealed: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    stage_seconds: dict[str, float] = field(default_factory=dict)
    stage_peak_mib: dict[str, float] = field(default_factory=dict)
    stage_samples: dict[str, int] = field(default_factory=dict)
    stage_pictures: dict[str, int] = field(default_factory=dict)
    gpus: float = 0.0
    teacher_recipes: dict[str, str] = field(default_factory=dict)
    finished: str = ""
    retries: dict[str, int] = field(default_factory=dict)
    node_losses: int = 0
    actor_restarts: int = 0

    @property
    def wall_over_teachers(self) -> float | None:
        """The wall time divided by the summed work of the teachers; None if they had none."""
        work = self._teachers_seconds
        return self.seconds / work if work else None

    @property
    def efficiency(self) -> float | None:
        """The share of the time of all GPUs in which a teacher computed; None without GPUs or teachers.

        It is the rate that was reached, divided by the rate of teachers that never wait. Starting the run and loading
        the teachers count as waiting. If the teachers share a GPU, each is slowed down by the other one, and the value
        can exceed 1.
        """
        gpu_seconds, work = self.seconds * self.gpus, self._teachers_seconds
        return work / gpu_seconds if gpu_seconds and work else None

    @property
    def pictures_per_second(self) -> dict[str, float]:
        """The pictures of a stage divided by its work in seconds, which is the rate of one worker."""
        work = {name: self.stage_seconds.get(name, 0.0) for name in self.stage_pictures}
        return {name: count / work[name] for name, count in self.stage_pictures.items() if work[name]}

    @property
    def _teachers_seconds(self) -> float:
        return sum(self.stage_seconds.get(name, 0.0) for name in SHARD_TEACHERS)

    def count_work(self, done: Sequence[ShardPlan]) -> None:
        """Count the samples and pictures of each stage of the shards that were worked on."""
        for shard in done:
            pictures = sum(len(sample.cameras) for sample in shard.samples)
            for name in shard.todo:
                self.stage_samples[name] = self.stage_samples.get(name, 0) + len(shard.samples)
                self.stage_pictures[name] = self.stage_pictures.get(name, 0) + pictures

    def count_samples(self, records: Collection[ShardRecord]) -> None:
        """Count how many samples of these shards are in the cache, and how many are quarantined, by reason."""
        quarantined = [entry for record in records for entry in record.quarantined]
        self.samples_labelled = sum(len(record.samples) for record in records)
        self.samples_quarantined = len(quarantined)
        self.quarantined_by_reason = dict(
            Counter(f"{entry.stage}: {short_reason(entry.stage, entry.reason)}" for entry in quarantined)
        )

    def count_setbacks(self, found: Setbacks) -> None:
        """Take over the counts that are not zero."""
        self.retries = {reason: count for reason, count in found.retries.items() if count}
        self.node_losses, self.actor_restarts = found.node_losses, found.actor_restarts

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as a JSON-ready object."""
        return {
            **asdict(self),
            "wall_over_teachers": self.wall_over_teachers,
            "efficiency": self.efficiency,
            "pictures_per_second": self.pictures_per_second,
        }

    def render(self, width: int) -> str:
        """Return the summary as text of at most `width` columns, but for paths, which stay in one piece."""
        console = Console(file=io.StringIO(), width=width)
        for line in self._lines():
            console.print(Text(printable(line)), soft_wrap=True)
        if self.stage_seconds:
            console.print(self._table())
        share = self.wall_over_teachers
        work = f"; the teachers' work, summed over workers, is {self.seconds / share:.1f} s" if share else ""
        total = f"{self.seconds:.1f} s in total{work}"
        console.print(Text(total))
        rendered = console.file.getvalue() if isinstance(console.file, io.StringIO) else ""
        return "\n".join(line.rstrip() for line in rendered.splitlines())

    def _lines(self) -> list[str]:
        setbacks = str(Setbacks(Counter(self.retries), self.node_losses, self.actor_restarts))
        return [
            f"{self.cache}: {counted(self.shards_done, 'shard')} done, {self.shards_kept:,} up to date before",
            f"teachers: {self.teachers}",
            f"samples: {self.samples_labelled:,} labelled, {self.samples_quarantined:,} quarantined",
            *(f"  {count}x {reason}" for reason, count in self.quarantined_by_reason.items()),
            *([f"setbacks: {setbacks}"] if setbacks else []),
            *(f"warning: {warning}" for warning in self.warnings),
        ]

    def _table(self) -> Table:
        """Return the work by kind, most first."""
        table = Table("work", box=None, padding=(0, 2, 0, 0))
        table.add_column("seconds", justify="right")
        table.add_column("peak MiB of a process", justify="right")
        for work, seconds in sorted(self.stage_seconds.items(), key=lambda item: -item[1]):
            table.add_row(work, f"{seconds:,.1f}", f"{self.stage_peak_mib[work]:,.0f}")
        return table

"""What a run would do and take: counted from its plan, and forecast from the last run on the same cache."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cache_schemas.group_path import GroupPath
from cache_schemas.names import printable
from cache_schemas.past_run import PastRun
from cache_schemas.plurals import counted
from cache_schemas.store import Cache
from labelgen.presets import preset_of
from labelgen.stages import STAGES
from pipelines.announcement import refuse_incomplete
from pipelines.fingerprints import recipe_of
from pipelines.manifest import refuse_unfit
from pipelines.plan import SHARD_GROUPS, Planner, ShardPlan, needs_work
from pipelines.run import RunRequest, plan_request, read_dataset
from pipelines.summary import SHARD_TEACHERS

SHARDS_WEIGHED = 16
"""The bytes of a sample are the mean of those in so many sealed shards."""


@dataclass(frozen=True)
class GroupForecast:
    """One kind of group: how many shards lack it, their samples and pictures, and what it takes; None is unknown.

    `teacher_seconds` is the work of a teacher summed over its actors, None also for groups without a teacher.
    """

    shards: int
    samples: int
    pictures: int
    teacher_seconds: float | None
    bytes: int | None


@dataclass(frozen=True)
class Forecast:
    """What a run would do. None is unknown.

    `wall_seconds` and `gpu_hours` hold for a cluster like that of the last run on this cache, which ended at
    `measured` and had `gpus`.
    """

    cache: str
    dataset: str
    split: str
    preset: str
    teachers: str
    shards_due: int
    shards_up_to_date: int
    samples: int
    pictures: int
    quarantined: int
    root_groups: tuple[str, ...]
    groups: dict[str, GroupForecast] = field(default_factory=dict)
    bytes: int | None = None
    measured: str | None = None
    gpus: float | None = None
    wall_seconds: float | None = None
    gpu_hours: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the forecast as a JSON-ready object."""
        return asdict(self)

    def render(self, width: int) -> str:
        """Return the forecast as text of at most `width` columns, but for paths, which stay in one piece."""
        output = io.StringIO()
        console = Console(file=output, width=width)
        for line in self._lines():
            console.print(Text(printable(line)), soft_wrap=True)
        if self.groups:
            console.print(self._table())
        for line in self._costs():
            console.print(Text(line), soft_wrap=True)
        return "\n".join(line.rstrip() for line in output.getvalue().splitlines())

    def _lines(self) -> list[str]:
        return [
            f"{self.cache}: {counted(self.shards_due, 'shard')} to do, {self.shards_up_to_date:,} up to date",
            f"{self.dataset}, split {self.split}, teachers {self.teachers}, preset {self.preset}",
            f"{counted(self.samples, 'sample')}, {counted(self.pictures, 'picture')}; {self.quarantined:,} quarantined",
            *(f"{name}: to make once for the cache" for name in self.root_groups),
        ]

    def _table(self) -> Table:
        table = Table("group", box=None, padding=(0, 2, 0, 0))
        for heading in ("shards", "pictures", "seconds of a teacher", "MB"):
            table.add_column(heading, justify="right")
        for name, group in self.groups.items():
            seconds = _number(group.teacher_seconds, 1) if STAGES[name].teacher else "-"
            megabytes = None if group.bytes is None else group.bytes / 1e6
            table.add_row(name, f"{group.shards:,}", f"{group.pictures:,}", seconds, _number(megabytes, 1))
        return table

    def _costs(self) -> list[str]:
        if not self.groups:
            return []
        hours = None if self.wall_seconds is None else self.wall_seconds / 3600
        gigabytes = None if self.bytes is None else self.bytes / 1e9
        source = f"measured by the run that ended at {self.measured}"
        if self.measured is None:
            source = "no run has ended on this cache: label a few shards (--limit 4), then plan again"
        return [
            f"hours: {_number(hours, 2)}, GPU hours: {_number(self.gpu_hours, 2)}, GB: {_number(gigabytes, 2)}",
            f"rates: {source}",
        ]


def forecast(request: RunRequest) -> Forecast:
    """Return what a run would do and take. Nothing is written, and no cluster is started.

    Raises:
        LabelgenError, CacheError: if the run could not start.
    """
    config = request.config
    adapter, resolved, scenes = read_dataset(request)
    cache = Cache(request.cache)
    if existing := cache.manifest():
        refuse_unfit(request.cache, existing, resolved)
    planner = Planner(adapter.data, cache, resolved)
    plan = plan_request(planner, scenes, request)
    records = cache.shard_records(shard.key for shard in plan)
    due = [shard for shard in plan if needs_work(shard, records.get(shard.key))]
    refuse_incomplete(planner, due, scenes, adapter, request.only_complete)
    past = PastRun.of(request.cache)
    recipes = {name: recipe_of(name, resolved) for name in SHARD_GROUPS}
    groups = _groups(due, recipes, _bytes_of_a_sample(cache, recipes), past)
    sizes = [group.bytes for group in groups.values()]
    wall_seconds = _wall_seconds(groups, past)
    return Forecast(
        cache=request.cache,
        dataset=config.dataset,
        split=config.split,
        preset=preset_of(config.model_dump(mode="json")),
        teachers=resolved.teachers.preset,
        shards_due=len(due),
        shards_up_to_date=len(plan) - len(due),
        samples=sum(len(shard.samples) for shard in due),
        pictures=sum(map(_pictures, due)),
        quarantined=sum(len(shard.quarantined) for shard in plan),
        root_groups=tuple(group.path.name for group in planner.due_roots()),
        groups=groups,
        bytes=None if None in sizes else sum(size for size in sizes if size is not None),
        measured=past.finished if past else None,
        gpus=past.gpus if past else None,
        wall_seconds=wall_seconds,
        gpu_hours=wall_seconds * past.gpus / 3600 if past and wall_seconds is not None else None,
    )


def _groups(
    due: Sequence[ShardPlan], recipes: Mapping[str, str], sample_bytes: Mapping[str, float], past: PastRun | None
) -> dict[str, GroupForecast]:
    groups = {}
    for name in SHARD_GROUPS:
        shards = [shard for shard in due if name in shard.todo]
        if not shards:
            continue
        samples, pictures = sum(len(shard.samples) for shard in shards), sum(map(_pictures, shards))
        rate = past.seconds_per_picture(name, recipes[name]) if past else None
        groups[name] = GroupForecast(
            len(shards),
            samples,
            pictures,
            None if rate is None else rate * pictures,
            round(sample_bytes[name] * samples) if name in sample_bytes else None,
        )
    return groups


def _pictures(shard: ShardPlan) -> int:
    return sum(len(sample.cameras) for sample in shard.samples)


def _bytes_of_a_sample(cache: Cache, recipes: Mapping[str, str]) -> dict[str, float]:
    """Return the mean bytes of a sample in groups that were made under these settings, by name of the group."""
    keys = cache.shard_keys()[:SHARDS_WEIGHED]
    seals = cache.seals(GroupPath(key, name) for key in keys for name in SHARD_GROUPS)
    found: dict[str, list[tuple[int, int]]] = {}
    for path, seal in seals.items():
        sizes = [array.bytes for array in seal.arrays.values()]
        if seal.recipe == recipes[path.name] and seal.samples and None not in sizes:
            total = sum(size for size in sizes if size is not None)
            found.setdefault(path.name, []).append((total, len(seal.samples)))
    return {name: sum(b for b, _ in pairs) / sum(n for _, n in pairs) for name, pairs in found.items()}


def _wall_seconds(groups: Mapping[str, GroupForecast], past: PastRun | None) -> float | None:
    """Return the time of the teachers' work on a cluster like that of the last run; None if a rate is unknown."""
    seconds = [groups[name].teacher_seconds for name in SHARD_TEACHERS if name in groups]
    known = [work for work in seconds if work is not None]
    if not past or past.wall_over_teachers is None or not seconds or len(known) < len(seconds):
        return None
    return sum(known) * past.wall_over_teachers


def _number(value: float | None, digits: int) -> str:
    return "unknown" if value is None else f"{value:,.{digits}f}"

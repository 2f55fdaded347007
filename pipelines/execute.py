"""Carry out a plan on Ray: bring shards up to date, several at once, each step as soon as its inputs are sealed."""

import asyncio
import errno
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from cache_schemas.documents import CacheManifest, ShardRecord
from cache_schemas.group_path import GroupPath
from cache_schemas.location import canonical
from cache_schemas.lock import writing
from cache_schemas.plurals import counted
from cache_schemas.store import Cache
from labelgen.file_warnings import FilesByText
from labelgen.stages import STAGES, TEACHERS
from labelgen.stages.stage import Stage
from pipelines import tasks
from pipelines.actor_pool import CallFailedError
from pipelines.cluster import Cluster as RayCluster
from pipelines.config import RaySettings
from pipelines.cpu_tasks import DEATHS, CpuTasks
from pipelines.errors import PipelineError
from pipelines.in_flight import ShardGate, most_shards, shard_bytes
from pipelines.memory_shortage import describe_shortage, is_memory_kill
from pipelines.metrics import MetricsPublisher
from pipelines.node_loss import MOST_LOSSES, is_node_loss, origin
from pipelines.order import Step, steps_of
from pipelines.plan import SHARD_GROUPS, BadSample, GroupPlan, Planner, ShardPlan
from pipelines.progress import Progress
from pipelines.setbacks import BAD_SAMPLES, Setbacks
from pipelines.tasks import Chunk, Job, Report
from pipelines.teacher_pools import TeacherPools
from pipelines.teaching import Teaching, count_calls

Bad = dict[str, BadSample]
"""Samples that cannot be used, by token."""


@dataclass
class Tally:
    """What the run did, summed over its tasks; `records` are those of the shards that are done, by key."""

    seconds: dict[str, float] = field(default_factory=dict)
    peak_mib: dict[str, float] = field(default_factory=dict)
    sealed: dict[str, int] = field(default_factory=dict)
    records: dict[str, ShardRecord] = field(default_factory=dict)
    warnings: FilesByText = field(default_factory=dict)
    setbacks: Setbacks = field(default_factory=Setbacks)

    def add(self, report: Report) -> None:
        """Add the report of one task."""
        for work, seconds in report.seconds.items():
            self.seconds[work] = self.seconds.get(work, 0.0) + seconds
        for work, mib in report.peak_mib.items():
            self.peak_mib[work] = max(self.peak_mib.get(work, 0.0), mib)
        for group in report.sealed:
            self.sealed[group] = self.sealed.get(group, 0) + 1
        for text, files in report.warnings.items():
            self.warnings.setdefault(text, set()).update(files)
        self.setbacks.retries.update(report.retries)


def execute(
    plan: Sequence[ShardPlan],
    job: Job,
    settings: RaySettings,
    planner: Planner,
    cluster: RayCluster,
    progress: Progress,
    manifest: CacheManifest,
) -> Tally:
    """Do all that `plan` says, and return what was done; `manifest` replaces the cache's once the teachers are loaded.

    Raises:
        PipelineError: if the whole run must stop: a full disk, a teacher that does not load.
    """
    try:
        return asyncio.run(_Execution(job, settings, planner, cluster, progress).run(plan, manifest))
    except OSError as error:
        raise PipelineError(_disk_error(job.cache_url, origin(error))) from None
    except DEATHS as error:
        if is_memory_kill(error):
            raise PipelineError(
                f"{describe_shortage(error)}: Ray killed a task that took more memory than those of other shards; free "
                "memory, or make a new cache with a lower shard_samples; then run the same command again"
            ) from None
        raise PipelineError(f"a worker died while writing ({error}); run the same command again") from None
    except RayError as error:
        reason = str(error).strip().splitlines()[-1]
        raise PipelineError(f"Ray failed ({type(error).__name__}: {reason}); run the same command again") from None


class _Execution:
    def __init__(
        self, job: Job, settings: RaySettings, planner: Planner, cluster: RayCluster, progress: Progress
    ) -> None:
        self.job, self.settings, self.planner, self.progress = job, settings, planner, progress
        self.cache = planner.cache
        self.tally = Tally()
        self.job_ref = ray.put(job)
        self.pools = TeacherPools(settings, self.job_ref, cluster, progress, self.tally.setbacks)
        self.teaching = Teaching(self.pools, settings, self.tally.add, progress.add)
        self.metrics = MetricsPublisher(job.resolved.settings.dataset, self.tally, progress)
        self.cpu = CpuTasks(self.job_ref, settings.retries, self.tally.add, progress.note)
        self.gate = ShardGate(self._most_shards)
        self.roots: dict[str, asyncio.Task[None]] = {}
        self.unusable: dict[str, BadSample] = {}

    async def run(self, plan: Sequence[ShardPlan], manifest: CacheManifest) -> Tally:
        """Load the teachers before the cache is touched, then make the groups outside the shards and all shards."""
        keepers = (self.progress.keep_printing, self.pools.keep_fitting, self.metrics.keep_publishing)
        keeping = [asyncio.create_task(keep()) for keep in keepers]
        work: list[asyncio.Task[None]] = []
        try:
            due_roots = self.planner.due_roots()
            await self._load_teachers(plan, due_roots)
            await asyncio.to_thread(self._write_manifest, manifest)
            self.roots = {group.path.name: asyncio.create_task(self._make_root(group)) for group in due_roots}
            work = [*self.roots.values(), asyncio.create_task(self._make_shards(plan))]
            await asyncio.gather(*work)
        finally:
            await _cancel([*keeping, *work])
            self.pools.close()
            self.metrics.publish()
            self.progress.finish()
        self._report_unusable()
        return self.tally

    def _report_unusable(self) -> None:
        """Report samples that cannot be read now, but were labelled before: their shards are left as they are.

        Raises:
            PipelineError: if there are any; all other work is done.
        """
        for token, why in list(self.unusable.items())[:1]:
            raise PipelineError(
                f"{counted(len(self.unusable), 'sample')} labelled before cannot be used now, and their shards stay as "
                f"they are, such as sample {token}: {why.reason}; to give up their labels, remove their shards from "
                "the cache; then run the same command again"
            )

    async def _load_teachers(self, plan: Sequence[ShardPlan], roots: Sequence[GroupPlan]) -> None:
        calls = dict.fromkeys(TEACHERS, 0)
        for shard in plan:
            for name, count in count_calls(shard, self.settings).items():
                calls[name] += count
        for group in roots:
            if teacher := STAGES[group.path.name].teacher:
                calls[teacher.name] = max(1, calls[teacher.name])
        if any(calls.values()):
            self.progress.note("loading the teachers")
        await self.pools.start(calls)

    async def _make_root(self, group: GroupPlan) -> None:
        """Make a group outside the shards, by one call to its teacher or one task.

        Raises:
            PipelineError: if that fails.
        """
        stage = STAGES[group.path.name]
        if not stage.teacher:
            await self.cpu.run(tasks.build_groups, stage.name, tasks.packed([group]))
            return
        await self._seal_parts(group, lambda: self._ask_for_root(stage))

    async def _ask_for_root(self, stage: Stage) -> "tuple[list[ray.ObjectRef[Any]], dict[str, str]]":
        assert stage.teacher, f"stage {stage.name} needs no teacher"
        try:
            return [await self.teaching.ask(stage.teacher, Chunk(stage.name))], {}
        except CallFailedError as error:
            raise PipelineError(f"{stage.description} could not be made: {error}") from None

    async def _make_shards(self, plan: Sequence[ShardPlan]) -> None:
        """Make all shards, in the order of the plan; each starts when there is room for it."""
        try:
            async with asyncio.TaskGroup() as group:
                for shard in plan:
                    await self.gate.enter(shard)
                    group.create_task(self._make_shard(shard))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    def _most_shards(self, shard: ShardPlan) -> int:
        height, width = self.job.resolved.settings.images.size
        actors, store_bytes = self.pools.actors, self.pools.store_bytes
        return most_shards(actors, len(shard.samples), shard_bytes(shard, height * width), store_bytes)

    async def _make_shard(self, shard: ShardPlan) -> None:
        """Bring one shard up to date, and make room for the next one."""
        try:
            await self._bring_up_to_date(shard)
        finally:
            self.gate.leave()

    async def _bring_up_to_date(self, shard: ShardPlan) -> None:
        """Make what is due of a shard; samples that turn out to be bad are quarantined, and the shard is replanned."""
        async with self.teaching.working():
            while True:
                await asyncio.to_thread(self._begin_shard, shard)
                bad = await self._make_groups(shard)
                if not bad:
                    break
                if labelled_before := {token: why for token, why in bad.items() if token in shard.labelled}:
                    self.unusable |= labelled_before
                    break
                self.progress.leave_out(len(bad), shard.todo)
                shard = await asyncio.to_thread(self.planner.without, shard, bad)
                self.tally.setbacks.retries[BAD_SAMPLES] += 1
            self.tally.records[shard.key] = shard.record
            self.progress.shard_done()

    async def _make_groups(self, shard: ShardPlan) -> Bad:
        """Seal the groups that are due, each step after those it depends on; returns the samples that are bad.

        A step that depends on one with bad samples does not run.
        """
        steps = steps_of(shard.todo, self.planner.resolved)
        running: dict[str, asyncio.Task[Bad]] = {}

        async def run_when_ready(step: Step) -> Bad:
            await asyncio.gather(*(asyncio.shield(self.roots[name]) for name in step.roots if name in self.roots))
            bad = _merge(await asyncio.gather(*(running[name] for name in step.after)))
            if bad:  # the shard is replanned anyway
                return bad
            with self.progress.working(stage.name for stage in step.stages):
                return await self._make_step(step, shard)

        for step in steps:
            running[step.name] = asyncio.create_task(run_when_ready(step))
        try:
            return _merge(await asyncio.gather(*running.values()))
        finally:
            await _cancel(running.values())

    async def _make_step(self, step: Step, shard: ShardPlan) -> Bad:
        stage = step.stages[0]
        if stage.teacher:
            return await self._ask_teacher(stage, shard)
        try:
            bad = await self._build(step, shard)
        except DEATHS:
            if not step.reads_raw_files:
                raise
            bad = await self.cpu.find_killers([stage.name for stage in step.stages], shard)
        for member in step.stages:
            self.progress.add(member.name, 0 if bad else len(shard.samples))
        return {token: BadSample("read", reason) for token, reason in bad.items()}

    async def _build(self, step: Step, shard: ShardPlan) -> dict[str, str]:
        """Build the groups of a CPU step in one task, or its one group in several; returns bad samples, if any."""
        groups = [self.planner.group(shard, stage.name) for stage in step.stages]
        if step.stages[0].join:
            return await self._seal_parts(groups[0], lambda: self.cpu.build_parts(step.name, shard))
        report = await self.cpu.run(tasks.build_groups, step.name, tasks.packed(groups))
        return report.bad_samples

    async def _ask_teacher(self, stage: Stage, shard: ShardPlan) -> Bad:
        """Have a teacher make one group of a shard."""
        group = self.planner.group(shard, stage.name)
        bad = await self._seal_parts(group, lambda: self.teaching.ask_in_chunks(stage, shard))
        return {token: BadSample(stage.name, reason) for token, reason in bad.items()}

    async def _seal_parts(
        self, group: GroupPlan, ask: "Callable[[], Awaitable[tuple[list[ray.ObjectRef[Any]], dict[str, str]]]]"
    ) -> dict[str, str]:
        """Seal a group of the parts that `ask` gets; returns bad samples instead, if there are any.

        Parts that are lost with their node before they are written are asked for again.
        """
        for left in reversed(range(MOST_LOSSES)):
            parts, bad = await ask()
            if bad:
                return bad
            try:
                await self.cpu.run(tasks.gather_parts, replace(group, samples=()), *parts)
                return {}
            except Exception as error:
                if not left or not is_node_loss(error):
                    raise
            self.tally.setbacks.node_losses += 1
            self.progress.note(f"{group.path}: parts of it were lost with a node; making them again")
        raise AssertionError("unreachable")

    # Requests to a store take their time, so these run in threads beside the event loop.

    def _write_manifest(self, manifest: CacheManifest) -> None:
        with self._writing():
            Cache.create(self.job.cache_url, manifest)

    def _begin_shard(self, shard: ShardPlan) -> None:
        """Write the record of a shard, and remove groups, sealed or half written, that the shard no longer has."""
        with self._writing():
            self.cache.write_shard_record(shard.key, shard.record)
            for name in self.cache.group_names(shard.key):
                if name in SHARD_GROUPS and name not in shard.fingerprints:
                    self.cache.remove_group(GroupPath(shard.key, name))

    def _writing(self) -> AbstractContextManager[None]:
        return writing(self.job.cache_url, self.job.holder)


def _merge(found: Sequence[Bad]) -> Bad:
    """Join the bad samples of several steps; the first step that found one gives the reason."""
    return {token: bad for samples in reversed(found) for token, bad in samples.items()}


async def _cancel(work: Any) -> None:
    """Cancel asyncio tasks, and wait until they have ended."""
    for task in work:
        task.cancel()
    await asyncio.gather(*work, return_exceptions=True)


def _disk_error(cache_url: str, error: BaseException) -> str:
    """Return what to tell the user about an error of a disk; its file may be outside the cache, such as one of Ray."""
    number, file = getattr(error, "errno", None), getattr(error, "filename", None)
    reason = getattr(error, "strerror", None) or error
    what, fix = f"cannot write ({reason})", "check that the folder can be written"
    if number == errno.ENOSPC:
        fix = "the disk is full: free some space"
    elif number == errno.EDQUOT:
        fix = "the quota is used up: free some space"
    elif file and number == errno.ENOENT:
        what, fix = "has vanished during the run", "find out what removes files there"
    elif file and not Path(str(file)).is_relative_to(canonical(cache_url)):
        what, fix = f"fails ({reason})", "check this file and its disk"
    return f"{file or cache_url}: {what}; {fix}, then run the same command; sealed groups are kept"

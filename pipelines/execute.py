"""Carry out a plan on Ray: every shard through images and points, teachers, labels; group by group."""

import asyncio
import errno
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, WorkerCrashedError

from cache_schemas.documents import CacheManifest
from cache_schemas.errors import CacheError
from cache_schemas.group_path import GroupPath
from cache_schemas.layout import SHARD_GROUPS
from cache_schemas.lock import writing
from cache_schemas.store import Cache
from labelgen.errors import LabelgenError, SampleError
from labelgen.samples import Sample
from pipelines import tasks
from pipelines.errors import PipelineError
from pipelines.plan import Planner, ShardPlan
from pipelines.pool import ActorPool, CallFailedError, origin
from pipelines.pools import TeacherPools
from pipelines.progress import Progress
from pipelines.tasks import Job, Report

_SOON_SECONDS = 0.1

DEATHS = (WorkerCrashedError, OutOfMemoryError)
"""How Ray reports a task whose worker died more often than it may be tried again."""


@dataclass
class Tally:
    """What the run did, summed over its tasks."""

    seconds: dict[str, float] = field(default_factory=dict)
    peak_mib: dict[str, float] = field(default_factory=dict)
    sealed: dict[str, int] = field(default_factory=dict)
    finished: list[ShardPlan] = field(default_factory=list)

    def add(self, report: Report) -> None:
        """Add one task's report."""
        for stage, seconds in report.seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        for stage, mib in report.peak_mib.items():
            self.peak_mib[stage] = max(self.peak_mib.get(stage, 0.0), mib)
        for group in report.sealed:
            self.sealed[group] = self.sealed.get(group, 0) + 1


def execute(
    plan: Sequence[ShardPlan],
    job: Job,
    planner: Planner,
    resources: dict[str, float],
    progress: Progress,
    manifest: CacheManifest,
) -> Tally:
    """Do all that `plan` says, and return what was done; `manifest` replaces the cache's once the teachers stand.

    Raises:
        PipelineError: if the run as a whole cannot go on: a full disk, a teacher that does not load.
    """
    try:
        return asyncio.run(_Execution(job, planner, resources, progress).run(plan, manifest))
    except OSError as error:
        raise PipelineError(_disk_error(job.cache_url, origin(error))) from None
    except DEATHS as error:
        raise PipelineError(f"a worker died while writing ({error}); run the same command again") from None


class _Execution:
    def __init__(self, job: Job, planner: Planner, resources: dict[str, float], progress: Progress) -> None:
        self.job, self.planner, self.progress = job, planner, progress
        self.cache = planner.cache
        self.tally = Tally()
        self.job_ref = ray.put(job)
        self.pools = TeacherPools(job.config.ray, self.job_ref, resources, progress)
        self.gate = asyncio.Semaphore(job.config.ray.shards_in_flight)
        self.at_work = 0

    async def run(self, plan: Sequence[ShardPlan], manifest: CacheManifest) -> Tally:
        """Load the teachers before anything in the cache is touched, embed the class names, and build all shards."""
        ticker, work = asyncio.create_task(self.progress.keep_printing()), []
        try:
            await self._load_teachers(plan)
            with self._writing():
                Cache.create(self.job.cache_url, manifest)
            self.text = asyncio.create_task(self._embed_text())
            work = [self.text, *(asyncio.create_task(self._build_shard(shard)) for shard in plan)]
            await asyncio.gather(*work)
        finally:
            ticker.cancel()
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            self.pools.close()
            self.progress.finish()
        return self.tally

    async def _load_teachers(self, plan: Sequence[ShardPlan]) -> None:
        self.progress.note("loading the teachers")
        calls = {teacher: sum(self._calls(teacher, shard) for shard in plan) for teacher in ("clip", "sam")}
        if self._text_is_due():
            calls["clip"] = max(1, calls["clip"])
        await self.pools.start(calls)

    def _calls(self, teacher: str, shard: ShardPlan) -> int:
        step = self.job.config.ray.pool(teacher).samples_per_call
        return -(-len(shard.samples) // step) if teacher in shard.todo else 0

    def _text_is_due(self) -> bool:
        seal = self.cache.seals([text := GroupPath.root("text")]).get(text)
        return seal is None or seal.fingerprint != self.job.recipe.text_fingerprint

    async def _embed_text(self) -> None:
        if self._text_is_due():
            pool = await self.pools.of("clip")
            try:
                report, _ = await pool.call(lambda actor: actor.write_text.remote())
            except CallFailedError as error:
                raise PipelineError(f"embedding the class names failed: {error}") from None
            self.tally.add(report)

    async def _build_shard(self, shard: ShardPlan) -> None:
        """Bring one shard up to date; samples that turn out bad are quarantined and the shard planned anew."""
        async with self.gate, self._counted():
            while True:
                with self._writing():
                    self.cache.write_shard_record(shard.key, shard.record)
                    self._drop_groups_without_plan(shard)
                bad, stage = await self._read_raw(shard)
                if not bad and shard.samples:
                    bad, stage = await self._ask_teachers(shard)
                if not bad:
                    break
                shard = self.planner.without(shard, bad, stage)
                self.progress.quarantined += len(bad)
            if "labels" in shard.todo:
                await self._run(tasks.write_labels, shard)
            self.tally.finished.append(shard)
            self.progress.shard_done()

    async def _read_raw(self, shard: ShardPlan) -> tuple[dict[str, str], str]:
        """Seal what comes straight from raw files; returns bad samples (why, by token) and the stage's name."""
        due = []
        if "images" in shard.todo:
            due.append(tasks.write_images)
        if shard.todo & {"points", "pairs", "truth"}:
            due.append(tasks.write_points)
        try:
            reports = await asyncio.gather(*(self._run(task, shard) for task in due))
        except DEATHS:
            return await self._find_killers(shard), "read"
        return {token: why for report in reports for token, why in report.bad_samples.items()}, "read"

    async def _find_killers(self, shard: ShardPlan) -> dict[str, str]:
        """Read the shard's samples one by one, each in a task of its own, to see which kills its worker."""
        bad = {}
        for sample in shard.samples:
            try:
                report = await self._run(tasks.check_sample, sample)
                bad.update(report.bad_samples)
            except DEATHS:
                bad[sample.token] = f"reading its files kills the worker ({self.job.config.ray.retries + 1} tries)"
        if not bad:
            raise PipelineError(
                f"reading shard {shard.key} kills its worker, but no single sample does: out of memory? "
                "Lower ray.shards_in_flight or shard_samples, then run again"
            )
        return bad

    async def _ask_teachers(self, shard: ShardPlan) -> tuple[dict[str, str], str]:
        """Seal `clip` and `sam` where due; returns bad samples and the stage that they failed in."""
        due: dict[str, Awaitable[dict[str, str]]] = {}
        if "clip" in shard.todo:
            due["clip"] = self._score(shard)
        if "sam" in shard.todo:
            due["sam"] = self._teach(shard, "sam", self._segment_call, tasks.write_sam)
        for stage, bad in zip(due, await asyncio.gather(*due.values()), strict=True):
            if bad:
                return bad, stage
        return {}, ""

    async def _score(self, shard: ShardPlan) -> dict[str, str]:
        """Ask CLIP, which reads the embedded class names from the cache."""
        await self.text
        return await self._teach(shard, "clip", self._score_call, tasks.write_clip)

    async def _teach(
        self,
        shard: ShardPlan,
        teacher: str,
        submit: Callable[[Any, ShardPlan, Sequence[Sample]], list[ray.ObjectRef]],
        write: Any,
    ) -> dict[str, str]:
        pool = await self.pools.of(teacher)
        bad: dict[str, str] = {}

        async def ask(samples: Sequence[Sample]) -> list[ray.ObjectRef]:
            try:
                report, result = await pool.call(lambda actor: submit(actor, shard, samples))
            except (CallFailedError, SampleError) as error:
                if len(samples) == 1:
                    bad[samples[0].token] = f"{teacher}: {error}"
                    return []
                halves = await asyncio.gather(*(ask([sample]) for sample in samples))
                return [part for half in halves for part in half]
            self.tally.add(report)
            self.progress.add(teacher, len(samples))
            return [result]

        step = self.job.config.ray.pool(teacher).samples_per_call
        chunks = [shard.samples[start : start + step] for start in range(0, len(shard.samples), step)]
        parts = [part for answered in await asyncio.gather(*map(ask, chunks)) for part in answered]
        if bad:
            await self._second_opinion(pool)
        else:
            await self._run(write, shard, *parts)
        return bad

    async def _second_opinion(self, pool: ActorPool) -> None:
        """Wait until a pool has done anything, or no other shard is at work that could show that it can.

        Raises:
            PipelineError: if it is the pool that is bad, and not the samples.
        """
        self.at_work -= 1
        try:
            while self.at_work and not pool.has_succeeded:
                await asyncio.sleep(_SOON_SECONDS)
        finally:
            self.at_work += 1
        pool.check()

    @asynccontextmanager
    async def _counted(self) -> AsyncIterator[None]:
        self.at_work += 1
        try:
            yield
        finally:
            self.at_work -= 1

    def _score_call(self, actor: Any, shard: ShardPlan, samples: Sequence[Sample]) -> list[ray.ObjectRef]:
        start = shard.samples.index(samples[0])
        first = sum(len(sample.cameras) for sample in shard.samples[:start])
        refs: list[ray.ObjectRef] = actor.score.remote(shard.key, first, first + sum(len(s.cameras) for s in samples))
        return refs

    def _segment_call(self, actor: Any, shard: ShardPlan, samples: Sequence[Sample]) -> list[ray.ObjectRef]:
        refs: list[ray.ObjectRef] = actor.segment.remote(*tasks.decode.remote(self.job_ref, list(samples)))
        return refs

    async def _run(self, task: Any, *args: Any) -> Report:
        """Run a CPU task; a worker that dies is replaced and the task tried again, as often as retries say."""
        try:
            report: Report = await task.options(max_retries=self.job.config.ray.retries).remote(self.job_ref, *args)
        except (LabelgenError, CacheError) as error:
            raise origin(error) from None
        self.tally.add(report)
        return report

    def _drop_groups_without_plan(self, shard: ShardPlan) -> None:
        """Remove groups, sealed or half written, that the shard no longer has; all others are kept or redone."""
        for group in SHARD_GROUPS:
            if group not in shard.fingerprints:
                self.cache.remove_group(GroupPath(shard.key, group))

    def _writing(self) -> AbstractContextManager[None]:
        return writing(self.job.cache_url, self.job.holder)


def _disk_error(cache_url: str, error: OSError) -> str:
    fix = {
        errno.ENOSPC: "the disk is full: free some space, then run the same command; sealed groups are kept",
        errno.EDQUOT: "the quota is used up: free some space, then run the same command; sealed groups are kept",
    }.get(error.errno or 0, "check that the folder can be written, then run the same command")
    return f"{cache_url}: cannot write ({error.strerror or error}); {fix}"

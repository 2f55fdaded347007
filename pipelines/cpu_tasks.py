"""Run the CPU tasks of a shard, and find out which sample kills the worker that reads it."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, WorkerCrashedError

from cache_schemas.errors import CacheError
from labelgen.errors import LabelgenError
from labelgen.samples import Sample
from pipelines import tasks
from pipelines.errors import PipelineError
from pipelines.memory_shortage import (
    MOST_KILLS,
    MemoryOfSuccess,
    describe_shortage,
    pause_seconds,
    shortage_error,
)
from pipelines.node_loss import origin
from pipelines.plan import ShardPlan
from pipelines.setbacks import MEMORY_KILLS
from pipelines.tasks import Job, Report

DEATHS = (WorkerCrashedError, OutOfMemoryError)
"""What is raised for a task whose worker died more often than the task may be retried."""

PICTURES_A_PART = 30
"""Pictures of one task of a stage that is built in parts: half a second of work for those of nuScenes."""


def cut_into_parts(samples: Sequence[Sample]) -> list[tuple[Sample, ...]]:
    """Divide samples into parts, in order. Each has at least `PICTURES_A_PART` pictures, except for the last one."""
    parts: list[tuple[Sample, ...]] = []
    part: list[Sample] = []
    for sample in samples:
        part.append(sample)
        if sum(len(member.cameras) for member in part) >= PICTURES_A_PART:
            parts.append(tuple(part))
            part = []
    return parts + ([tuple(part)] if part else [])


class CpuTasks:
    """Runs CPU tasks; if the worker of one dies, Ray retries the task in another worker, up to `retries` times.

    A task that Ray's memory monitor kills is tried again after a pause, which grows from kill to kill. It is only
    charged with that, and given up, if its worker had taken more memory than any whose task succeeded.
    """

    def __init__(
        self,
        job_ref: "ray.ObjectRef[Job]",
        retries: int,
        add_report: Callable[[Report], None],
        say: Callable[[str], None],
    ) -> None:
        """Give the job to each task, report each to `add_report`, and kills by the memory monitor also to `say`."""
        self._job_ref, self._retries, self._add_report, self._say = job_ref, retries, add_report, say
        self._memory = MemoryOfSuccess()

    async def run(self, task: Any, *args: Any) -> Report:
        """Run a task that returns a report.

        Raises:
            LabelgenError, CacheError: if the task raised one.
            OutOfMemoryError: if the task takes more memory than its node has.
            PipelineError: if the node stays short of memory.
        """
        report, _ = await self._try(lambda: [task.options(max_retries=self._retries).remote(self._job_ref, *args)])
        return report

    async def build_parts(self, stage: str, shard: ShardPlan) -> "tuple[list[ray.ObjectRef[Any]], dict[str, str]]":
        """Build a stage for a few samples at a time, in several tasks; returns the parts in order, and bad samples."""

        async def build(samples: Sequence[Sample]) -> "tuple[Report, ray.ObjectRef[Any]]":
            task: Any = tasks.build_part.options(max_retries=self._retries)
            packed = tasks.packed(samples)
            report, (_, part) = await self._try(lambda: task.remote(self._job_ref, stage, shard.key, packed))
            return report, part

        built = await asyncio.gather(*map(build, cut_into_parts(shard.samples)))
        bad = {token: reason for report, _ in built for token, reason in report.bad_samples.items()}
        return [part for _, part in built], bad

    async def find_killers(self, stages: Sequence[str], shard: ShardPlan) -> dict[str, str]:
        """Read the samples of a shard one by one, each in a task of its own, to see which kills its worker.

        Raises:
            PipelineError: if none does.
        """
        bad = {}
        for sample in shard.samples:
            try:
                report = await self.run(tasks.check_sample, stages, sample)
                bad.update(report.bad_samples)
            except DEATHS:
                bad[sample.token] = f"reading its files kills the worker ({self._retries + 1} tries)"
        if not bad:
            raise PipelineError(
                f"reading shard {shard.key} kills its worker, but no single sample does: out of memory? "
                "Give it more, or make a new cache with a lower shard_samples"
            )
        return bad

    async def _try(
        self, submit: "Callable[[], Sequence[ray.ObjectRef[Any]]]"
    ) -> "tuple[Report, Sequence[ray.ObjectRef[Any]]]":
        """Start a task until it ends by itself; returns its report, which is the first of its results, and them all."""
        kills = charged = 0
        while True:
            results = submit()
            try:
                report: Report = await results[0]
            except (LabelgenError, CacheError) as error:
                raise origin(error) from None
            except OutOfMemoryError as error:
                kills += 1
                self._add_report(Report(retries=Counter({MEMORY_KILLS: 1})))
                charged += self._memory.is_exceeded(error)
                if charged > self._retries:
                    raise
                if kills - charged >= MOST_KILLS:
                    raise shortage_error("the same task", error) from None
                pause = pause_seconds(kills)
                self._say(f"{describe_shortage(error)}: Ray killed a task; trying it again in {pause:g} s")
                await asyncio.sleep(pause)
            else:
                self._memory.add(report)
                self._add_report(report)
                return report, results

"""Ask the teachers about a shard, in chunks of samples; a chunk that fails is asked again, sample by sample."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import accumulate
from typing import Any

import ray

from labelgen.errors import SampleError
from labelgen.samples import Sample
from labelgen.stages import STAGES
from labelgen.stages.stage import Stage, Teacher
from pipelines.actor_pool import ActorPool, CallFailedError
from pipelines.config import RaySettings
from pipelines.plan import ShardPlan
from pipelines.tasks import Chunk, Report, packed
from pipelines.teacher_pools import TeacherPools

POLL_SECONDS = 0.1

MOST_IMAGES_OF_A_SAMPLE = 16
"""A call takes at most so many images of one sample; the others go into further calls."""


def count_calls(shard: ShardPlan, settings: RaySettings) -> dict[str, int]:
    """Return how many calls a shard makes to each teacher."""
    calls: dict[str, int] = {}
    for name in shard.todo:
        if teacher := STAGES[name].teacher:
            chunks = cut_into_calls(shard.samples, settings.pool(teacher.name).samples_per_call)
            calls[teacher.name] = calls.get(teacher.name, 0) + len(chunks)
    return calls


def cut_into_calls(samples: Sequence[Sample], samples_per_call: int) -> list[tuple[Sample, ...]]:
    """Divide samples into calls, in order. A sample with many images is divided too: each part has some of them."""
    calls: list[tuple[Sample, ...]] = []
    together: list[Sample] = []
    for sample in samples:
        parts = [
            replace(sample, cameras=sample.cameras[start : start + MOST_IMAGES_OF_A_SAMPLE])
            for start in range(0, len(sample.cameras), MOST_IMAGES_OF_A_SAMPLE)
        ]
        if len(parts) > 1:
            calls += [tuple(together)] if together else []
            calls += [(part,) for part in parts]
            together = []
            continue
        together.append(sample)
        if len(together) == samples_per_call:
            calls.append(tuple(together))
            together = []
    return calls + ([tuple(together)] if together else [])


class Teaching:
    """Makes calls to the pools of the teachers, and tells bad samples from a bad pool."""

    def __init__(
        self,
        pools: TeacherPools,
        settings: RaySettings,
        add_report: Callable[[Report], None],
        add_samples: Callable[[str, int], None],
    ) -> None:
        """Report each call to `add_report`, and how many samples of a stage are answered to `add_samples`."""
        self._pools, self._settings = pools, settings
        self._add_report, self._add_samples = add_report, add_samples
        self._shards_working = 0

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Count a shard that may still make calls."""
        self._shards_working += 1
        try:
            yield
        finally:
            self._shards_working -= 1

    async def ask(self, teacher: Teacher, chunk: Chunk) -> "ray.ObjectRef[Any]":
        """Make one call; returns the reference to the part that it made.

        Raises:
            CallFailedError: if the call keeps failing.
            SampleError: if a raw file of the chunk cannot be used.
            PipelineError: if the pool has not answered a single call.
        """
        sent = packed(chunk)

        def submit(actor: Any) -> "Sequence[ray.ObjectRef[Any]]":
            call = actor.answer.options(name=f"TeacherActor.{chunk.stage}")  # what `ps` shows of the process
            refs: Sequence[ray.ObjectRef[Any]] = call.remote(sent)
            return refs

        pool = await self._pools.of(teacher.name)
        report, part = await pool.call(submit)
        self._add_report(report)
        return part

    async def ask_in_chunks(self, stage: Stage, shard: ShardPlan) -> "tuple[list[ray.ObjectRef[Any]], dict[str, str]]":
        """Ask about all samples of a shard; returns the parts in order, and bad samples (why, by token).

        Raises:
            PipelineError: if the pool has not answered a single call.
        """
        assert stage.teacher, f"stage {stage.name} needs no teacher"
        teacher = stage.teacher
        bad: dict[str, str] = {}

        waiting = Counter[str]()

        async def ask(first_image: int, samples: tuple[Sample, ...]) -> "list[ray.ObjectRef[Any]]":
            try:
                part = await self.ask(teacher, Chunk(stage.name, shard.key, samples, first_image))
            except (CallFailedError, SampleError) as error:
                if len(samples) == 1:
                    bad[samples[0].token] = f"{teacher.name}: {error}"
                    return []
            else:
                waiting.subtract(sample.token for sample in samples)
                self._add_samples(stage.name, sum(not waiting[sample.token] for sample in samples))
                return [part]
            singles = await ask_each(first_image, [(sample,) for sample in samples])
            return [part for single in singles for part in single]

        async def ask_each(first_image: int, calls: list[tuple[Sample, ...]]) -> "list[list[ray.ObjectRef[Any]]]":
            lengths = [sum(len(sample.cameras) for sample in samples) for samples in calls]
            starts = accumulate(lengths[:-1], initial=first_image)
            return await asyncio.gather(*map(ask, starts, calls))

        calls = cut_into_calls(shard.samples, self._settings.pool(teacher.name).samples_per_call)
        waiting.update(sample.token for samples in calls for sample in samples)
        answers = await ask_each(0, calls)
        if bad:
            await self._wait_for_success_elsewhere(await self._pools.of(teacher.name))
        return [part for answer in answers for part in answer], bad

    async def _wait_for_success_elsewhere(self, pool: ActorPool) -> None:
        """Wait until the pool has answered any call, or no other shard is working that could show that it can.

        Raises:
            PipelineError: if the pool is bad, and not the samples.
        """
        self._shards_working -= 1
        try:
            while self._shards_working and not pool.has_succeeded:
                await asyncio.sleep(POLL_SECONDS)
        finally:
            self._shards_working += 1
        pool.check()

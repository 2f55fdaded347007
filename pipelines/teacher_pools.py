"""One actor pool for each teacher: how many actors, in which order they start, and waiting until they are ready."""

import asyncio
from collections.abc import Mapping
from typing import Any

import ray

from pipelines.actor_pool import IN_FLIGHT, ActorPool
from pipelines.config import RaySettings
from pipelines.errors import PipelineError
from pipelines.progress import Progress
from pipelines.tasks import Job, TeacherActor


class TeacherPools:
    """Pools by teacher, started when they are first needed. A teacher without calls is never loaded."""

    def __init__(
        self, settings: RaySettings, job_ref: "ray.ObjectRef[Job]", resources: Mapping[str, float], progress: Progress
    ) -> None:
        """Plan pools for a cluster with these `resources`; actors read the job from `job_ref`."""
        self._settings = settings
        self._job_ref = job_ref
        self._gpus = resources.get("GPU", 0.0)
        self._cores = max(1, int(resources.get("CPU", 1)))
        self._progress = progress
        self._pools: dict[str, ActorPool] = {}

    async def start(self, calls: Mapping[str, int]) -> None:
        """Start a pool for each teacher that has calls, and wait until every actor has loaded its network.

        On GPUs, the teacher with the largest share of a GPU is placed first, so that the others fit beside it.

        Raises:
            PipelineError: if an actor cannot start, or the teachers ask for more GPUs than there are.
        """
        due = [teacher for teacher, count in calls.items() if count and teacher not in self._pools]
        counts = {name: self._settings.pool(name).actors or min(self._room(due), calls[name]) for name in due}
        threads = max(1, self._cores // max(1, sum(counts.values())))
        steps = [[teacher] for teacher in sorted(due, key=lambda name: -self._settings.pool(name).num_gpus)]
        for together in steps if self._gpus else [due]:
            pools = [self._pool(teacher, counts[teacher], threads) for teacher in together]
            await asyncio.gather(*(pool.wait_until_ready(self._progress.note) for pool in pools))

    async def of(self, teacher: str) -> ActorPool:
        """Return the pool of a teacher; one that the plan did not need so far starts now, with one actor."""
        await self.start({teacher: 1})
        return self._pools[teacher]

    def close(self) -> None:
        """End all actors."""
        for pool in self._pools.values():
            pool.close()

    def _room(self, due: list[str]) -> int:
        """Return how many actors of each due teacher fit: by shares of GPUs, or one for each core without GPUs."""
        together = sum(self._settings.pool(teacher).num_gpus for teacher in due)
        if not self._gpus or not together:
            return self._cores
        room = int(self._gpus) * int(1 / together + 1e-9) if together <= 1 + 1e-9 else int(self._gpus / together + 1e-9)
        if room == 0:
            raise PipelineError(
                f"{' and '.join(due)} ask for {together:g} GPUs together, the cluster has {self._gpus:g}: "
                f"lower {' or '.join(f'ray.{teacher}.num_gpus' for teacher in due)}"
            )
        return room

    def _pool(self, teacher: str, actors: int, threads: int) -> ActorPool:
        settings = self._settings.pool(teacher)
        gpus = settings.num_gpus if self._gpus else 0
        actor_class: Any = TeacherActor  # Ray replaces the class by one with `options`
        actor = actor_class.options(num_gpus=gpus, num_cpus=settings.num_cpus, max_concurrency=IN_FLIGHT)
        pool = ActorPool(teacher, lambda: actor.remote(self._job_ref, teacher, threads), actors, self._settings.retries)
        self._pools[teacher] = pool
        return pool

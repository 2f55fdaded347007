"""One actor pool for each teacher: how many actors, in which order they start, and waiting until they are ready."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import ray

from cache_schemas.plurals import counted
from pipelines.actor_pool import IN_FLIGHT, REMINDER_SECONDS, ActorPool
from pipelines.cluster import Cluster
from pipelines.config import RaySettings
from pipelines.errors import PipelineError
from pipelines.progress import Progress
from pipelines.setbacks import Setbacks
from pipelines.tasks import Job, TeacherActor

FIT_SECONDS = 10.0
ROUNDS_STUCK = 12
"""How often in a row a teacher must be seen without an actor before another one gives it room: it may be loading."""


class TeacherPools:
    """Pools by teacher, started when they are first needed. A teacher without calls is never loaded."""

    def __init__(
        self,
        settings: RaySettings,
        job_ref: "ray.ObjectRef[Job]",
        cluster: Cluster,
        progress: Progress,
        setbacks: Setbacks,
    ) -> None:
        """Plan pools for `cluster`; actors read the job from `job_ref`."""
        self._settings = settings
        self._job_ref = job_ref
        self._cluster = cluster
        self._progress = progress
        self._setbacks = setbacks
        self._pools: dict[str, ActorPool] = {}
        self._calls: dict[str, int] = {}
        self._threads = 1
        self._stuck: dict[str, int] = {}
        self._short_said = 0.0
        self._look(cluster.resources())

    async def start(self, calls: Mapping[str, int]) -> None:
        """Start a pool for each teacher that has calls, and wait until each has an actor that has loaded its network.

        On GPUs, the teacher with the largest share of a GPU is placed first, so that the others fit beside it.

        Raises:
            PipelineError: if an actor cannot start, or the teachers ask for more GPUs or cores than there are.
        """
        due = [teacher for teacher, count in calls.items() if count and teacher not in self._pools]
        if not due:
            return
        self._calls.update({teacher: calls[teacher] for teacher in due})
        counts = self._counts(due)
        if not all(counts.values()):
            raise PipelineError(
                f"{' and '.join(due)} ask for {self._share(due):g} GPUs together, the cluster has {self._gpus:g}: "
                f"lower {' or '.join(f'ray.{teacher}.num_gpus' for teacher in due)}"
            )
        if self._cluster.joined and not self._gpus and self._share(due):
            fix = " ".join(f"--set ray.{teacher}.num_gpus=0" for teacher in due)
            self._progress.note(f"the cluster has no GPU; waiting for one (to work on its CPUs: {fix})")
        if short := self._lack_of_cores():
            if not self._cluster.joined:
                raise PipelineError(short)
            self._progress.note(f"{short}; waiting for nodes")
        self._threads = max(1, self._cores // max(1, sum(counts.values())))
        steps = [[teacher] for teacher in sorted(due, key=lambda name: -self._settings.pool(name).num_gpus)]
        for together in steps if self._uses_gpus else [due]:
            pools = [self._pool(teacher, counts[teacher]) for teacher in together]
            await asyncio.gather(*(pool.wait_until_ready() for pool in pools))

    async def keep_fitting(self) -> None:
        """Fit the pools to the cluster, until cancelled: nodes can join it and get lost."""
        while True:
            await asyncio.sleep(FIT_SECONDS)
            self._look(await asyncio.to_thread(self._cluster.resources))
            self._make_room()
            self._fit()

    async def of(self, teacher: str) -> ActorPool:
        """Return the pool of a teacher; one that the plan did not need so far starts now, with one actor."""
        await self.start({teacher: 1})
        return self._pools[teacher]

    @property
    def actors(self) -> int:
        """The number of actors of the largest pool; without a pool, the number of cores, which do all work then."""
        return max((pool.size for pool in self._pools.values()), default=self._cores)

    def close(self) -> None:
        """End all actors."""
        for pool in self._pools.values():
            pool.close()

    def _look(self, resources: Mapping[str, float]) -> None:
        self._gpus = resources.get("GPU", 0.0)
        self.store_bytes = resources.get("object_store_memory", 0.0)
        self._cores = max(1, int(resources.get("CPU", 1)))
        self._uses_gpus = self._cluster.joined or self._gpus > 0

    def _make_room(self) -> None:
        """If a teacher has had no actor for a while, give it the place of an actor of another one."""
        for name, pool in self._pools.items():
            takes_a_place = self._settings.pool(name).num_cpus or (self._uses_gpus and self._share([name]))
            self._stuck[name] = self._stuck.get(name, 0) + 1 if takes_a_place and not pool.ready else 0
        others = [pool for pool in self._pools.values() if pool.ready and pool.size > 1]
        if others and any(rounds > ROUNDS_STUCK for rounds in self._stuck.values()):
            largest = max(others, key=lambda pool: pool.size)
            self._progress.note(f"giving up one {largest.name} actor, since another teacher has none")
            largest.give_up_one()
            self._stuck.clear()

    def _fit(self) -> None:
        """Shrink pools that no longer fit. Grow those that could be larger, once all actors so far are placed."""
        if (short := self._lack_of_cores()) and time.monotonic() - self._short_said > REMINDER_SECONDS:
            self._short_said = time.monotonic()
            self._progress.note(f"{short}; waiting for nodes")
        all_placed = all(pool.ready == pool.size for pool in self._pools.values())
        counts = self._counts(list(self._calls))
        for name, pool in self._pools.items():
            count = max(1, counts[name])
            if pool.size > count:
                self._progress.note(f"the cluster has become smaller: working with {counted(count, f'{name} actor')}")
            while pool.size > count:
                pool.give_up_one()
            if all_placed:
                pool.grow(count)

    def _counts(self, teachers: list[str]) -> dict[str, int]:
        """Return how many actors each teacher gets: what the settings say, else what fits, but not more than calls.

        Actors that take whole cores leave at least one for the tasks that decode and write.
        """
        room = self._room(teachers)
        pools = {name: self._settings.pool(name) for name in teachers}
        counts = {name: pool.actors or min(room, self._calls[name]) for name, pool in pools.items()}
        while sum(counts[name] * pool.num_cpus for name, pool in pools.items()) > self._cores - 1:
            fewer = [name for name, pool in pools.items() if pool.num_cpus and counts[name] > 1]
            if not fewer:
                break
            counts[max(fewer, key=lambda name: counts[name])] -= 1
        return counts

    def _lack_of_cores(self) -> str:
        """Return what to say if one actor of each teacher takes so many cores that no task can run; else nothing."""
        takes = {name: self._settings.pool(name).num_cpus for name in self._calls}
        if sum(takes.values()) <= self._cores - 1:
            return ""
        lower = " or ".join(f"ray.{name}.num_cpus" for name, cores in takes.items() if cores)
        return (
            f"{' and '.join(takes)} ask for {sum(takes.values()):g} cores together, and the tasks that decode and "
            f"write need one; there are {self._cores}: lower {lower}"
        )

    def _room(self, teachers: list[str]) -> int:
        """Return how many actors of each teacher fit: by shares of GPUs, or one for each core without GPUs.

        A cluster that has no GPU yet may get some, so there the answer is one.
        """
        together = self._share(teachers)
        if not self._uses_gpus or not together:
            return self._cores
        if not self._gpus:
            return 1
        if together <= 1 + 1e-9:
            return int(self._gpus) * int(1 / together + 1e-9)
        return int(self._gpus / together + 1e-9)

    def _share(self, teachers: list[str]) -> float:
        """Return the GPUs that one actor of each teacher takes."""
        return sum(self._settings.pool(teacher).num_gpus for teacher in teachers)

    def _pool(self, teacher: str, actors: int) -> ActorPool:
        settings = self._settings.pool(teacher)
        gpus = settings.num_gpus if self._uses_gpus else 0
        actor_class: Any = TeacherActor  # Ray replaces the class by one with `options`
        actor = actor_class.options(num_gpus=gpus, num_cpus=settings.num_cpus, max_concurrency=IN_FLIGHT)
        self._pools[teacher] = ActorPool(
            teacher,
            lambda: actor.remote(self._job_ref, teacher, self._threads),
            actors,
            self._settings.retries,
            self._progress.note,
            self._settings.placement_minutes * 60,
            self._setbacks,
        )
        return self._pools[teacher]

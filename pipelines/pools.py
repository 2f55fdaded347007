"""The two teachers' actor pools: how many actors, in which order they start, and waiting until they stand."""

from collections.abc import Mapping
from typing import Any

import ray

from pipelines import tasks
from pipelines.config import RaySettings
from pipelines.errors import PipelineError
from pipelines.pool import ActorPool
from pipelines.progress import Progress
from pipelines.tasks import Job

ACTORS = {"clip": tasks.ClipActor, "sam": tasks.SamActor}


class TeacherPools:
    """Pools by teacher, started when they are first needed; a teacher with nothing to do is never loaded."""

    def __init__(
        self, settings: RaySettings, job_ref: "ray.ObjectRef[Job]", resources: Mapping[str, float], progress: Progress
    ) -> None:
        """Plan pools for a cluster with these resources; actors take the job from `job_ref`."""
        self._settings = settings
        self._job_ref = job_ref
        self._gpus = resources.get("GPU", 0.0)
        self._cores = max(1, int(resources.get("CPU", 1)))
        self._progress = progress
        self._pools: dict[str, ActorPool] = {}

    async def start(self, calls: Mapping[str, int]) -> None:
        """Start a pool for each teacher with calls to make, and wait until every actor has loaded its network.

        The teacher with the larger share of a GPU is placed first, so that the other fits in beside it.

        Raises:
            PipelineError: if an actor cannot start, or the teachers ask for more GPUs than there are.
        """
        due = [teacher for teacher, count in calls.items() if count and teacher not in self._pools]
        counts = {name: self._settings.pool(name).actors or min(self._room(due), calls[name]) for name in due}
        threads = max(1, self._cores // max(1, sum(counts.values())))
        for teacher in sorted(due, key=lambda name: -self._settings.pool(name).num_gpus):
            spawn = self._spawner(teacher, threads)
            self._pools[teacher] = ActorPool(teacher, spawn, counts[teacher], self._settings.retries)
            await self._pools[teacher].started(self._progress.note)

    async def of(self, teacher: str) -> ActorPool:
        """Return a teacher's pool; one that nobody foresaw starts now, with one actor."""
        await self.start({teacher: 1})
        return self._pools[teacher]

    def close(self) -> None:
        """End all actors."""
        for pool in self._pools.values():
            pool.close()

    def _room(self, due: list[str]) -> int:
        """Return how many actors of each due teacher fit: by GPU shares, or one a core without GPUs."""
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

    def _spawner(self, teacher: str, threads: int) -> Any:
        settings = self._settings.pool(teacher)
        gpus = settings.num_gpus if self._gpus else 0
        return lambda: ACTORS[teacher].options(num_gpus=gpus, num_cpus=settings.num_cpus).remote(self._job_ref, threads)

"""A pool of Ray actors that replaces actors that die, and retries calls.

Each actor has up to two calls, so that it is never idle. When an actor dies, it is replaced. Its calls run again, each
alone on an actor, so that the next death is charged to the call that caused it. A call is given up after a bounded
number of tries. Actors that are lost with their node are replaced too, and no call is charged.

Ray's memory monitor kills actors while their node is short of memory. They are replaced after a pause, which grows from
kill to kill. A call is only charged with that if its actor had taken more memory than any that answered a call.

Calls go to actors that are ready. An actor that Ray cannot place, because a GPU is busy or a node is lost, only makes
the pool smaller until it can be placed.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError

from cache_schemas.errors import CacheError
from cache_schemas.plurals import counted
from labelgen.errors import LabelgenError
from pipelines.errors import PipelineError
from pipelines.failures import CallFailures, StartFailures, cannot_start
from pipelines.memory_shortage import (
    MOST_KILLS,
    MemoryOfSuccess,
    describe_shortage,
    is_memory_kill,
    pause_seconds,
    shortage_error,
)
from pipelines.node_loss import origin
from pipelines.setbacks import MEMORY_KILLS, Setbacks

IN_FLIGHT = 2
REMINDER_SECONDS = 60.0
LATE_SECONDS = 15.0
"""How long a pool waits for its other actors once one is ready. Those that are late join while it works."""

BROKEN_AFTER_CALLS = 5
"""After this number of given-up calls without one success, the pool itself counts as broken."""


Submit = Callable[[Any], "Sequence[ray.ObjectRef[Any]]"]
"""Starts a call on an actor."""


class CallFailedError(Exception):
    """A call was given up; the message is the reason of its last failure."""


@dataclass(eq=False)
class _Worker:
    """A place for an actor, and the actor there; `kills` are those by the memory monitor since its last success."""

    actor: Any
    kills: int = 0
    waiting: int = 0
    ready: bool = False
    leaving: bool = False
    loading: "asyncio.Task[None] | None" = None


class ActorPool:
    """Runs calls on actors made by `spawn`, at most `IN_FLIGHT` at a time on each."""

    def __init__(
        self,
        name: str,
        spawn: Callable[[], Any],
        actors: int,
        retries: int,
        say: Callable[[str], None],
        patience_seconds: float = float("inf"),
        setbacks: Setbacks | None = None,
    ) -> None:
        """Start `actors` actors; a call that fails is retried `retries` times.

        Actors that are not ready are reported through `say`, at regular intervals. The pool fails if none is ready for
        `patience_seconds`. Retries, losses and restarts are counted in `setbacks`.
        """
        self.name = name
        self._spawn = spawn
        self._retries = retries
        self._say = say
        self._patience_seconds = patience_seconds
        self._setbacks = setbacks or Setbacks()
        self._workers = [_Worker(spawn()) for _ in range(actors)]
        self._reminder: asyncio.Task[None] | None = None
        self._failure: PipelineError | None = None
        self._changed = asyncio.Condition()
        self._turn = asyncio.Lock()
        self._suspects_waiting = 0
        self._calls = 0
        self._undecided = 0
        self._successes = 0
        self._given_up = 0
        self._last_failure = ""
        self._memory = MemoryOfSuccess()

    @property
    def size(self) -> int:
        """The number of actors, ready or not."""
        return len(self._workers)

    @property
    def ready(self) -> int:
        """The number of actors that are ready."""
        return sum(worker.ready for worker in self._workers)

    @property
    def has_succeeded(self) -> bool:
        """Whether any call has succeeded so far."""
        return self._successes > 0

    def check(self) -> None:
        """Check that the pool is not broken.

        Raises:
            PipelineError: if it has given up many calls and none has succeeded.
        """
        if not self._successes and self._given_up >= BROKEN_AFTER_CALLS:
            raise PipelineError(
                f"{self.name} failed on each of its first {self._given_up} calls, the last time with "
                f"{self._last_failure}; fix the cause, then run the same command again"
            )

    async def call(self, submit: Submit) -> "tuple[Any, ray.ObjectRef[Any]]":
        """Run one call: `submit(actor)` starts it and returns two references, to a small report and to the result.

        Returns the report's value and the reference to the result.

        Raises:
            CallFailedError: if the call keeps failing or keeps killing its actor.
            LabelgenError, CacheError: if the call raised one, since a retry would raise it again.
            PipelineError: if the pool is broken, or a node stays short of memory.
        """
        self._calls += 1
        self._load_all()
        try:
            return await self._try(submit)
        finally:
            self._calls -= 1
            async with self._changed:
                self._changed.notify_all()

    async def _try(self, submit: Submit) -> "tuple[Any, ray.ObjectRef[Any]]":
        failures = CallFailures(self.name, self._memory, self._setbacks)
        while len(failures.charged) <= self._retries:
            await asyncio.sleep(failures.pause)
            async with self._worker(alone=failures.suspect) as worker:
                actor = worker.actor
                try:
                    report, result = submit(actor)
                    value = await report
                    self._count_success(worker, value)
                    return value, result
                except (LabelgenError, CacheError) as error:
                    raise origin(error) from None
                except Exception as error:
                    if worker.leaving:
                        continue
                    self._replace_if_dead(worker, actor, error)
                    failures.add(error)
        tries, reason = len(failures.charged), failures.charged[-1]
        self._last_failure = reason
        await self._count_given_up()
        self.check()
        raise CallFailedError(f"{reason} ({tries} tries)")

    def _count_success(self, worker: _Worker, report: Any) -> None:
        self._successes += 1
        worker.kills = 0
        self._memory.add(report)

    async def wait_until_ready(self) -> None:
        """Wait until all actors are ready, or one is and the others are late.

        Raises:
            PipelineError: if an actor cannot start, or none could be placed for too long.
        """
        self._load_all()
        async with self._changed:
            await self._changed.wait_for(lambda: self._failure or self.ready)
            with suppress(TimeoutError):
                all_ready = self._changed.wait_for(lambda: self._failure or self.ready == self.size)
                await asyncio.wait_for(all_ready, LATE_SECONDS)
        self._refuse_if_failed()

    def grow(self, actors: int) -> None:
        """Start more actors until there are `actors`."""
        self._workers += [_Worker(self._spawn()) for _ in range(actors - self.size)]
        self._load_all()

    def give_up_one(self) -> None:
        """End one actor, to make room for other work: one that is not ready, else the least busy one.

        Its calls run again on another actor. They cannot be waited for: their pictures may be decoded only once there
        is room for that.
        """
        worker = min(self._workers, key=lambda worker: (worker.ready, worker.waiting))
        self._workers.remove(worker)
        worker.leaving = True
        self._end(worker)

    def close(self) -> None:
        """End all actors."""
        if self._reminder:
            self._reminder.cancel()
        for worker in self._workers:
            self._end(worker)

    async def _count_given_up(self) -> None:
        """Count a given-up call, and wait until it is known whether the call is bad or the pool.

        It is known once a call has succeeded, enough calls have been given up, or no call is left that could succeed.
        """
        async with self._changed:
            self._given_up += 1
            self._undecided += 1
            self._changed.notify_all()
            await self._changed.wait_for(
                lambda: self._successes or self._given_up >= BROKEN_AFTER_CALLS or self._undecided == self._calls
            )
            self._undecided -= 1

    @asynccontextmanager
    async def _worker(self, alone: bool) -> AsyncIterator[_Worker]:
        """Reserve one place on the least busy actor, or a whole actor if `alone`."""
        places = IN_FLIGHT if alone else 1
        if alone:
            worker = await self._reserve(places, alone)
        else:
            async with self._turn:  # thousands of calls may wait, and each change would wake all of them
                worker = await self._reserve(places, alone)
        try:
            yield worker
        finally:
            async with self._changed:
                worker.waiting -= places
                self._changed.notify_all()

    async def _reserve(self, places: int, alone: bool) -> _Worker:
        async with self._changed:
            self._suspects_waiting += alone
            await self._changed.wait_for(lambda: self._failure or self._has_room(places, alone))
            self._suspects_waiting -= alone
            self._refuse_if_failed()
            worker = self._least_busy()
            worker.waiting += places
            return worker

    def _has_room(self, places: int, alone: bool) -> bool:
        if not self.ready or (self._suspects_waiting and not alone):
            return False
        return self._least_busy().waiting + places <= IN_FLIGHT

    def _least_busy(self) -> _Worker:
        return min((worker for worker in self._workers if worker.ready), key=lambda worker: worker.waiting)

    def _load_all(self) -> None:
        """Watch, from now on, over each actor that is not ready."""
        self._reminder = self._reminder or asyncio.create_task(self._remind())
        for worker in self._workers:
            worker.loading = worker.loading or asyncio.create_task(self._load(worker))

    async def _load(self, worker: _Worker, pause: float | None = None) -> None:
        """Wait until the actor of a worker is ready; replace one that dies while it loads.

        With a `pause`, in seconds, the actor is dead, and is replaced after it.
        """
        failures = StartFailures(self.name, self._retries, self._setbacks)
        while not self._failure:
            try:
                if pause is not None:
                    await asyncio.sleep(pause)
                    worker.actor = self._spawn()
                    self._setbacks.actor_restarts += 1
                await worker.actor.__ray_ready__.remote()
                worker.ready = True
                break
            except Exception as error:
                if not is_memory_kill(error):
                    pause = 0.0
                    self._failure = self._failure or failures.add(error)
                    continue
                pause = self._count_kill(worker, error)
                if worker.kills >= MOST_KILLS and not self.ready:
                    self._failure = shortage_error(f"the {self.name} actor", error)
        async with self._changed:
            self._changed.notify_all()

    async def _remind(self) -> None:
        """Report actors that are not ready, at regular intervals; fail if none is ready for too long."""
        last_ready = time.monotonic()
        while True:
            await asyncio.sleep(min(REMINDER_SECONDS, self._patience_seconds))
            if self.ready == self.size:
                last_ready = time.monotonic()
            elif self.ready:
                last_ready = time.monotonic()
                self._say(
                    f"Ray cannot place {self.size - self.ready} of {self.size} {self.name} actors now; "
                    f"working with {self.ready}"
                )
            elif time.monotonic() - last_ready < self._patience_seconds:
                self._say(f"still waiting for Ray to place and load {counted(self.size, f'{self.name} actor')}")
            else:
                self._failure = PipelineError(
                    f"Ray could not place or load a single {self.name} actor for {self._patience_seconds / 60:g} "
                    "minutes (ray.placement_minutes); add nodes, or lower what ray."
                    f"{self.name}.num_gpus and num_cpus ask for, then run the same command again"
                )
                async with self._changed:
                    self._changed.notify_all()
                return

    def _refuse_if_failed(self) -> None:
        if self._failure:
            raise self._failure

    def _replace_if_dead(self, worker: _Worker, actor: Any, error: Exception) -> None:
        """Replace the actor of a worker, once for all of its calls, if the error of a call says that it died."""
        killed = is_memory_kill(error)
        if not killed and not isinstance(error, RayActorError):
            return
        if not killed and "creation task" in str(error):
            raise cannot_start(self.name, error) from None
        if worker.actor is actor and worker.ready:
            ray.kill(actor)  # one that is only unreachable would keep its share of a GPU
            worker.ready = False
            worker.loading = asyncio.create_task(self._load(worker, self._count_kill(worker, error) if killed else 0.0))

    def _count_kill(self, worker: _Worker, error: Exception) -> float:
        """Count and report a kill by the memory monitor; returns how long to wait, in seconds."""
        worker.kills += 1
        self._setbacks.retries[MEMORY_KILLS] += 1
        pause = pause_seconds(worker.kills)
        self._say(f"{describe_shortage(error)}: Ray killed a {self.name} actor; starting it again in {pause:g} s")
        return pause

    def _end(self, worker: _Worker) -> None:
        if worker.loading:
            worker.loading.cancel()
        ray.kill(worker.actor)

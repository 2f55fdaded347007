"""A pool of Ray actors that replaces actors that die, and retries calls.

Each actor has up to two calls, so that it is never idle. When an actor dies, it is replaced. Its calls run again, each
alone on an actor, so that the next death is charged to the call that caused it. A call is given up after a bounded
number of tries.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError

from cache_schemas.errors import CacheError
from labelgen.errors import LabelgenError
from pipelines.errors import PipelineError

IN_FLIGHT = 2
REMINDER_SECONDS = 60
BROKEN_AFTER_CALLS = 5
"""After this number of given-up calls without one success, the pool itself counts as broken."""


class CallFailedError(Exception):
    """A call was given up; the message is the reason of its last failure."""


@dataclass(eq=False)
class _Worker:
    actor: Any
    waiting: int = 0


class ActorPool:
    """Runs calls on actors made by `spawn`, at most `IN_FLIGHT` at a time on each."""

    def __init__(self, name: str, spawn: Callable[[], Any], actors: int, retries: int) -> None:
        """Start `actors` actors; a call that fails is retried `retries` times."""
        self.name = name
        self._spawn = spawn
        self._retries = retries
        self._workers = [_Worker(spawn()) for _ in range(actors)]
        self._changed = asyncio.Condition()
        self._suspects_waiting = 0
        self._calls = 0
        self._undecided = 0
        self._successes = 0
        self._given_up = 0
        self._last_failure = ""

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

    async def call(self, submit: Callable[[Any], "Sequence[ray.ObjectRef[Any]]"]) -> "tuple[Any, ray.ObjectRef[Any]]":
        """Run one call: `submit(actor)` starts it and returns two references, to a small report and to the result.

        Returns the report's value and the reference to the result.

        Raises:
            CallFailedError: if the call keeps failing or keeps killing its actor.
            LabelgenError, CacheError: if the call raised one, since a retry would raise it again.
            PipelineError: if the pool is broken.
        """
        self._calls += 1
        try:
            return await self._try(submit)
        finally:
            self._calls -= 1
            async with self._changed:
                self._changed.notify_all()

    async def _try(self, submit: Callable[[Any], "Sequence[ray.ObjectRef[Any]]"]) -> "tuple[Any, ray.ObjectRef[Any]]":
        failures: list[str] = []
        suspect = False
        while len(failures) <= self._retries:
            async with self._worker(alone=suspect) as worker:
                actor = worker.actor
                try:
                    report, result = submit(actor)
                    value = await report
                    self._successes += 1
                    return value, result
                except (LabelgenError, CacheError) as error:
                    raise origin(error) from None
                except RayActorError as error:
                    self._replace(worker, actor, error)
                    if suspect:
                        failures.append(f"its worker died: {_first_line(error)}")
                    suspect = True
                except Exception as error:
                    cause = origin(error)
                    failures.append(f"{type(cause).__name__}: {_first_line(cause)}")
        self._last_failure = failures[-1]
        await self._count_given_up()
        self.check()
        raise CallFailedError(f"{failures[-1]} ({len(failures)} tries)")

    async def wait_until_ready(self, say: Callable[[str], None]) -> None:
        """Wait until all actors are ready; report delays through `say`.

        Raises:
            PipelineError: if an actor cannot start.
        """
        reminder = asyncio.create_task(self._remind(say))
        try:
            await asyncio.gather(*map(self._loaded, self._workers))
        finally:
            reminder.cancel()

    def close(self) -> None:
        """End all actors."""
        for worker in self._workers:
            ray.kill(worker.actor)

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
        async with self._changed:
            self._suspects_waiting += alone
            await self._changed.wait_for(
                lambda: self._least_busy().waiting + places <= IN_FLIGHT and (alone or not self._suspects_waiting)
            )
            self._suspects_waiting -= alone
            worker = self._least_busy()
            worker.waiting += places
        try:
            yield worker
        finally:
            async with self._changed:
                worker.waiting -= places
                self._changed.notify_all()

    async def _remind(self, say: Callable[[str], None]) -> None:
        """Report through `say`, at regular intervals until cancelled, that actors are not ready yet."""
        while True:
            await asyncio.sleep(REMINDER_SECONDS)
            say(f"still waiting for Ray to place and load {len(self._workers)} {self.name} actors")

    async def _loaded(self, worker: _Worker) -> None:
        """Wait until the actor of a worker is ready; replace one that is killed while it loads."""
        for _ in range(self._retries + 1):
            actor = worker.actor
            try:
                await actor.__ray_ready__.remote()
                return
            except RayActorError as error:
                self._replace(worker, actor, error)
        raise PipelineError(
            f"the {self.name} teacher cannot start: its worker died {self._retries + 1} times while loading it; "
            "free some memory, then run the same command again"
        )

    def _least_busy(self) -> _Worker:
        return min(self._workers, key=lambda worker: worker.waiting)

    def _replace(self, worker: _Worker, dead: Any, error: RayActorError) -> None:
        if "creation task" in str(error):
            raise self._cannot_start(error) from None
        if worker.actor is dead:
            worker.actor = self._spawn()

    def _cannot_start(self, error: RayActorError) -> PipelineError:
        return PipelineError(f"the {self.name} teacher cannot start: {_last_line(error)}")


def origin(error: BaseException) -> BaseException:
    """Return the exception that a remote task raised, without the one that Ray wraps around it."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, BaseException) else error


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _last_line(error: BaseException) -> str:
    """Return the last line of a remote traceback, which is the exception, without the name of its class."""
    last = next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
    return re.sub(r"^[\w.]+Error: ", "", last)

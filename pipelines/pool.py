"""A pool of Ray actors that survives what its calls do to it.

Two calls wait at each actor, so that it never idles. An actor that dies is replaced, and the calls that were waiting
at it run again, each alone on an actor: so a death is charged to the call that caused it, and that call is given up
after a bounded number of tries.
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
PLACING_SECONDS = 60
HOPELESS = 5
"""After so many given-up calls and not one success, the pool itself is taken to be broken."""


class CallFailedError(Exception):
    """A call was given up; the message is its last reason."""


@dataclass(eq=False)
class _Worker:
    actor: Any
    waiting: int = 0


class ActorPool:
    """Runs calls on actors made by `spawn`, at most `IN_FLIGHT` waiting at each."""

    def __init__(self, name: str, spawn: Callable[[], Any], actors: int, retries: int) -> None:
        """Start `actors` actors; a failing call is tried `retries` times more."""
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
        """Refuse to go on with a pool that has given up many calls and done none.

        Raises:
            PipelineError: if that is so.
        """
        if not self._successes and self._given_up >= HOPELESS:
            raise PipelineError(
                f"{self.name} failed on each of its first {self._given_up} calls, the last time with "
                f"{self._last_failure}; mend that, then run the same command again"
            )

    async def call(self, submit: Callable[[Any], "Sequence[ray.ObjectRef[Any]]"]) -> "tuple[Any, ray.ObjectRef[Any]]":
        """Run one call: `submit(actor)` starts it and returns two references, to a small report and the result.

        Returns the report's value and the reference to the result.

        Raises:
            CallFailedError: if the call keeps failing or keeps killing its actor.
            LabelgenError: if the call itself raised one; such errors do not go away by trying again.
            PipelineError: if the pool never gets anything done.
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

    async def started(self, say: Callable[[str], None]) -> None:
        """Wait until all actors stand; `say` hears of it if that takes long.

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
        """Count a given-up call, and wait until it can be told whether the call is bad, or the pool.

        That is once another call has succeeded, or enough have been given up, or none is left that could succeed.
        """
        async with self._changed:
            self._given_up += 1
            self._undecided += 1
            self._changed.notify_all()
            await self._changed.wait_for(
                lambda: self._successes or self._given_up >= HOPELESS or self._undecided == self._calls
            )
            self._undecided -= 1

    @asynccontextmanager
    async def _worker(self, alone: bool) -> AsyncIterator[_Worker]:
        """Hold a place at the least busy actor, or a whole actor."""
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
        """Tell `say` again and again that actors are still waited for, until cancelled."""
        while True:
            await asyncio.sleep(PLACING_SECONDS)
            say(f"still waiting for Ray to place and load {len(self._workers)} {self.name} actors")

    async def _loaded(self, worker: _Worker) -> None:
        """Wait until a worker's actor stands; one that is killed while it loads is replaced."""
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
    """Return what a remote task raised, without Ray's wrapping."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, BaseException) else error


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _last_line(error: BaseException) -> str:
    """Return the last line of a remote traceback, the exception itself, without the name of its class."""
    last = next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
    return re.sub(r"^[\w.]+Error: ", "", last)

"""A pool of Ray actors that survives what its calls do to it.

Two calls wait at each actor, so that it never idles. An actor that dies is replaced; the call that it was working
on is charged with the death, and given up after a bounded number of tries. The others just run again.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayActorError

from labelgen.errors import LabelgenError
from pipelines.errors import PipelineError

IN_FLIGHT = 2
HOPELESS = 5
"""After so many given-up calls and not one success, the pool itself is taken to be broken."""


class CallFailedError(Exception):
    """A call was given up; the message is its last reason."""


@dataclass(eq=False)
class _Worker:
    actor: Any
    in_flight: list[object] = field(default_factory=list)


class ActorPool:
    """Runs calls on actors made by `spawn`, at most `IN_FLIGHT` waiting at each."""

    def __init__(self, name: str, spawn: Callable[[], Any], actors: int, retries: int) -> None:
        """Start `actors` actors; a failing call is tried `retries` times more."""
        self.name = name
        self._spawn = spawn
        self._retries = retries
        self._workers = [_Worker(spawn()) for _ in range(actors)]
        self._slots: asyncio.Queue[_Worker] = asyncio.Queue()
        for _ in range(IN_FLIGHT):
            for worker in self._workers:
                self._slots.put_nowait(worker)
        self.successes = 0
        self.given_up = 0

    async def call(self, submit: Callable[[Any], list[ray.ObjectRef]]) -> tuple[Any, ray.ObjectRef]:
        """Run one call: `submit(actor)` starts it and returns two references, to a small report and the result.

        Returns the report's value and the reference to the result.

        Raises:
            CallFailedError: if the call keeps failing or keeps killing its actor.
            LabelgenError: if the call itself raised one; such errors do not go away by trying again.
            PipelineError: if the pool never gets anything done.
        """
        failures: list[str] = []
        while len(failures) <= self._retries:
            worker = await self._slots.get()
            ticket = object()
            worker.in_flight.append(ticket)
            actor = worker.actor
            try:
                report, result = submit(actor)
                value = await report
                self.successes += 1
                return value, result
            except LabelgenError as error:
                raise getattr(error, "cause", error) from None
            except RayActorError as error:
                if worker.in_flight[0] is ticket:
                    failures.append(f"its worker died: {_first_line(error)}")
                self._replace(worker, actor, error)
            except Exception as error:
                failures.append(f"{type(error).__name__}: {_first_line(error)}")
            finally:
                worker.in_flight.remove(ticket)
                self._slots.put_nowait(worker)
        self.given_up += 1
        if not self.successes and self.given_up >= HOPELESS:
            raise PipelineError(
                f"{self.name} failed on each of its first {self.given_up} calls; the last: {failures[-1]}"
            )
        raise CallFailedError(f"{failures[-1]} ({len(failures)} tries)")

    def close(self) -> None:
        """End all actors."""
        for worker in self._workers:
            ray.kill(worker.actor)

    def _replace(self, worker: _Worker, dead: Any, error: RayActorError) -> None:
        if "__init__" in str(error) or "creation task" in str(error):
            raise PipelineError(f"a {self.name} worker cannot start: {_cause(error)}") from None
        if worker.actor is dead:
            worker.actor = self._spawn()


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = getattr(error, "cause", None)
    if isinstance(cause, Exception):
        return str(cause).splitlines()[0] if str(cause) else type(cause).__name__
    return lines[0] if lines else type(error).__name__


def _cause(error: BaseException) -> str:
    """Return the last line of a remote traceback: the exception itself."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__

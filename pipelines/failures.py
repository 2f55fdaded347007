"""Failures of calls to a teacher and of starts of its actors: which are charged to them, and which to their node."""

import re

from ray.exceptions import RayActorError

from pipelines.errors import PipelineError
from pipelines.memory_shortage import MOST_KILLS, MemoryOfSuccess, is_memory_kill, pause_seconds, shortage_error
from pipelines.node_loss import MOST_LOSSES, is_node_loss, origin
from pipelines.setbacks import TEACHER_FAILURES, Setbacks


class CallFailures:
    """The failures of one call so far. `charged` are the reasons of those that count against its retries.

    `pause` is how long to wait before the next try, in seconds: longer after each kill by the memory monitor.
    The first death of its actor makes a call `suspect`: another call of the actor may have caused it. A suspect must
    run alone on an actor, so that the next death is its own.
    """

    def __init__(self, pool: str, memory: MemoryOfSuccess, setbacks: Setbacks) -> None:
        """Judge by the `memory` that calls of the pool took; retries and losses are counted in `setbacks`."""
        self.charged: list[str] = []
        self.suspect, self.pause = False, 0.0
        self._pool, self._memory, self._setbacks = pool, memory, setbacks
        self._losses = self._kills = 0

    def add(self, error: Exception) -> None:
        """Count a failure.

        Raises:
            PipelineError: if the call was killed too often although it is not to blame.
        """
        self.pause = 0.0
        if is_memory_kill(error):
            self._add_memory_kill(error)
            return
        if is_node_loss(error) and self._losses < MOST_LOSSES:
            self._losses += 1
            self._setbacks.node_losses += 1
            return
        self._setbacks.retries[TEACHER_FAILURES] += 1
        died = isinstance(error, RayActorError)
        if died and not self.suspect:
            self.suspect = True
            return
        cause = origin(error)
        what = "its worker died" if died else type(cause).__name__
        self.charged.append(f"{what}: {_first_line(cause)}")

    def _add_memory_kill(self, error: Exception) -> None:
        if self.suspect and self._memory.is_exceeded(error):
            self.charged.append("its worker was killed, since it took more memory than its node has")
            return
        self.suspect = True
        self._kills += 1
        self.pause = pause_seconds(self._kills)
        if self._kills >= MOST_KILLS:
            raise shortage_error(f"the {self._pool} actor of one call", error)


class StartFailures:
    """The failures of one start of an actor so far, kills by the memory monitor excepted."""

    def __init__(self, pool: str, retries: int, setbacks: Setbacks) -> None:
        """Allow `retries` deaths; losses are counted in `setbacks`."""
        self._pool, self._retries, self._setbacks = pool, retries, setbacks
        self._deaths = self._losses = 0

    def add(self, error: Exception) -> PipelineError | None:
        """Count a failure; returns the error that stops the run if it is one too many."""
        if not isinstance(error, RayActorError) or "creation task" in str(error):
            return cannot_start(self._pool, error)
        if is_node_loss(error) and self._losses < MOST_LOSSES:
            self._losses += 1
            self._setbacks.node_losses += 1
            return None
        self._deaths += 1
        if self._deaths <= self._retries:
            return None
        return PipelineError(
            f"the {self._pool} teacher cannot start: its worker died {self._deaths} times while loading it; "
            "free some memory, then run the same command again"
        )


def cannot_start(pool: str, error: Exception) -> PipelineError:
    """Return the error for an actor whose constructor raised: the last line of the remote traceback is the reason."""
    last = next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
    return PipelineError(f"the {pool} teacher cannot start: " + re.sub(r"^[\w.]+Error: ", "", last))


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)

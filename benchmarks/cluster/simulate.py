"""A discrete-event simulation of a run: shards go through CPU tasks, teacher calls and CPU tasks again.

It knows three kinds of servers: the cores, the actors, and the event loop of the driver, which spends time on each Ray
call and on each shard. The rules of how many shards are in flight, how many calls an actor has, and how a shard is cut
into parts are those of the pipeline.
"""

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from pipelines.actor_pool import IN_FLIGHT
from pipelines.in_flight import most_shards


@dataclass(frozen=True)
class Costs:
    """Seconds that a shard costs.

    Attributes:
        before, after: the steps before and after the teachers, in order. The tasks of a step are in the queue together;
            each entry is the time of one task.
        loop_call: the driver's event loop for one Ray call, to an actor or of a task.
        loop_shard: all its other time for a shard.
        call_s, task_s: what Ray takes around one call to an actor and around one task, besides the work in it.
        worker_start_s: the time until the workers of the cores have started; they start with the first tasks.
    """

    before: tuple[tuple[float, ...], ...]
    after: tuple[tuple[float, ...], ...]
    loop_call: float
    loop_shard: float
    call_s: float = 0.0
    task_s: float = 0.0
    worker_start_s: float = 0.0


@dataclass(frozen=True)
class Size:
    """What is simulated: actors (one on each GPU), cores, shards, their samples, and the teachers' time for a sample.

    `shard_bytes` and `store_bytes` are the memory that a shard takes and that there is; 0 for no bound.
    `in_flight` replaces the rule of the pipeline.
    """

    actors: int
    cores: int
    shards: int
    samples: int
    teacher_s: float
    shard_bytes: int = 0
    store_bytes: float = 0
    in_flight: int | None = None

    @property
    def least_s(self) -> float:
        """The time that the teachers alone would take."""
        return self.shards * self.samples * self.teacher_s / self.actors


class _Clock:
    def __init__(self) -> None:
        self.now, self._count = 0.0, 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.now + seconds, self._count, do))

    def run(self) -> float:
        while self._events:
            self.now, _, do = heapq.heappop(self._events)
            do()
        return self.now


class _Places:
    """A number of equal places with one queue, first come first served."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: deque[Callable[[], None]] = deque()

    def take(self, then: Callable[[], None]) -> None:
        self._waiting.append(then)
        self._start()

    def leave(self) -> None:
        self._free += 1
        self._start()

    def _start(self) -> None:
        while self._free and self._waiting:
            self._free -= 1
            self._waiting.popleft()()


class _Servers:
    """Equal servers with one queue, first come first served; each is busy for the seconds that it is asked for.

    They serve from the time `opening_s` on.
    """

    def __init__(self, clock: _Clock, count: int, opening_s: float = 0.0) -> None:
        self._clock, self._places, self._opening_s = clock, _Places(count), opening_s

    def serve(self, seconds: float, then: Callable[[], None]) -> None:
        def end() -> None:
            then()
            self._places.leave()

        self._places.take(lambda: self._clock.after(max(0.0, self._opening_s - self._clock.now) + seconds, end))


def simulate(costs: Costs, size: Size) -> float:
    """Return the seconds from the loaded teachers to the last seal."""
    run = _Run(costs, size)
    limit = size.in_flight or most_shards(size.actors, size.samples, size.shard_bytes, size.store_bytes)
    for _ in range(min(limit, size.shards)):
        run.start_shard()
    return run.clock.run()


class _Run:
    def __init__(self, costs: Costs, size: Size) -> None:
        self.costs, self.size, self.left = costs, size, size.shards
        self.clock = _Clock()
        self.cores = _Servers(self.clock, size.cores, costs.worker_start_s)
        self.actors, self.loop = _Servers(self.clock, size.actors), _Servers(self.clock, 1)
        self.calls = _Places(size.actors * IN_FLIGHT)

    def start_shard(self) -> None:
        if self.left:
            self.left -= 1
            self.loop.serve(self.costs.loop_shard, lambda: self.steps(self.costs.before, self.ask))

    def steps(self, steps: tuple[tuple[float, ...], ...], then: Callable[[], None]) -> None:
        """Do the steps one after the other; the tasks of one at the same time, as far as there are cores."""
        if not steps:
            then()
            return
        ended = _countdown(len(steps[0]), lambda: self.steps(steps[1:], then))
        for seconds in steps[0]:
            self.loop.serve(
                self.costs.loop_call, lambda seconds=seconds: self.cores.serve(self.costs.task_s + seconds, ended)
            )

    def ask(self) -> None:
        """Make all calls of a shard to its teacher, each when an actor has room for it."""
        answered = _countdown(self.size.samples, lambda: self.steps(self.costs.after, self.start_shard))
        for _ in range(self.size.samples):
            self.calls.take(lambda: self.loop.serve(self.costs.loop_call, lambda: self.call(answered)))

    def call(self, then: Callable[[], None]) -> None:
        """Make one call. What Ray takes around it does not keep the actor busy, which has the next call already."""

        def end() -> None:
            self.calls.leave()
            then()

        self.actors.serve(self.size.teacher_s, lambda: self.clock.after(self.costs.call_s, end))


def _countdown(count: int, then: Callable[[], None]) -> Callable[[], None]:
    """Return a function that calls `then` when it is called for the last of `count` times."""
    left = count

    def step() -> None:
        nonlocal left
        left -= 1
        if not left:
            then()

    return step

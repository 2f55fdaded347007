"""A discrete-event simulation of a run: shards go through CPU tasks, teacher calls and CPU tasks again.

It knows three kinds of servers: the cores, the actors, and the driver, which spends time on each call and each shard.
The rule of how many shards are in flight is the one of the pipeline.
"""

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from pipelines.in_flight import most_shards


@dataclass(frozen=True)
class Costs:
    """Seconds that a shard costs. `before` and `after` are the CPU tasks before and after the teachers, in order.

    `driver_call` is the driver's time for one call to a teacher, and `driver_shard` all its other time for a shard.
    """

    before: tuple[float, ...]
    after: tuple[float, ...]
    driver_call: float
    driver_shard: float


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


class _Servers:
    """Equal servers with one queue, first come first served."""

    def __init__(self, clock: "_Clock", count: int) -> None:
        self._clock, self._free = clock, count
        self._waiting: deque[tuple[float, Callable[[], None]]] = deque()

    def serve(self, seconds: float, then: Callable[[], None]) -> None:
        self._waiting.append((seconds, then))
        self._start()

    def _start(self) -> None:
        while self._free and self._waiting:
            self._free -= 1
            seconds, then = self._waiting.popleft()
            self._clock.after(seconds, lambda then=then: self._end(then))

    def _end(self, then: Callable[[], None]) -> None:
        self._free += 1
        then()
        self._start()


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


def simulate(costs: Costs, size: Size) -> float:
    """Return the seconds from the loaded teachers to the last seal."""
    clock = _Clock()
    cores, actors, driver = (_Servers(clock, count) for count in (size.cores, size.actors, 1))
    limit = size.in_flight or most_shards(size.actors, size.samples, size.shard_bytes, size.store_bytes)
    left = size.shards

    def start_shard() -> None:
        nonlocal left
        if left:
            left -= 1
            driver.serve(costs.driver_shard, lambda: tasks(costs.before, ask))

    def tasks(seconds: tuple[float, ...], then: Callable[[], None]) -> None:
        if not seconds:
            then()
        else:
            cores.serve(seconds[0], lambda: tasks(seconds[1:], then))

    def ask() -> None:
        answers = 0

        def answered() -> None:
            nonlocal answers
            answers += 1
            if answers == size.samples:
                tasks(costs.after, start_shard)

        for _ in range(size.samples):
            driver.serve(costs.driver_call, lambda: actors.serve(size.teacher_s, answered))

    for _ in range(min(limit, size.shards)):
        start_shard()
    return clock.run()

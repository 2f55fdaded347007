"""Progress of a run: in a terminal one live row for each stage, in a log one line from time to time."""

import asyncio
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Rows
from rich.text import Text

from cache_schemas.names import printable
from labelgen.stages import STAGES

LOG_SECONDS = 30.0
TERMINAL_SECONDS = 0.5


class Progress:
    """Counts what is done, and prints it to `stream`.

    All stages run at the same time, so the stage that needs most time for the rest of its samples determines the
    estimate of the time left. The rate of a stage is that of the time in which it had work: a stage that waits for
    another one most of the time, as labels wait for SAM, follows it at once.
    """

    def __init__(self, shards: int, samples: dict[str, int], stream: TextIO | None = None) -> None:
        """Expect `shards` shards and, by stage, the number of samples to work on."""
        self._stream = stream or sys.stderr
        self._start = time.monotonic()
        self._expected = {stage: count for stage, count in samples.items() if count}
        self._done = dict.fromkeys(self._expected, 0)
        self._at_work = dict.fromkeys(self._expected, 0)
        self._worked = dict.fromkeys(self._expected, 0.0)
        self._since: dict[str, float] = {}
        self._shards, self._shards_done = shards, 0
        self.quarantined = 0
        self._rows = _Rows(self._stream, shards, self._expected) if self._stream.isatty() else None

    def add(self, stage: str, samples: int) -> None:
        """Count samples that a stage has worked on."""
        if stage in self._done:
            self._done[stage] = min(self._done[stage] + samples, self._expected[stage])

    @contextmanager
    def working(self, stages: Iterable[str]) -> Iterator[None]:
        """Count the time in which stages work on some shard."""
        stages = [stage for stage in stages if stage in self._expected]
        for stage in stages:
            if not self._at_work[stage]:
                self._since[stage] = time.monotonic()
            self._at_work[stage] += 1
        try:
            yield
        finally:
            for stage in stages:
                self._at_work[stage] -= 1
                if not self._at_work[stage]:
                    self._worked[stage] += time.monotonic() - self._since[stage]

    def leave_out(self, samples: int, stages: Iterable[str]) -> None:
        """Count samples that are quarantined: these stages do not work on them."""
        self.quarantined += samples
        for stage in stages:
            if stage in self._expected:
                self._expected[stage] = max(0, self._expected[stage] - samples)
                self._done[stage] = min(self._done[stage], self._expected[stage])

    @property
    def samples_done(self) -> dict[str, int]:
        """The samples that each stage has worked on."""
        return self._done

    @property
    def samples_due(self) -> dict[str, int]:
        """The samples that each stage has still to work on."""
        return {stage: count - self._done[stage] for stage, count in self._expected.items()}

    @property
    def shards_due(self) -> int:
        """The shards that are not done."""
        return self._shards - self._shards_done

    def shard_done(self) -> None:
        """Count a shard that is up to date."""
        self._shards_done += 1

    def note(self, text: str) -> None:
        """Print a message that is not a count."""
        if self._rows:
            self._rows.note(text)
        else:
            print(text, file=self._stream, flush=True)

    async def keep_printing(self) -> None:
        """Print until cancelled."""
        while True:
            await asyncio.sleep(TERMINAL_SECONDS if self._rows else LOG_SECONDS)
            self._print()

    def finish(self) -> None:
        """Print the last state. The work is done, so a log that cannot be written is no error any more."""
        with suppress(OSError):
            self._print()
            if self._rows:
                self._rows.stop()

    def line(self) -> str:
        """Return the progress as one line."""
        teachers = [stage for stage in self._expected if STAGES[stage].teacher]
        parts = [f"labels: {self._shards_done}/{self._shards} shards"]
        for stage in teachers:
            left = self.seconds_left(stage)
            more = f", {_clock(left)} left" if left else ""
            parts.append(f"{stage} {self._done[stage]:,}/{self._expected[stage]:,} samples{more}")
        return " | ".join([*parts, *self._state()])

    def _state(self) -> list[str]:
        elapsed = time.monotonic() - self._start
        parts = [f"{self.quarantined} quarantined"] if self.quarantined else []
        parts.append(f"{_clock(elapsed)} elapsed")
        if self._shards_done < self._shards:
            left = self._run_seconds_left(elapsed)
            parts.append("ETA unknown yet" if left is None else f"ETA {_clock(left)}")
        return parts

    def seconds_left(self, stage: str) -> float | None:
        """Return how long a stage needs for the rest of its samples at its rate so far; None if it has done none."""
        done, rest = self._done[stage], self._expected[stage] - self._done[stage]
        if not rest:
            return 0.0
        if not done:
            return None
        working = time.monotonic() - self._since[stage] if self._at_work[stage] else 0.0
        return rest * (self._worked[stage] + working) / done

    def _run_seconds_left(self, elapsed: float) -> float | None:
        """Return the time left of the slowest stage; without teachers, that of the shards. None: not known yet."""
        left = {stage: self.seconds_left(stage) for stage in self._expected}
        teachers = [left[stage] for stage in left if STAGES[stage].teacher]
        if None in teachers:
            return None
        if not teachers:
            done = self._shards_done
            return elapsed * (self._shards - done) / done if done else None
        return max(seconds for seconds in left.values() if seconds is not None)

    def _print(self) -> None:
        if self._rows:
            left = {stage: self.seconds_left(stage) for stage in self._expected}
            self._rows.show(self._done, self._expected, left, self._shards_done, " | ".join(self._state()))
        else:
            print(self.line(), file=self._stream, flush=True)


class _Rows:
    """The live rows of a terminal: one for each stage, one for the shards, and a line with the time left."""

    def __init__(self, stream: TextIO, shards: int, samples: dict[str, int]) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TextColumn("{task.fields[left]}", style="dim"),
        )
        self._rows = Rows(*columns)
        self._tasks = {
            stage: self._rows.add_task(stage, total=n, unit="samples", left="") for stage, n in samples.items()
        }
        self._shards = self._rows.add_task("all", total=shards, unit="shards", left="")
        console = Console(file=stream, force_terminal=True)
        self._live = Live(self._rows, console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self._live.start()

    def show(
        self, done: dict[str, int], expected: dict[str, int], left: dict[str, float | None], shards: int, state: str
    ) -> None:
        for stage, task in self._tasks.items():
            seconds = left[stage]
            more = f"{_clock(seconds)} left" if seconds else ""
            self._rows.update(task, completed=done[stage], total=expected[stage], left=more)
        self._rows.update(self._shards, completed=shards)
        self._live.update(Group(self._rows, Text(state, style="dim")), refresh=True)

    def note(self, text: str) -> None:
        self._live.console.print(Text(printable(text)))

    def stop(self) -> None:
        self._live.stop()


def _clock(seconds: float) -> str:
    """Return a duration as hours and minutes, minutes and seconds, or seconds."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {left:02d} s" if minutes else f"{left} s"

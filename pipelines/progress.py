"""Progress of a run: in a terminal one live row for each stage, in a log one line from time to time."""

import asyncio
import sys
import time
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

    Nearly all time goes to the teachers, which run at the same time. So the teacher that has done the smallest share
    of its samples determines the estimate of the time left.
    """

    def __init__(self, shards: int, samples: dict[str, int], stream: TextIO | None = None) -> None:
        """Expect `shards` shards and, by stage, the number of samples to work on."""
        self._stream = stream or sys.stderr
        self._start = time.monotonic()
        self._expected = {stage: count for stage, count in samples.items() if count}
        self._done = dict.fromkeys(self._expected, 0)
        self._shards, self._shards_done = shards, 0
        self.quarantined = 0
        self._rows = _Rows(self._stream, shards, self._expected) if self._stream.isatty() else None

    def add(self, stage: str, samples: int) -> None:
        """Count samples that a stage has worked on."""
        if stage in self._done:
            self._done[stage] = min(self._done[stage] + samples, self._expected[stage])

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
        """Print the last state."""
        self._print()
        if self._rows:
            self._rows.stop()

    def line(self) -> str:
        """Return the progress as one line."""
        teachers = [stage for stage in self._expected if STAGES[stage].teacher]
        parts = [f"labels: {self._shards_done}/{self._shards} shards"]
        parts += [f"{stage} {self._done[stage]:,}/{self._expected[stage]:,} samples" for stage in teachers]
        return " | ".join([*parts, *self._state()])

    def _state(self) -> list[str]:
        elapsed = time.monotonic() - self._start
        parts = [f"{self.quarantined} quarantined"] if self.quarantined else []
        parts.append(f"{_clock(elapsed)} elapsed")
        if self._shards_done < self._shards:
            share = self._share_done()
            parts.append(f"ETA {_clock(elapsed / share - elapsed)}" if share else "ETA unknown yet")
        return parts

    def _share_done(self) -> float:
        """Return the share of the work that is done: that of the slowest teacher, or of the shards without one."""
        shares = [self._done[stage] / count for stage, count in self._expected.items() if STAGES[stage].teacher]
        return min(shares, default=self._shards_done / self._shards)

    def _print(self) -> None:
        if self._rows:
            self._rows.show(self._done, self._shards_done, " | ".join(self._state()))
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
        )
        self._rows = Rows(*columns)
        self._tasks = {stage: self._rows.add_task(stage, total=n, unit="samples") for stage, n in samples.items()}
        self._shards = self._rows.add_task("all", total=shards, unit="shards")
        console = Console(file=stream, force_terminal=True)
        self._live = Live(self._rows, console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self._live.start()

    def show(self, done: dict[str, int], shards: int, state: str) -> None:
        for stage, count in done.items():
            self._rows.update(self._tasks[stage], completed=count)
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

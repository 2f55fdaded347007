"""One progress line with an ETA: rewritten in place in a terminal, a line a while in a batch log."""

import asyncio
import sys
import time
from typing import TextIO

LOG_SECONDS = 30.0
TERMINAL_SECONDS = 0.5


class Progress:
    """Counts what is done and prints it to `stream`.

    The estimate goes by teacher samples, where nearly all time is spent; the two teachers run side by side, so the
    slower one decides.
    """

    def __init__(self, shards: int, samples: dict[str, int], stream: TextIO | None = None) -> None:
        """Expect `shards` shards and, by teacher, so many samples."""
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._start = time.monotonic()
        self._expected = samples
        self._done = dict.fromkeys(samples, 0)
        self._shards, self._shards_done = shards, 0
        self.quarantined = 0

    def add(self, teacher: str, samples: int) -> None:
        """Count samples that a teacher has answered for."""
        self._done[teacher] = self._done.get(teacher, 0) + samples

    def shard_done(self) -> None:
        """Count a shard that is up to date."""
        self._shards_done += 1

    def note(self, text: str) -> None:
        """Print what is going on before there is anything to count."""
        print(text, file=self._stream, flush=True)

    async def keep_printing(self) -> None:
        """Print until cancelled."""
        while True:
            await asyncio.sleep(TERMINAL_SECONDS if self._live else LOG_SECONDS)
            self._print()

    def finish(self) -> None:
        """Print the last state and leave the line."""
        self._print()
        if self._live:
            print(file=self._stream, flush=True)

    def line(self) -> str:
        """Return the progress line."""
        elapsed = time.monotonic() - self._start
        parts = [f"labels: {self._shards_done}/{self._shards} shards"]
        parts += [
            f"{name} {min(self._done[name], total):,}/{total:,} samples"
            for name, total in self._expected.items()
            if total
        ]
        if self.quarantined:
            parts.append(f"{self.quarantined} quarantined")
        parts.append(f"{_clock(elapsed)} elapsed")
        if self._shards_done < self._shards:
            share = self._share_done()
            parts.append(f"ETA {_clock(elapsed / share - elapsed)}" if share else "ETA unknown yet")
        return " | ".join(parts)

    def _share_done(self) -> float:
        """Return how much of the work is done: the slower teacher's share, or that of shards without teachers."""
        shares = [min(1.0, self._done[name] / total) for name, total in self._expected.items() if total]
        return min(shares, default=self._shards_done / self._shards)

    def _print(self) -> None:
        if self._live:
            print(f"\r\x1b[K{self.line()}", end="", file=self._stream, flush=True)
        else:
            print(self.line(), file=self._stream, flush=True)


def _clock(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {left:02d} s" if minutes else f"{left} s"

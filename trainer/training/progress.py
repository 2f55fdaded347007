"""Shows the progress of a training: a live bar in a terminal, a plain line now and then in a log."""

import resource
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch

from trainer.data.batch import Batch
from trainer.training.ranks import Ranks

LINE_SECONDS = 10.0
"""Least time between two lines of progress in a log."""


@dataclass(frozen=True)
class ProgressReport:
    """How a run is doing.

    Attributes:
        epoch, epochs: the current epoch, from 1, and the number of epochs.
        step, steps: finished steps, and all steps of the run.
        losses: by name, means over the latest steps; `loss` is their sum.
        images_per_s, points_per_s: throughput of all ranks.
        waiting_share: the share of time spent waiting for data.
        memory_gb: the most memory this process has held: on its GPU, or in all without one.
        seconds_left: estimated time to the end.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    losses: Mapping[str, float]
    images_per_s: float
    points_per_s: float
    waiting_share: float
    memory_gb: float
    seconds_left: float

    @property
    def details(self) -> str:
        """Losses, throughput and memory as text."""
        parts = ", ".join(f"{name} {value:.2f}" for name, value in self.losses.items() if name != "loss")
        return (
            f"loss {self.losses['loss']:.2f} ({parts}) | "
            f"{self.images_per_s:.1f} images/s, {self.points_per_s / 1000:.0f} k points/s | "
            f"waiting for data {100 * self.waiting_share:.1f} % | {self.memory_gb:.1f} GB"
        )

    @property
    def time_left(self) -> str:
        """The estimated time to the end as text."""
        return f"{self.seconds_left / 60:.1f} min left"


class Display(Protocol):
    """Where progress and messages are shown."""

    def update(self, report: ProgressReport) -> None:
        """Show the latest progress."""

    def message(self, text: str) -> None:
        """Show a line that stays."""


class LineDisplay:
    """Plain lines, for logs: one of progress every `LINE_SECONDS` and at the end."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """Give each line to `say`."""
        self._say, self._last = say, time.monotonic()

    def update(self, report: ProgressReport) -> None:
        """Say a line of progress if the last one is old enough."""
        now = time.monotonic()
        if now - self._last >= LINE_SECONDS or report.step == report.steps:
            self._last = now
            self._say(
                f"epoch {report.epoch}/{report.epochs} step {report.step}/{report.steps} | "
                f"{report.details} | {report.time_left}"
            )

    def message(self, text: str) -> None:
        """Say the message."""
        self._say(text)


@contextmanager
def open_display(say: Callable[[str], None], *, live: bool) -> Iterator[Display]:
    """Show progress as lines given to `say`, or `live` as a bar at the bottom of the terminal (on stderr)."""
    if not live:
        yield LineDisplay(say)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.table import Column

    details = TextColumn("{task.fields[details]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"))
    columns = ("{task.description}", BarColumn(20), MofNCompleteColumn(), "{task.fields[time_left]}", details)
    with Progress(*columns, console=Console(stderr=True), expand=True, refresh_per_second=2) as progress:
        task = progress.add_task("starting", total=None, details="", time_left="")

        class LiveDisplay:
            def update(self, report: ProgressReport) -> None:
                progress.update(
                    task,
                    description=f"epoch {report.epoch}/{report.epochs}",
                    completed=report.step,
                    total=report.steps,
                    details=report.details,
                    time_left=report.time_left,
                )

            def message(self, text: str) -> None:
                progress.console.print(text, markup=False, highlight=False)

        yield LiveDisplay()


class Throughput:
    """Measures images and points per second, and the share of time spent waiting for data."""

    def __init__(self, ranks: Ranks) -> None:
        """Start the clock."""
        self._ranks, self._start = ranks, time.monotonic()
        self._waited = 0.0
        self._steps = self._images = self._points = 0

    def timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield batches, and measure how long each was waited for."""
        while True:
            before = time.monotonic()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self._waited += time.monotonic() - before
            self._steps, self._images = self._steps + 1, self._images + len(batch.rgb)
            self._points += len(batch.point_labels)
            yield batch

    def report(self, losses: Mapping[str, float], *, epoch: int, epochs: int, step: int, steps: int) -> ProgressReport:
        """Return the progress after `step` of `steps` steps; epochs count from 0."""
        elapsed = time.monotonic() - self._start
        return ProgressReport(
            epoch=epoch + 1,
            epochs=epochs,
            step=step,
            steps=steps,
            losses=losses,
            images_per_s=self._ranks.world * self._images / elapsed,
            points_per_s=self._ranks.world * self._points / elapsed,
            waiting_share=self._waited / elapsed,
            memory_gb=_memory_gb(self._ranks.device),
            seconds_left=elapsed / max(1, self._steps) * (steps - step),
        )


def _memory_gb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6

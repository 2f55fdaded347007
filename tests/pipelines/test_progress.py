"""The progress display: what it counts, its estimate, and how it looks in a terminal and in a log."""

import asyncio
import io
import re

import pytest

from pipelines import progress
from pipelines.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the seconds since the start, to be set by the test."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_the_slower_teacher_decides_the_estimate(clock: list[float]) -> None:
    shown = Progress(10, {"images": 400, "clip": 400, "sam": 400}, io.StringIO())
    clock[0] = 60
    shown.add("clip", 400)
    assert shown.line().endswith("ETA unknown yet")
    shown.add("sam", 10)
    shown.shard_done()
    assert shown.line() == (
        "labels: 1/10 shards | clip 400/400 samples | sam 10/400 samples, 39 min 00 s left"
        " | 1 min 00 s elapsed | ETA 39 min 00 s"
    )


def test_the_rate_of_a_stage_does_not_count_the_start(clock: list[float]) -> None:
    shown = Progress(10, {"sam": 100}, io.StringIO())
    clock[0] = 600  # a cluster that starts, and a network that is loaded
    shown.add("sam", 10)
    clock[0] = 620
    shown.add("sam", 20)
    assert shown.seconds_left("sam") == 70  # 20 samples in 20 s, and 70 are left


def test_a_stage_without_a_teacher_can_be_the_slowest(clock: list[float]) -> None:
    shown = Progress(10, {"images": 100, "sam": 100}, io.StringIO())
    for second, (images, sam) in {10: (1, 10), 20: (1, 10)}.items():
        clock[0] = second
        shown.add("images", images)
        shown.add("sam", sam)
    assert shown.line().endswith("sam 20/100 samples, 1 min 20 s left | 20 s elapsed | ETA 16 min 20 s")


def test_without_teachers_shards_decide_the_estimate(clock: list[float]) -> None:
    shown = Progress(4, {"labels": 8, "clip": 0}, io.StringIO())
    clock[0] = 3600
    shown.shard_done()
    shown.quarantined = 2
    assert shown.line() == "labels: 1/4 shards | 2 quarantined | 1 h 00 min elapsed | ETA 3 h 00 min"


def watch(shown: Progress) -> None:
    """Print for a while, then finish."""

    async def work() -> None:
        printing = asyncio.create_task(shown.keep_printing())
        await asyncio.sleep(0.1)
        printing.cancel()

    asyncio.run(work())
    shown.add("clip", 1)
    shown.shard_done()
    shown.finish()


def test_a_log_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.02)
    log = io.StringIO()
    shown = Progress(1, {"clip": 1}, log)
    shown.note("loading the teachers [9]")
    watch(shown)
    note, *lines, last = log.getvalue().splitlines()
    assert note == "loading the teachers [9]"
    assert len(lines) > 1
    assert all(line.startswith("labels: 0/1 shards | clip 0/1 samples") for line in lines)
    assert last.startswith("labels: 1/1 shards | clip 1/1 samples")


def test_a_terminal_gets_one_live_row_for_each_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "TERMINAL_SECONDS", 0.02)
    terminal = Terminal()
    shown = Progress(3, {"images": 5, "clip": 7, "sam": 0}, terminal)
    shown.note("loading the teachers [9]")
    watch(shown)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    assert "loading the teachers [9]" in text
    rows = [line.split() for line in text.splitlines() if "/" in line]
    assert [
        (row[0], *(word for word in row if "/" in word or word in ("samples", "shards", "left"))) for row in rows[-3:]
    ] == [
        ("images", "0/5", "samples"),
        ("clip", "1/7", "samples", "left"),
        ("all", "1/3", "shards"),
    ]
    assert "elapsed | ETA" in text
    assert "sam " not in text
    assert text.endswith("\n")

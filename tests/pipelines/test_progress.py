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
    with shown.working(["images", "clip", "sam"]):
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
    with shown.working(["sam"]):
        clock[0] = 610
        with shown.working(["sam"]):  # two shards at once
            clock[0] = 620
            shown.add("sam", 20)
        assert shown.seconds_left("sam") == 80  # 20 samples in 20 s, and 80 are left


def test_a_stage_without_a_teacher_can_be_the_slowest(clock: list[float]) -> None:
    shown = Progress(10, {"images": 100, "sam": 100}, io.StringIO())
    with shown.working(["images", "sam"]):
        clock[0] = 20
        shown.add("images", 2)
        shown.add("sam", 20)
    assert shown.line().endswith("sam 20/100 samples, 1 min 20 s left | 20 s elapsed | ETA 16 min 20 s")


def test_stages_that_wait_for_a_teacher_do_not_make_the_estimate_longer(clock: list[float]) -> None:
    """Shards of 10 samples: SAM takes 250 s for each, and labels one second after SAM."""
    shown = Progress(12, {"sam": 120, "labels": 120}, io.StringIO())
    with shown.working(["sam"]):
        for _ in range(11):
            clock[0] += 250
            shown.add("sam", 10)
            with shown.working(["labels"]):
                clock[0] += 1
                shown.add("labels", 10)
            shown.shard_done()
        clock[0] += 225
        shown.add("sam", 9)
        assert shown.line().endswith("sam 119/120 samples, 25 s left | 49 min 46 s elapsed | ETA 25 s")


def test_samples_that_are_quarantined_are_not_waited_for(clock: list[float]) -> None:
    shown = Progress(4, {"clip": 4, "sam": 4}, io.StringIO())
    with shown.working(["clip", "sam"]):
        clock[0] = 30
        shown.add("clip", 4)
        shown.add("sam", 3)
        shown.leave_out(1, ["sam", "labels"])
    assert shown.line() == (
        "labels: 0/4 shards | clip 4/4 samples | sam 3/3 samples | 1 quarantined | 30 s elapsed | ETA 0 s"
    )
    assert shown.samples_due == {"clip": 0, "sam": 0}


def test_without_teachers_shards_decide_the_estimate(clock: list[float]) -> None:
    shown = Progress(4, {"labels": 8, "clip": 0}, io.StringIO())
    clock[0] = 3600
    shown.shard_done()
    shown.leave_out(2, [])
    assert shown.line() == "labels: 1/4 shards | 2 quarantined | 1 h 00 min elapsed | ETA 3 h 00 min"


def watch(shown: Progress) -> None:
    """Print for a while, then finish."""

    async def work() -> None:
        printing = asyncio.create_task(shown.keep_printing())
        await asyncio.sleep(0.1)
        printing.cancel()

    with shown.working(["clip"]):
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

"""The progress line: what it counts, its estimate, and how it reads in a terminal and in a log."""

import asyncio
import io

import pytest

from pipelines import progress
from pipelines.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the seconds that the progress line believes have passed, to be set by the test."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_the_slower_teacher_decides_the_estimate(clock: list[float]) -> None:
    line = Progress(10, {"clip": 400, "sam": 400}, io.StringIO())
    clock[0] = 60
    line.add("clip", 400)
    assert line.line().endswith("ETA unknown yet")
    line.add("sam", 10)
    line.shard_done()
    assert line.line() == (
        "labels: 1/10 shards | clip 400/400 samples | sam 10/400 samples | 1 min 00 s elapsed | ETA 39 min 00 s"
    )


def test_without_teachers_shards_decide_the_estimate(clock: list[float]) -> None:
    line = Progress(4, {"clip": 0, "sam": 0}, io.StringIO())
    clock[0] = 3600
    line.shard_done()
    line.quarantined = 2
    assert line.line() == "labels: 1/4 shards | 2 quarantined | 1 h 00 min elapsed | ETA 3 h 00 min"


@pytest.mark.parametrize(("stream", "separator"), [(io.StringIO, "\n"), (Terminal, "\r\x1b[K")])
def test_a_log_gets_lines_and_a_terminal_one_that_is_rewritten(
    monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO], separator: str
) -> None:
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.02)
    monkeypatch.setattr(progress, "TERMINAL_SECONDS", 0.02)
    out = stream()
    line = Progress(1, {"clip": 1}, out)

    async def work() -> None:
        ticker = asyncio.create_task(line.keep_printing())
        await asyncio.sleep(0.1)
        ticker.cancel()

    asyncio.run(work())
    line.shard_done()
    line.finish()
    printed = [text.strip() for text in out.getvalue().split(separator) if text.strip()]
    assert len(printed) > 2
    assert all(text.startswith("labels: 0/1 shards") for text in printed[:-1])
    assert printed[-1].startswith("labels: 1/1 shards")
    assert out.getvalue().endswith("\n")

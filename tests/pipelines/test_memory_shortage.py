"""Kills by Ray's memory monitor: no sample is blamed for a machine that is short of memory, whoever uses it."""

import asyncio
import os
import re
import subprocess
import sys
from typing import Any

import pytest
import ray
from ray.exceptions import OutOfMemoryError

from pipelines import failures, memory_shortage
from pipelines.actor_pool import ActorPool, CallFailedError
from pipelines.errors import PipelineError
from pipelines.memory_shortage import pause_seconds
from pipelines.setbacks import Setbacks
from pipelines.tasks import Report

PROCESS_MIB = 1000
"""What the process of each call that succeeds here has taken."""


def kill(gib: float = 0.5) -> OutOfMemoryError:
    """Return an error as Ray raises it, for a killed actor that had taken so much."""
    return OutOfMemoryError(
        "1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 127.0.0.1, ID: 7e23) "
        "was 21.69GB used / 23.54GB limit (0.921210)\nConsidered workers: [(Actor(1): actual memory used=9.00GB)\n"
        f"Selected to kill: (Actor(2): task name=A.answer, pid=7, actual memory used={gib:.2f}GB, worker ID=4)\n]"
    )


@ray.remote
class Idle:
    """Takes almost no memory."""


class Calls:
    """Calls that are killed so often, each time with so much memory taken, before they succeed."""

    def __init__(self, kills: int, gib: float = 0.5) -> None:
        self.left, self.gib, self.actors = kills, gib, list[Any]()

    def submit(self, actor: Any) -> Any:
        answer = asyncio.get_running_loop().create_future()
        self.actors.append(actor)
        self.left -= 1
        if self.left >= 0:
            answer.set_exception(kill(self.gib))
        else:
            answer.set_result(Report(peak_mib={"sam": PROCESS_MIB}))
        return answer, "result"


def ask(*calls: Calls) -> tuple[list[Any], Setbacks, list[str]]:
    """Make calls one after the other; returns results or exceptions, the setbacks, and what was said."""
    setbacks, said = Setbacks(), list[str]()
    pool = ActorPool("sam", Idle.remote, 1, 1, said.append, setbacks=setbacks)

    async def every() -> list[Any]:
        results: list[Any] = []
        for call in calls:
            try:
                results.append((await pool.call(call.submit))[1])
            except (CallFailedError, PipelineError) as error:
                results.append(error)
        return results

    try:
        return asyncio.run(every()), setbacks, said
    finally:
        pool.close()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_shortage, "FIRST_PAUSE_SECONDS", 0.01)
    for module in (memory_shortage, failures):
        monkeypatch.setattr(module, "MOST_KILLS", 4)


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_a_call_is_tried_until_there_is_memory_again() -> None:
    call = Calls(kills=3)
    results, setbacks, said = ask(Calls(kills=0), call)
    assert results == ["result", "result"]
    assert len(set(call.actors)) == 4, "each actor that was killed is replaced"
    assert (dict(setbacks.retries), setbacks.actor_restarts) == ({"memory_kills": 3}, 3)
    what = "node 127.0.0.1 is short of memory (21.69GB used / 23.54GB limit): Ray killed a sam actor; starting it again"
    assert said == [f"{what} in {seconds} s" for seconds in ("0.01", "0.02", "0.04")]


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_a_shortage_that_stays_stops_the_run_and_a_call_that_takes_too_much_is_given_up() -> None:
    (_, too_large, unlucky), setbacks, _ = ask(Calls(kills=0), Calls(kills=99, gib=1.5), Calls(kills=99))
    assert isinstance(too_large, CallFailedError)
    assert str(too_large) == "its worker was killed, since it took more memory than its node has (2 tries)"
    assert isinstance(unlucky, PipelineError)
    assert "Ray killed the sam actor of one call 4 times. Free memory" in str(unlucky)
    assert "no sample is blamed" in str(unlucky)
    assert setbacks.retries["memory_kills"] == 3 + 4, "the first kill is charged to no call"


def test_pauses_grow_up_to_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert [pause_seconds(kills) for kills in range(1, 8)] == [5, 10, 20, 40, 60, 60, 60]
    assert pause_seconds(2000) == 60


SCRIPT = """
import asyncio, sys, time
import ray
from pipelines import cpu_tasks, memory_shortage
from pipelines.cluster import cluster

memory_shortage.FIRST_PAUSE_SECONDS = 0.01
memory_shortage.MOST_KILLS = cpu_tasks.MOST_KILLS = 2

@ray.remote
def wait(job):
    time.sleep(60)

with cluster(None, num_cpus=1):
    for most_mib in (1e9, 1.0):
        reports, said = [], []
        cpu = cpu_tasks.CpuTasks(ray.put(None), 1, reports.append, said.append)
        cpu._memory.most_mib = most_mib
        try:
            asyncio.run(cpu.run(wait))
        except Exception as error:
            print("END", type(error).__name__, str(error).splitlines()[0], file=sys.stderr)
        print("END", len(reports), said[0], file=sys.stderr)
"""


@pytest.mark.ray
def test_tasks_that_the_memory_monitor_kills_are_not_tried_for_ever() -> None:
    """A node on which the monitor takes 1 % of the memory for too much, so that it kills all workers."""
    settings = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "100"}
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(
        command, env={**os.environ, **settings}, capture_output=True, text=True, timeout=120, check=True
    )
    stopped, kills, charged, charged_kills = [line for line in done.stderr.splitlines() if line.startswith("END")]
    why = r"END PipelineError node \S+ is short of memory \(\S+ used / \S+ limit\): Ray killed the same task 2 times"
    assert re.match(why, stopped)
    assert kills.startswith("END 2 node ")
    assert kills.endswith("Ray killed a task; trying it again in 0.01 s")
    assert charged.startswith("END OutOfMemoryError"), "the task took more than 1 MiB, as Ray's error tells"
    assert charged_kills.startswith("END 2 ")

"""Kills by Ray's memory monitor: whom to blame for one, how long to wait after it, and when to stop.

The monitor kills workers while their node is short of memory, whoever uses it. So a kill alone says nothing about the
call or task of the worker. It is only blamed if its process had taken more memory than any process of its kind that
succeeded.
"""

import re
from dataclasses import dataclass
from typing import Any

from ray.exceptions import OutOfMemoryError

from pipelines.errors import PipelineError

MOST_KILLS = 10
"""After so many kills of one call, task or start that is not to blame, the run stops: after about six minutes."""

FIRST_PAUSE_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 60.0


def is_memory_kill(error: BaseException) -> bool:
    """Tell whether an error says that the memory monitor killed a worker."""
    return isinstance(error, OutOfMemoryError)


def pause_seconds(kills: int) -> float:
    """Return how long to wait after so many kills in a row: each pause is twice as long as the one before."""
    doublings = min(kills - 1, 10)
    return min(FIRST_PAUSE_SECONDS * 2.0**doublings, LONGEST_PAUSE_SECONDS)


def killed_mib(error: BaseException) -> float | None:
    """Return the memory of the killed process, in MiB; of several, the smallest; None if the error does not tell."""
    _, _, killed = str(error).partition("Selected to kill")
    gib = [float(number) for number in re.findall(r"actual memory used=([\d.]+)GB", killed)]
    return min(gib) * 1024 if gib else None


def describe_shortage(error: BaseException) -> str:
    """Return in a few words what a kill says about the memory of its node."""
    node = re.search(r"\(IP: ([^,)]+)", str(error))
    used = re.search(r"was (\S+ used / \S+ limit)", str(error))
    what = f"node {node[1]}" if node else "a node"
    return f"{what} is short of memory" + (f" ({used[1]})" if used else "")


def shortage_error(killed: str, error: BaseException) -> PipelineError:
    """Return the error that stops a run since `killed`, such as a task, was killed too often."""
    return PipelineError(
        f"{describe_shortage(error)}: Ray killed {killed} {MOST_KILLS} times. Free memory, or use fewer actors "
        "(ray.clip.actors, ray.sam.actors), then run the same command again; no sample is blamed"
    )


@dataclass
class MemoryOfSuccess:
    """The most memory, in MiB, that a process of one kind had taken when its call or task succeeded; 0: not known."""

    most_mib: float = 0.0

    def add(self, report: Any) -> None:
        """Take the peak of a process from the report of what succeeded."""
        self.most_mib = max(self.most_mib, *getattr(report, "peak_mib", {}).values(), 0.0)

    def is_exceeded(self, kill: BaseException) -> bool:
        """Tell whether the killed process had taken more, so that its own call or task is to blame."""
        taken = killed_mib(kill)
        return taken is not None and 0 < self.most_mib < taken

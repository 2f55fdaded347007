"""Two ways of doing the same on the CPU, timed side by side and checked against each other."""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One comparison: medians in `unit` for the whole work of `sizes`, how many times ours is better, and how equal."""

    name: str
    other: str
    ours: float
    theirs: float
    ratio: float
    equal: str
    sizes: str
    unit: str = "CPU seconds"

    def to_dict(self) -> dict[str, Any]:
        """Return the row as a JSON-ready object."""
        return asdict(self)


def compare(
    name: str,
    ours: Callable[[], Any],
    other: str,
    theirs: Callable[[], Any],
    equal: Callable[[Any, Any], str],
    sizes: str,
    rounds: int = 5,
) -> Row:
    """Time `ours` and `theirs`, one after the other in each round after a warm-up; `equal` says how results compare.

    CPU time of the process: what else runs on the machine then matters little, and threads gain nothing.
    """
    agreement = equal(ours(), theirs())
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for work, found in zip((ours, theirs), times, strict=True):
            start = time.process_time()
            work()
            found.append(time.process_time() - start)
    mine, other_time = (statistics.median(found) for found in times)
    return Row(name, other, mine, other_time, other_time / mine, agreement, sizes)


def share_equal(ours: Any, theirs: Any) -> str:
    """Return the share of equal elements of two arrays."""
    return f"{100 * float((ours == theirs).mean()):.4f} % of elements"

"""What a run had to do again, although it went on: counted where it happens, for the summary and the metrics."""

from collections import Counter
from dataclasses import dataclass, field

TEACHER_FAILURES, WORKER_DEATHS, MEMORY_KILLS = "teacher_failures", "worker_deaths", "memory_kills"
STORE_REQUESTS, BAD_SAMPLES = "store_requests", "bad_samples"
"""Reasons of retries: a call that raised, or killed the actor of its teacher; a task whose worker died; an actor or a
task that Ray's memory monitor killed; a request that the object store failed; a shard whose work was planned again
without samples that turned out to be bad."""


@dataclass
class Setbacks:
    """Counts of setbacks.

    `retries` are the tries that failed, by reason; most succeed when they are repeated. `node_losses` are calls and
    answers that were lost with a node and asked for again, so one node can count several times. `actor_restarts` are
    actors that replaced dead ones.
    """

    retries: Counter[str] = field(default_factory=Counter)
    node_losses: int = 0
    actor_restarts: int = 0

    def __str__(self) -> str:
        """Return those that are not zero as one line; empty if all are."""
        again = ", ".join(f"{reason.replace('_', ' ')} {count:,}" for reason, count in self.retries.items() if count)
        parts = [
            f"tried again: {again}" if again else "",
            f"lost with nodes: {self.node_losses:,}" if self.node_losses else "",
            f"actors restarted: {self.actor_restarts:,}" if self.actor_restarts else "",
        ]
        return "; ".join(part for part in parts if part)

"""How many shards are worked on at the same time: enough that no actor waits for one, and not more than memory holds.

A shard's groups are made one after the other: its pictures before the teachers, its labels after them. Meanwhile the
teachers need the samples of other shards. So the number follows from the number of actors, and not from a setting.
"""

import asyncio
import math
from collections.abc import Callable

from pipelines.plan import ShardPlan

SAMPLES_FOR_AN_ACTOR = 24
"""Samples in flight for each actor of the largest pool. At 0.6 s a sample they are 14 s of work for it, and the steps
before and after the teachers take 8 s for a shard of 40 samples."""

LEAST_SHARDS = 4
"""So many are in flight even for one actor: the steps of the others fill the time of a step that waits."""

BYTES_A_PIXEL = 16
"""What the answers of the teachers take in the object store until they are written, for each pixel of training size:
twice what nuScenes' int8 features, ids and scores take."""


def most_shards(actors: int, samples: int, shard_bytes: int, store_bytes: float) -> int:
    """Return how many shards to have in flight.

    Args:
        actors: those of the largest pool of a teacher; without teachers, the cores.
        samples: those of a shard.
        shard_bytes: what its parts take in Ray's object stores.
        store_bytes: the size of these stores, over all nodes; 0 if it is not known.
    """
    wanted = max(LEAST_SHARDS, math.ceil(actors * SAMPLES_FOR_AN_ACTOR / max(1, samples)))
    fitting = int(store_bytes / max(1, shard_bytes)) if store_bytes else wanted
    return max(2, min(wanted, fitting))


def shard_bytes(shard: ShardPlan, pixels: int) -> int:
    """Return what the parts of a shard take, whose pictures have so many pixels at training size."""
    return sum(len(sample.cameras) for sample in shard.samples) * pixels * BYTES_A_PIXEL


class ShardGate:
    """Lets the next shard in when fewer are in flight than `limit` says for it. One caller waits at a time."""

    def __init__(self, limit: Callable[[ShardPlan], int]) -> None:
        """Ask `limit` for each shard, and again whenever one ends, since pools grow and shrink."""
        self._limit = limit
        self._inside = 0
        self._left = asyncio.Event()

    async def enter(self, shard: ShardPlan) -> None:
        """Wait until there is room for a shard, and count it."""
        while self._inside >= self._limit(shard):
            self._left.clear()
            await self._left.wait()
        self._inside += 1

    def leave(self) -> None:
        """Count a shard that has ended."""
        self._inside -= 1
        self._left.set()

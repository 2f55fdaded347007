"""Measure the memory of the driver and of the object store while a run goes on."""

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MIB = 2**20


class Marks:
    """Measures memory and CPU time each time some shards have ended, and notes when the plan was made."""

    def __init__(self, every: int, longest_block_s: Callable[[], float]) -> None:
        """Measure after `every` shards, 0 for never; `longest_block_s` gives the longest block since its last call."""
        self._every, self._longest_block_s = every, longest_block_s
        self.planned = 0.0
        self.taken: list[dict[str, float]] = []

    def watch(self) -> None:
        """Count the shards of the next run."""
        from pipelines.progress import Progress

        shard_done, begin = Progress.shard_done, Progress.__init__

        def began(progress: Any, *arguments: Any) -> None:
            begin(progress, *arguments)
            self.planned = time.perf_counter()

        def counted(progress: Any) -> None:
            shard_done(progress)
            if self._every and progress._shards_done % self._every == 0:
                self._look(progress._shards_done)

        Progress.__init__, Progress.shard_done = began, counted  # type: ignore[method-assign]

    def _look(self, shards: int) -> None:
        import ray
        from ray._private.internal_api import node_stats

        host = ray.nodes()[0]  # type: ignore[no-untyped-call]
        store = node_stats(host["NodeManagerAddress"], host["NodeManagerPort"]).store_stats
        mark = {
            "shards": shards,
            "driver_mib": resident_mib(),
            "store_mib": store.object_store_bytes_used / MIB,
            "longest_block_s": self._longest_block_s(),
            "cpu_s": time.process_time(),
            "loop_cpu_s": loop_cpu_s(),
        }
        self.taken.append(mark)
        print(mark, file=sys.stderr)


def loop_cpu_s() -> float:
    """Return the CPU time of the main thread, where the event loop runs; Ray's threads work beside it."""
    thread = threading.main_thread().ident
    assert thread is not None
    return time.clock_gettime(time.pthread_getcpuclockid(thread))


def resident_mib() -> float:
    """Return the resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / MIB

"""One real run with stand-in teachers: what it costs its driver, the store and the event loop.

    python -m benchmarks.cluster.measure --data DIR --cache PLACE --actors 4 [--seconds 0.6] [--cpu-seconds '{}']

prints one JSON object.
"""

import argparse
import asyncio
import functools
import json
import os
import resource
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.cluster import stand_ins
from benchmarks.cluster.memory import Marks, loop_cpu_s
from pipelines import run
from pipelines.cluster import cluster
from pipelines.config import load_config
from pipelines.teacher_pools import TeacherPools


@dataclass
class Loop:
    """The longest callback of the event loop of the driver: since it was last asked, and of all."""

    longest_s: float = 0.0
    longest_so_far_s: float = 0.0

    def watch(self) -> None:
        """Time every callback of every loop in this process from now on."""
        run = asyncio.events.Handle._run  # type: ignore[attr-defined]

        def timed(handle: Any) -> None:
            start = time.perf_counter()
            run(handle)
            seconds = time.perf_counter() - start
            if threading.current_thread() is threading.main_thread():
                self.longest_s = max(self.longest_s, seconds)

        asyncio.events.Handle._run = timed  # type: ignore[attr-defined]

    def take_longest_s(self) -> float:
        """Return the longest callback since the last time this was asked."""
        seconds, self.longest_s = self.longest_s, 0.0
        self.longest_so_far_s = max(self.longest_so_far_s, seconds)
        return seconds


@dataclass
class Start:
    """When the teachers have loaded: the time, the CPU time of the driver, and the requests so far."""

    counts: str | None
    time: float = 0.0
    cpu: float = 0.0
    loop_cpu: float = 0.0
    requests: dict[str, int] = field(default_factory=dict)

    def watch(self) -> None:
        """Note it in the next run."""
        start = TeacherPools.start

        async def noted(pools: Any, calls: Any) -> None:
            await start(pools, calls)
            if not self.time:
                self.time, self.cpu, self.loop_cpu = time.perf_counter(), time.process_time(), loop_cpu_s()
                self.requests = requests_so_far(self.counts)

        TeacherPools.start = noted  # type: ignore[method-assign]


def main() -> None:
    """Run, and print what it cost."""
    arguments = _parser().parse_args()
    stand_ins.install_everywhere(arguments.seconds, arguments.cpu_seconds)
    if arguments.cores:
        run.cluster = functools.partial(cluster, num_cpus=arguments.cores)
    overrides = [
        "images.height=32",
        "images.width=64",
        f"shard_samples={arguments.shard_samples}",
        f"ray.sam.actors={arguments.actors}",
        f"ray.clip.actors={max(1, arguments.actors // 8)}",
    ]
    config = load_config("nuscenes", teachers="untrained", overrides=overrides)
    loop, start = Loop(), Start(arguments.counts)
    marks = Marks(arguments.every, loop.take_longest_s)
    for watcher in (loop, start, marks):
        watcher.watch()
    begin = time.perf_counter()
    request = run.RunRequest(config, arguments.data, arguments.cache, limit=arguments.limit)
    summary = run.generate_labels(request, say=lambda line: None)
    end, cpu = time.perf_counter(), time.process_time()
    loop.take_longest_s()
    shards = summary.shards_done
    requests = {name: count - start.requests.get(name, 0) for name, count in requests_so_far(arguments.counts).items()}
    figures = {
        "actors": arguments.actors,
        "cores": arguments.cores or os.cpu_count(),
        "load": os.getloadavg()[0],
        "seconds_of_a_sample": arguments.seconds,
        "cpu_seconds": json.loads(arguments.cpu_seconds) if arguments.cpu_seconds else None,
        "shards": shards,
        "samples": summary.samples_labelled,
        "plan_s": marks.planned - begin,
        "work_s": end - start.time,
        "driver_cpu_s_a_shard": (cpu - start.cpu) / shards,
        "loop_cpu_s_a_shard": (loop_cpu_s() - start.loop_cpu) / shards,
        "longest_block_s": loop.longest_so_far_s,
        "requests_a_shard": {name: count / shards for name, count in requests.items()},
        "all_requests_a_shard": sum(requests.values()) / shards,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "stage_seconds": {name: round(value, 3) for name, value in summary.stage_seconds.items()},
        "marks": marks.taken,
    }
    print(json.dumps(figures))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", required=True)
    parser.add_argument("--actors", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--shard-samples", type=int, default=40)
    parser.add_argument("--limit", type=int, help="shards to make; all without it")
    parser.add_argument("--cpu-seconds", help="replace CPU stages: JSON of seconds a sample by stage")
    parser.add_argument("--every", type=int, default=0, help="measure the memory each time so many shards have ended")
    parser.add_argument("--cores", type=int, help="cores that Ray gives to tasks; without it, those of the machine")
    parser.add_argument("--counts", help="URL of the counting store")
    return parser


def requests_so_far(url: str | None) -> dict[str, int]:
    """Return the requests that the counting store has answered, by method; none without one."""
    if not url:
        return {}
    with urllib.request.urlopen(f"{url}/requests") as answer:
        counts: dict[str, int] = json.load(answer)
    return counts


if __name__ == "__main__":
    main()

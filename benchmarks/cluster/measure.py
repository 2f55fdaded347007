"""One real run with stand-in teachers: what it costs its driver, the store and the event loop.

    python -m benchmarks.cluster.measure --data DIR --cache PLACE --actors 4 [--seconds 0.6] [--scenes 4]

prints one JSON object.
"""

import argparse
import asyncio
import json
import os
import resource
import threading
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray._private import ray_constants

from benchmarks.cluster import stand_ins
from pipelines.config import load_config
from pipelines.run import RunRequest, generate_labels


@dataclass
class Loop:
    """What the event loop of the driver did: the time in its callbacks, and the longest one."""

    busy_s: float = 0.0
    longest_s: float = 0.0

    def watch(self) -> None:
        """Time every callback of every loop in this process from now on."""
        run = asyncio.events.Handle._run  # type: ignore[attr-defined]

        def timed(handle: Any) -> None:
            start = time.perf_counter()
            run(handle)
            seconds = time.perf_counter() - start
            self.busy_s += seconds
            if seconds > self.longest_s and threading.current_thread() is threading.main_thread():
                self.longest_s = seconds

        asyncio.events.Handle._run = timed  # type: ignore[attr-defined]


def main() -> None:
    """Run, and print what it cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", required=True)
    parser.add_argument("--actors", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--shard-samples", type=int, default=40)
    parser.add_argument("--counts", help="URL of the counting store")
    arguments = parser.parse_args()
    os.environ[ray_constants.WORKER_PROCESS_SETUP_HOOK_ENV_VAR] = "benchmarks.cluster.stand_ins.install"
    os.environ[stand_ins.SECONDS] = str(arguments.seconds)
    stand_ins.install()
    overrides = [
        "images.height=32",
        "images.width=64",
        f"shard_samples={arguments.shard_samples}",
        f"ray.sam.actors={arguments.actors}",
        f"ray.clip.actors={max(1, arguments.actors // 8)}",
    ]
    config = load_config("nuscenes", teachers="untrained", overrides=overrides)
    loop = Loop()
    loop.watch()
    started: dict[str, float] = {}
    _note_start_of_work(started, arguments.counts)
    begin = time.perf_counter()
    summary = generate_labels(RunRequest(config, arguments.data, arguments.cache), say=lambda line: None)
    end, cpu = time.perf_counter(), time.process_time()
    requests = {name: count - started["requests"].get(name, 0) for name, count in _requests(arguments.counts).items()}
    shards = summary.shards_done
    print(
        json.dumps(
            {
                "actors": arguments.actors,
                "seconds_of_a_sample": arguments.seconds,
                "shards": shards,
                "samples": summary.samples_labelled,
                "plan_s": started["time"] - begin,
                "work_s": end - started["time"],
                "driver_cpu_s_a_shard": (cpu - started["cpu"]) / shards,
                "loop_busy_s_a_shard": loop.busy_s / shards,
                "longest_block_s": loop.longest_s,
                "requests_a_shard": {name: count / shards for name, count in requests.items()},
                "all_requests_a_shard": sum(requests.values()) / shards,
                "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "stage_seconds": {name: round(value, 3) for name, value in summary.stage_seconds.items()},
            }
        )
    )


def _note_start_of_work(started: dict[str, Any], counts: str | None) -> None:
    """Note the time, the CPU time and the requests so far when the teachers have loaded."""
    from pipelines.teacher_pools import TeacherPools

    start = TeacherPools.start

    async def noted(pools: Any, calls: Any) -> None:
        await start(pools, calls)
        if "time" not in started:
            started.update(time=time.perf_counter(), cpu=time.process_time(), requests=_requests(counts))

    TeacherPools.start = noted  # type: ignore[method-assign]


def _requests(url: str | None) -> dict[str, int]:
    if not url:
        return {}
    with urllib.request.urlopen(f"{url}/requests") as answer:
        counts: dict[str, int] = json.load(answer)
    return counts


if __name__ == "__main__":
    main()

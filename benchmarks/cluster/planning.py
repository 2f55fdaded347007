"""How long it takes to read the tables of a data set and to plan its shards, in this process.

    python -m benchmarks.cluster.planning --data DIR

prints one JSON object: samples, and wall and CPU seconds of reading and of planning for an empty cache.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from cache_schemas.store import Cache
from pipelines.config import load_config
from pipelines.plan import Planner
from pipelines.run import RunRequest, plan_request, read_dataset


def main() -> None:
    """Read, plan, and print the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        request = RunRequest(load_config("nuscenes", teachers="untrained"), arguments.data, cache)
        times = [(time.perf_counter(), time.process_time())]
        adapter, resolved, scenes = read_dataset(request)
        times.append((time.perf_counter(), time.process_time()))
        planner = Planner(adapter.data, Cache(cache), resolved)
        plan = plan_request(planner, scenes, request)
        times.append((time.perf_counter(), time.process_time()))
    names = (("read_s", "read_cpu_s"), ("plan_s", "plan_cpu_s"))
    figures: dict[str, float] = {"shards": len(plan), "load": os.getloadavg()[0]}
    figures["samples"] = sum(len(shard.samples) for shard in plan)
    for (wall, cpu), before, after in zip(names, times[:-1], times[1:], strict=True):
        figures |= {wall: after[0] - before[0], cpu: after[1] - before[1]}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

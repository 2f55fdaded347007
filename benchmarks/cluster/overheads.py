"""What Ray adds to the work, apart from the driver's CPU time: measured with tasks and calls that do nothing.

    python -m benchmarks.cluster.overheads [--cores 4]

prints one JSON object. For `worker_start_s`, one empty task for each core is submitted, and each starts a worker
process; it is the time until all have ended. `worker_start_cpu_s` is the CPU time of one such process. `task_s` and
`call_s` are the median times of one empty task and of one call to an actor, from the submission to the report.
"""

import argparse
import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import Any

import ray

from benchmarks.cluster import stand_ins
from labelgen.stages.inputs import ResolvedSettings
from pipelines import tasks
from pipelines.cluster import cluster
from pipelines.config import load_config
from pipelines.cpu_tasks import CpuTasks
from pipelines.resolve import open_dataset, read_scenes, resolve, with_modalities_of
from pipelines.tasks import Chunk, Job

REPEATS = 100


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cores", type=int, default=4)
    arguments = parser.parse_args()
    stand_ins.install_everywhere(seconds=0.0)
    config = load_config("nuscenes", teachers="untrained", overrides=["images.height=32", "images.width=64"])
    adapter = open_dataset("nuscenes", arguments.data)
    scenes = read_scenes(config, adapter)
    resolved: ResolvedSettings = with_modalities_of(scenes, resolve(config, adapter))
    with cluster(None, num_cpus=arguments.cores):
        job = ray.put(Job("/nowhere", adapter, resolved, "nobody"))
        figures = asyncio.run(_measure(job, arguments.cores, scenes[0].samples[:1]))
    print(json.dumps(figures))


async def _measure(job: "ray.ObjectRef[Job]", cores: int, samples: tuple[Any, ...]) -> dict[str, float]:
    cpu = CpuTasks(job, 0, lambda report: None)
    sample = samples[0]

    def empty_task() -> Awaitable[Any]:
        return cpu.run(tasks.check_sample, (), sample)

    start = time.perf_counter()
    await asyncio.gather(*(empty_task() for _ in range(cores)))
    worker_start_s = time.perf_counter() - start
    cpu_s = await asyncio.gather(*(_process_cpu_s.remote() for _ in range(cores)))
    actor_class: Any = tasks.TeacherActor
    actor = actor_class.options(max_concurrency=2, num_cpus=0).remote(job, "sam", 1)
    await actor.__ray_ready__.remote()
    chunk = tasks.packed(Chunk("sam", "nowhere", samples))

    async def call() -> None:
        report, _part = actor.answer.remote(chunk)
        await report

    return {
        "cores": cores,
        "load": os.getloadavg()[0],
        "worker_start_s": worker_start_s,
        "worker_start_cpu_s": median(cpu_s),
        "task_s": await _median_s(empty_task),
        "call_s": await _median_s(call),
    }


@ray.remote
def _process_cpu_s() -> float:
    time.sleep(0.5)  # so that each worker gets one of these tasks
    return time.process_time()


async def _median_s(run: Callable[[], Awaitable[Any]]) -> float:
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        await run()
        seconds.append(time.perf_counter() - start)
    return median(seconds)


if __name__ == "__main__":
    main()

"""Measure what a run costs besides its teachers, simulate it for 1 to 256 GPUs, print tables and draw the plot.

    python -m benchmarks.cluster                # measures, and writes docs/results/cluster.json and .png
    python -m benchmarks.cluster memory         # measures one part again: costs, steady, check, memory or planning
    python -m benchmarks.cluster --simulate     # from the figures in docs/results/cluster.json

Real Ray, planner, writers and stores, on the cores of this machine; the teachers are stand-ins. The plot needs
matplotlib. `planning` takes 1 GiB of /dev/shm.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.cluster import tables
from benchmarks.cluster.made_data import make_data
from benchmarks.cluster.tables import KEYFRAMES, Figures

RESULTS = Path("docs/results/cluster.json")
PLOT = Path("docs/results/cluster.png")

COST_ACTORS, STORE_ACTORS = (2, 4), (2,)
"""Actors of the runs into a folder, and into an S3 server (moto) on this machine; 6 shards of 40 keyframes each."""

STEADY_SCENES = 24
"""Shards of 40 keyframes of the run whose driver is measured after its first shards."""

CHECKS = ((2, 4, 0.3), (4, 4, 0.6))
"""Actors, cores, and seconds of the teacher for a sample, of the runs that are compared with the simulation."""

CHECK_SHARDS = 6
CHECK_SECONDS = {"images": 0.4875, "write images": 0.4, "points": 0.5, "write sam": 1.1, "labels": 0.9}
"""What the CPU tasks of these runs sleep: those of nuScenes."""

LONG_SCENES, LONG_SHARD = 85, 4
"""The data set of the long run: 850 shards of 4 keyframes."""

ALL_SCENES, ALL_KEYFRAMES = 425, 80
"""A data set of the size of nuScenes, which is only planned: 34,000 keyframes."""


def main() -> None:
    """Measure what is asked for, then print all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *MEASURES], help="what to measure; everything without it")
    parser.add_argument("--simulate", action="store_true", help="take the measured figures from the file")
    arguments = parser.parse_args()
    figures: Figures = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if not arguments.simulate:
        for part in arguments.parts or MEASURES:
            figures[part] = MEASURES[part]()
            RESULTS.write_text(json.dumps(figures, indent=1) + "\n")
    loop = tables.loop_costs(figures["steady"])
    tables.print_costs(figures["costs"])
    tables.print_steady(figures["steady"])
    tables.print_memory(figures["memory"])
    tables.print_planning(figures["planning"])
    tables.print_check(figures["check"], loop[1])
    overheads = tables.mean_overheads(figures["check"])
    tables.draw(tables.print_simulated(loop, overheads), PLOT)


def _costs() -> list[Figures]:
    with _data(scenes=6, keyframes=KEYFRAMES) as data:
        runs = [_measure(data, actors=actors) for actors in COST_ACTORS]
        return runs + [_measure_in_store(data, actors=actors) for actors in STORE_ACTORS]


def _steady() -> Figures:
    with _data(STEADY_SCENES, KEYFRAMES) as data:
        return _measure(data, actors=2, cpu_seconds="{}", every=4)


def _check() -> list[Figures]:
    found = []
    with _data(scenes=CHECK_SHARDS, keyframes=KEYFRAMES) as data:
        for actors, cores, seconds in CHECKS:
            overheads = _python("benchmarks.cluster.overheads", {}, data=data, cores=cores)
            sleeping = json.dumps(CHECK_SECONDS)
            run = _measure(data, actors=actors, cores=cores, seconds=seconds, cpu_seconds=sleeping)
            found.append({"overheads": overheads, "run": run})
    return found


def _memory() -> Figures:
    with _data(LONG_SCENES, KEYFRAMES) as data:
        return _measure(data, actors=2, shard_samples=LONG_SHARD, cpu_seconds="{}", every=50)


def _planning() -> Figures:
    with _data(ALL_SCENES, ALL_KEYFRAMES) as data:
        return _python("benchmarks.cluster.planning", {}, data=data)


MEASURES: dict[str, Callable[[], Any]] = {
    "costs": _costs,
    "steady": _steady,
    "check": _check,
    "memory": _memory,
    "planning": _planning,
}


@contextmanager
def _data(scenes: int, keyframes: int) -> Iterator[Path]:
    """Make a data set in memory; caches may go beside it."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield make_data(Path(folder, "nuscenes"), scenes, keyframes)


def _measure(data: Path, store: dict[str, str] | None = None, **options: Any) -> Figures:
    """Make a run of its own process, into a cache that is removed afterwards."""
    with tempfile.TemporaryDirectory(dir=data.parent) as folder:
        cache = "s3://bucket/cache.zarr" if store else f"{folder}/cache.zarr"
        counts = {"counts": store["AWS_ENDPOINT_URL"]} if store else {}
        done = _python("benchmarks.cluster.measure", store or {}, data=data, cache=cache, **counts, **options)
    return {"store": "S3 server" if store else "folder", **done}


def _measure_in_store(data: Path, **options: Any) -> Figures:
    import fsspec

    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.cluster.counting_store"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout is not None
        store = {"AWS_ENDPOINT_URL": server.stdout.readline().strip()}
        store |= {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
        made = {"endpoint_url": store["AWS_ENDPOINT_URL"], "key": "key", "secret": "secret"}
        fsspec.filesystem("s3", **made).mkdir("bucket")
        return _measure(data, store, **options)
    finally:
        server.kill()
        server.wait()


def _python(module: str, environment: dict[str, str], **options: Any) -> Figures:
    """Run a module with options, and return the JSON object that it prints."""
    given = [text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    everything = {**os.environ, **environment, "PYTHONPATH": str(Path.cwd())}
    command = [sys.executable, "-m", module, *given]
    done = subprocess.run(command, env=everything, text=True, stdout=subprocess.PIPE, check=True)
    found: Figures = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()

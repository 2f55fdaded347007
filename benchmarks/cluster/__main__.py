"""Measure what a run costs besides its teachers, simulate it for 1 to 256 GPUs, print tables and draw the plot.

    python -m benchmarks.cluster                # measures for some minutes, writes docs/results/cluster.json and .png
    python -m benchmarks.cluster --simulate     # from the figures in docs/results/cluster.json

Real Ray, planner, writers and stores, on the cores of this machine; the teachers are stand-ins. The plot needs
matplotlib.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.cluster.simulate import Costs, Size, simulate

RESULTS = Path("docs/results/cluster.json")
PLOT = Path("docs/results/cluster.png")
SCENES, KEYFRAMES = 6, 40

RUNS = ((1, 0.0), (4, 0.0), (16, 0.0), (4, 0.15), (8, 0.3), (16, 0.6))
"""Actors, and seconds of the teacher for a sample, of the runs into a folder."""

STORE_RUNS = ((4, 0.0),)
"""The same of the runs into an S3 server (moto) on this machine."""

NUSCENES = {"shards": 850, "samples": 40, "teacher_s": 0.6}
NUSCENES_BEFORE, NUSCENES_AFTER = (3.9, 0.9), (1.1, 0.9)
"""Seconds of CPU tasks for a shard of 40 keyframes of nuScenes: pictures and seals, then SAM's seal and the labels."""

CORES_A_GPU = 4
GPUS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def main() -> None:
    """Measure unless told not to, then simulate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulate", action="store_true", help="take the measured figures from the file")
    if not parser.parse_args().simulate:
        RESULTS.write_text(json.dumps(_measure_all(), indent=1) + "\n")
    runs: list[dict[str, Any]] = json.loads(RESULTS.read_text())
    _print_measured(runs)
    _print_check(runs)
    _draw(_print_simulated(_driver_costs(runs)))


def _measure_all() -> list[dict[str, Any]]:
    from labelgen.datasets.nuscenes.splits import split_scenes
    from tests.labelgen.make_nuscenes import make_nuscenes

    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        data = Path(folder, "nuscenes")
        names = sorted(split_scenes("train"))[:SCENES]
        make_nuscenes(data, scenes=dict.fromkeys(names, KEYFRAMES), version="v1.0-trainval")
        runs = []
        for number, (actors, seconds) in enumerate(RUNS):
            runs.append(_measure(data, f"{folder}/{number}.zarr", actors, seconds, {}))
        for number, (actors, seconds) in enumerate(STORE_RUNS):
            runs.append(_measure_in_store(data, f"s3://bucket/{number}.zarr", actors, seconds))
    return runs


def _measure(data: Path, cache: str, actors: int, seconds: float, store: dict[str, str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.cluster.measure", "--data", str(data), "--cache", cache]
    command += ["--actors", str(actors), "--seconds", str(seconds)]
    command += ["--counts", store["AWS_ENDPOINT_URL"]] if store else []
    environment = {**os.environ, **store, "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(command, env=environment, text=True, stdout=subprocess.PIPE, check=True)
    return {"store": "S3 server" if store else "folder", **json.loads(done.stdout)}


def _measure_in_store(data: Path, cache: str, actors: int, seconds: float) -> dict[str, Any]:
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
        return _measure(data, cache, actors, seconds, store)
    finally:
        server.kill()
        server.wait()


def _print_measured(runs: list[dict[str, Any]]) -> None:
    heads = ("cache", "actors", "teacher, s a sample", "driver CPU, s a shard", "longest block, ms")
    print(f"| {' | '.join(heads)} | requests a shard | peak MiB |")
    print("|---|---|---|---|---|---|---|")
    for run in runs:
        requests = f"{run['all_requests_a_shard']:.0f}" if run["requests_a_shard"] else "-"
        times = f"{run['driver_cpu_s_a_shard']:.3f} | {1000 * run['longest_block_s']:.0f}"
        teacher = f"{run['actors']} | {run['seconds_of_a_sample']:g}"
        print(f"| {run['store']} | {teacher} | {times} | {requests} | {run['peak_mib']:.0f} |")


def _driver_costs(runs: list[dict[str, Any]]) -> tuple[float, float]:
    """Return the driver's seconds for a call and for the rest of a shard: its CPU time with instant teachers.

    A run that waits for its teachers also counts what Ray's threads in the driver take by the second.
    """
    instant = [run for run in runs if run["store"] == "folder" and not run["seconds_of_a_sample"]]
    a_shard = max(run["driver_cpu_s_a_shard"] for run in instant)
    return 0.9 * a_shard / KEYFRAMES, 0.1 * a_shard


def _print_check(runs: list[dict[str, Any]]) -> None:
    """Compare real runs with their simulation, from the costs of the run of one actor with instant teachers."""
    base = next(run for run in runs if run["store"] == "folder" and run["seconds_of_a_sample"] == 0)
    seconds = {name: value / base["shards"] for name, value in base["stage_seconds"].items()}
    before = (seconds["images"] + seconds["points"],)
    after = (seconds["write sam"] + seconds["write clip"] + seconds["labels"],)
    call, shard = _driver_costs(runs)
    print("\n| actors | teacher, s a sample | real, s | simulated, s |\n|---|---|---|---|")
    for run in runs:
        if run["store"] == "folder" and run["seconds_of_a_sample"]:
            size = Size(run["actors"], os.cpu_count() or 1, run["shards"], KEYFRAMES, run["seconds_of_a_sample"])
            simulated = simulate(Costs(before, after, call, shard), size)
            print(f"| {run['actors']} | {run['seconds_of_a_sample']:g} | {run['work_s']:.1f} | {simulated:.1f} |")


def _print_simulated(driver: tuple[float, float]) -> dict[str, list[float]]:
    costs = Costs(NUSCENES_BEFORE, NUSCENES_AFTER, *driver)
    curves: dict[str, list[float]] = {"derived": [], "4 shards in flight": []}
    print("\n| GPUs | hours at least | efficiency | efficiency with 4 shards in flight |\n|---|---|---|---|")
    for gpus in GPUS:
        found = []
        for name, in_flight in (("derived", None), ("4 shards in flight", 4)):
            size = Size(gpus, gpus * CORES_A_GPU, in_flight=in_flight, **NUSCENES)  # type: ignore[arg-type]
            found.append(size.least_s / simulate(costs, size))
            curves[name].append(found[-1])
        print(f"| {gpus} | {size.least_s / 3600:.2f} | {found[0]:.3f} | {found[1]:.3f} |")
    return curves


def _draw(curves: dict[str, list[float]]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.5))
    for name, values in curves.items():
        axes.plot(GPUS, values, marker="o", label=name)
    axes.set(xscale="log", xlabel="GPUs", ylabel="efficiency (simulated)", ylim=(0, 1.02), xticks=GPUS)
    axes.set_xticklabels(list(map(str, GPUS)))
    axes.minorticks_off()
    axes.legend()
    figure.tight_layout()
    figure.savefig(PLOT, dpi=110)


if __name__ == "__main__":
    main()

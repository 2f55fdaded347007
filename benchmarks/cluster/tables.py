"""The tables and the plot of docs/results/cluster.md, from the measured figures."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.cluster.simulate import Costs, Size, simulate
from pipelines.in_flight import LEAST_SHARDS

Figures = dict[str, Any]

KEYFRAMES = 40
NUSCENES = {"shards": 850, "samples": KEYFRAMES, "teacher_s": 0.6}
PARTS = 8
"""Tasks that decode the pictures of a shard of nuScenes: 240 pictures, 30 in each."""

IMAGES_S, BEFORE_S, AFTER_S = 3.9, 0.9, (1.1, 0.9)
"""Seconds of CPU tasks for 40 keyframes of nuScenes: pictures, their seal; then SAM's seal, and the labels."""

CORES_A_GPU = 4
GPUS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

CALLS_A_SHARD = KEYFRAMES + KEYFRAMES // 8 + PARTS + 5
"""Ray calls of the measured runs: to SAM's and CLIP's actors, parts, and the tasks that join, read and label."""

MARKS = (100, 200, 300, 400, 500, 600, 700, 800, 850)


def print_costs(runs: Sequence[Figures]) -> None:
    """Print what runs with instant teachers cost the driver and the store."""
    _head("cache", "actors", "load", "driver CPU, s a shard", "event loop", "longest block, ms", "requests a shard")
    for run in runs:
        requests = f"{run['all_requests_a_shard']:.0f}" if run["requests_a_shard"] else "-"
        times = f"{run['driver_cpu_s_a_shard']:.3f} | {run['loop_cpu_s_a_shard']:.3f}"
        block = f"{1000 * run['longest_block_s']:.0f}"
        print(f"| {run['store']} | {run['actors']} | {run['load']:.0f} | {times} | {block} | {requests} |")


def print_memory(run: Figures) -> None:
    """Print the memory of the long run, and the driver's time for a shard between its marks."""
    _head("shards", "driver, MiB", "object store, MiB", "longest block, ms", "driver CPU, s a shard", "event loop")
    last = None
    for mark in run["marks"]:
        if mark["shards"] in MARKS:
            times = [f"{_rate([last, mark], name):.3f}" if last else "-" for name in ("cpu_s", "loop_cpu_s")]
            memory = f"{mark['driver_mib']:.1f} | {mark['store_mib']:.1f}"
            print(f"| {mark['shards']} | {memory} | {1000 * mark['longest_block_s']:.0f} | {' | '.join(times)} |")
            last = mark


def print_planning(figures: Figures) -> None:
    """Print how long planning takes."""
    _head("samples", "load", "tables, CPU s", "wall s", "plan, CPU s", "wall s")
    times = " | ".join(f"{figures[name]:.1f}" for name in ("read_cpu_s", "read_s", "plan_cpu_s", "plan_s"))
    print(f"| {figures['samples']:,} | {figures['load']:.0f} | {times} |")


def print_steady(run: Figures) -> None:
    """Print the driver's time for a shard of a longer run, after its first shards."""
    _head("shards", "load", "driver CPU, s a shard", "event loop", "event loop, least and most between marks")
    least, usual, most = loop_costs(run)
    total = _rate(run["marks"], "cpu_s")
    print(f"| {run['shards']} | {run['load']:.0f} | {total:.3f} | {usual:.3f} | {least:.3f} to {most:.3f} |")


def loop_costs(run: Figures) -> tuple[float, float, float]:
    """Return the event loop's CPU seconds for a shard: least, mean and most between the marks of a longer run.

    What a run does once, such as connecting to the actors, is before its first mark. The last shards are left out:
    their calls are made while earlier ones end.
    """
    marks = [mark for mark in run["marks"] if mark["shards"] <= run["shards"] - LEAST_SHARDS]
    rates = [_rate(pair, "loop_cpu_s") for pair in pairwise(marks)]
    return min(rates), _rate(marks, "loop_cpu_s"), max(rates)


def _rate(marks: Sequence[Figures], name: str) -> float:
    """Return seconds a shard, between the first and the last mark."""
    seconds: float = marks[-1][name] - marks[0][name]
    return seconds / (marks[-1]["shards"] - marks[0]["shards"])


def costs_of_nuscenes(a_shard: float, overheads: Figures, parts: int = PARTS) -> Costs:
    """Return the costs of a shard of nuScenes, whose pictures are decoded in so many tasks."""
    call, rest = _loop(a_shard)
    before = ((IMAGES_S / parts,) * parts, (BEFORE_S,))
    after = tuple((seconds,) for seconds in AFTER_S)
    return Costs(before, after, call, rest, overheads["call_s"], overheads["task_s"], overheads["worker_start_cpu_s"])


def _loop(a_shard: float) -> tuple[float, float]:
    """Divide the event loop's time for a shard into that of a call and the rest: nine tenths are for its calls."""
    return 0.9 * a_shard / CALLS_A_SHARD, 0.1 * a_shard


def print_check(checks: Sequence[Figures], a_shard: float) -> None:
    """Compare real runs, whose teachers and CPU stages sleep, with their simulation."""
    _head(
        "actors", "cores", "teacher, s a sample", "load", "worker start, s", "real, s", "simulated, s", "without Ray, s"
    )
    for check in checks:
        run, overheads = check["run"], check["overheads"]
        size = Size(run["actors"], run["cores"], run["shards"], KEYFRAMES, run["stage_seconds"]["sam"] / run["samples"])
        costs = costs_of_run(run, overheads, a_shard)
        bare = Costs(costs.before, costs.after, 0.0, 0.0)
        found = [simulate(costs, size), simulate(bare, size)]
        loads = f"{run['load']:.0f} | {overheads['worker_start_s']:.1f}"
        numbers = f"{run['actors']} | {run['cores']} | {run['seconds_of_a_sample']:g} | {loads}"
        print(f"| {numbers} | {run['work_s']:.1f} | {found[0]:.1f} | {found[1]:.1f} |")


def costs_of_run(run: Figures, overheads: Figures, a_shard: float) -> Costs:
    """Return the costs of a shard as the workers of a run measured them, and Ray's as measured before it."""
    seconds = {name: value / run["shards"] for name, value in run["stage_seconds"].items()}
    call, rest = _loop(a_shard)
    before = (((seconds["images"] / PARTS,) * PARTS) + (seconds["points"],), (seconds["write images"],))
    after = ((seconds["write sam"],), (seconds["labels"],))
    return Costs(before, after, call, rest, overheads["call_s"], overheads["task_s"], overheads["worker_start_s"])


def print_simulated(loop: tuple[float, float, float], overheads: Figures) -> dict[str, list[float]]:
    """Print the efficiency by the number of GPUs; returns the curves."""
    least, usual, most = loop
    ways = {
        "derived": (costs_of_nuscenes(usual, overheads), None),
        "cheapest driver": (costs_of_nuscenes(least, overheads), None),
        "dearest driver": (costs_of_nuscenes(most, overheads), None),
        "pictures in one task": (costs_of_nuscenes(usual, overheads, parts=1), None),
        "4 shards in flight": (costs_of_nuscenes(usual, overheads), 4),
    }
    curves: dict[str, list[float]] = {name: [] for name in ways}
    _head("GPUs", "hours at least", "efficiency", "least and most driver cost", "pictures in one task", "4 in flight")
    for gpus in GPUS:
        for name, (costs, in_flight) in ways.items():
            size = Size(gpus, gpus * CORES_A_GPU, in_flight=in_flight, **NUSCENES)  # type: ignore[arg-type]
            curves[name].append(size.least_s / simulate(costs, size))
        now = [curves[name][-1] for name in ways]
        cells = [f"{now[0]:.3f}", f"{now[1]:.3f} to {now[2]:.3f}", f"{now[3]:.3f}", f"{now[4]:.3f}"]
        print(f"| {gpus} | {size.least_s / 3600:.2f} | {' | '.join(cells)} |")
    return curves


def draw(curves: dict[str, list[float]], file: Path) -> None:
    """Draw the efficiency by the number of GPUs."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.5))
    for name in ("derived", "pictures in one task", "4 shards in flight"):
        axes.plot(GPUS, curves[name], marker="o", label=name)
    axes.fill_between(GPUS, curves["dearest driver"], curves["cheapest driver"], alpha=0.2)
    axes.set(xscale="log", xlabel="GPUs", ylabel="efficiency (simulated)", ylim=(0, 1.02), xticks=GPUS)
    axes.set_xticklabels(list(map(str, GPUS)))
    axes.minorticks_off()
    axes.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=110)


def mean_overheads(checks: Sequence[Figures]) -> Figures:
    """Return the mean overheads that were measured beside the checks."""
    return {name: mean(check["overheads"][name] for check in checks) for name in checks[0]["overheads"]}


def _head(*names: str) -> None:
    print(f"\n| {' | '.join(names)} |\n|{'---|' * len(names)}")

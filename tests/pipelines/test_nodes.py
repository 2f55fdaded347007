"""Runs on a cluster of several nodes, some of which are killed, full, or come late: the arrays are always the same."""

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipelines.caches import checksums, problems
from tests.pipelines.processes import said_by, seals, wait_for
from tests.pipelines.simulated_cluster import SimulatedCluster

pytestmark = [pytest.mark.kill, pytest.mark.ray]

SEED = int(os.environ.get("CRASH_SEED", "0"))
SEEDS = range(SEED, SEED + int(os.environ.get("CRASH_NODES", "2")))
ON_CPUS = ("--set", "ray.clip.num_gpus=0", "--set", "ray.sam.num_gpus=0", "--set", "ray.clip.samples_per_call=1")
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "5" * 64}
"""A user's own settings: a cluster that is given by address and requires the user's token."""


@pytest.fixture
def environment(temp: Path, labelgen, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    for name, value in TOKEN.items():
        monkeypatch.setenv(name, value)
    return labelgen.environment()


@pytest.fixture
def head(temp: Path, environment: dict[str, str]) -> Iterator[SimulatedCluster]:
    """Return a cluster that has a head node so far, with one core."""
    cluster = SimulatedCluster(temp / "ray", environment, num_cpus=1)
    yield cluster
    cluster.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_run_that_loses_a_node_ends_with_the_arrays_of_an_undisturbed_one(
    made: Path, built: Path, tmp_path: Path, labelgen, head: SimulatedCluster, seed: int
) -> None:
    """Two SAM actors need a core each, and tasks another one: after a node is lost, there is no place for one actor."""
    for name in ("a", "b"):
        head.add(name, num_cpus=1)
    chosen = random.Random(seed)
    cache = tmp_path / "cache.zarr"
    pools = ["--set", "ray.sam.actors=2", "--set", "ray.sam.num_cpus=1", "--set", "ray.clip.actors=2"]
    run = labelgen.start(made / "nuscenes", cache, "--ray-address", head.address, *ON_CPUS, *pools)
    groups, seconds = chosen.randint(1, 8), chosen.uniform(0, 2)
    wait_for(lambda: run.poll() is not None or len(seals(cache)) >= groups, run=run)
    time.sleep(seconds)
    running = run.poll() is None
    head.kill(chosen.choice("ab"))
    said = said_by(run, 160)
    print(f"seed {seed}: killed after {groups} groups and {seconds:.1f} s, running: {running}")
    assert run.returncode == 0, said
    assert "Traceback" not in said
    assert problems(cache) == []
    assert checksums(cache) == checksums(built)


def test_a_run_without_a_gpu_says_that_it_waits(made: Path, tmp_path: Path, labelgen, head: SimulatedCluster) -> None:
    cache = tmp_path / "cache.zarr"
    run = labelgen.start(made / "nuscenes", cache, "--ray-address", head.address)
    waits = "the cluster has no GPU; waiting for one (to work on its CPUs: --set ray.clip.num_gpus=0"
    assert any(waits in line for line in run.stderr)
    os.kill(run.pid, signal.SIGTERM)
    assert "run the same command again" in said_by(run, 60)
    assert not seals(cache), "no GPU, and no setting to go on without"


def test_a_run_works_with_the_gpu_that_comes_while_another_is_busy_from_the_start(
    made: Path, built: Path, tmp_path: Path, labelgen, head: SimulatedCluster
) -> None:
    """The GPU that comes, as from a cluster that scales, has room for one of two SAM actors."""
    head.add("busy", num_cpus=1, num_gpus=1)
    head.occupy(num_gpus=1)
    cache = tmp_path / "cache.zarr"
    more = ["--set", "ray.clip.actors=1", "--set", "ray.sam.actors=2"]
    run = labelgen.start(made / "nuscenes", cache, "--ray-address", head.address, *more)
    time.sleep(20)
    assert run.poll() is None
    assert not seals(cache), "the only GPU is another job's"
    head.add("free", num_cpus=1, num_gpus=1)
    said = said_by(run, 160)
    assert run.returncode == 0, said
    assert checksums(cache) == checksums(built)

"""Runs in environments that lack something: a name for the user, a HOME, labelgen on the cluster, its Ray version."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipelines.processes import left_in, said_by, users_of, wait_for
from tests.pipelines.simulated_cluster import SimulatedCluster

pytestmark = pytest.mark.ray

ONE_SHARD = ("--shards", "scene-0103-*")
NAMELESS = ("setpriv", "--reuid=54321", "--regid=54321", "--clear-groups")
READS_ALL = ("--inh-caps=+dac_override", "--ambient-caps=+dac_override")
"""Python and the package may be below a folder that only root may enter."""


def start_simulated(temp: Path, environment: dict[str, str]) -> Iterator[SimulatedCluster]:
    cluster = SimulatedCluster(temp / "ray", environment | {"RAY_AUTH_MODE": "disabled"}, num_cpus=1)
    yield cluster
    cluster.close()


@pytest.fixture
def head(temp: Path, labelgen, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedCluster]:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    yield from start_simulated(temp, labelgen.environment())


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can become another user")
def test_a_user_without_a_name_and_without_home_can_run(made: Path, temp: Path, labelgen) -> None:
    temp.chmod(0o777)
    environment = labelgen.environment()
    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
        environment.pop(name, None)
    data = shutil.copytree(made / "nuscenes", temp / "nuscenes")
    command = [*NAMELESS, *READS_ALL, *labelgen.run_arguments(data, temp / "cache.zarr", *ONE_SHARD)]
    done = subprocess.run(command, env=environment, text=True, capture_output=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr


def test_the_address_local_starts_a_local_cluster_that_leaves_nothing(
    made: Path, tmp_path: Path, temp: Path, labelgen
) -> None:
    run = labelgen.start(made / "nuscenes", tmp_path / "cache.zarr", "--ray-address=local", *ONE_SHARD)
    wait_for(lambda: run.poll() is not None or list(temp.glob("labels-ray-*/r/session_latest")))
    assert list(temp.glob("labels-ray-*")), "Ray's folder is not in the folder of a local cluster"
    said = said_by(run)
    assert run.returncode == 0, said
    assert left_in(temp) == []


OLD_RAY = """
import json, sys
from ray._raylet import GcsClient
gcs = GcsClient(address=sys.argv[1])
known = json.loads(gcs.internal_kv_get(b"CLUSTER_METADATA", b"cluster"))
known["ray_version"] = "2.44.1"
gcs.internal_kv_put(b"CLUSTER_METADATA", json.dumps(known).encode(), True, b"cluster")
"""


def test_a_cluster_of_another_ray_version_is_named_with_both_versions(
    made: Path, tmp_path: Path, labelgen, head: SimulatedCluster
) -> None:
    import ray

    subprocess.run([sys.executable, "-c", OLD_RAY, head.address], check=True, timeout=60)
    done = labelgen.run(made / "nuscenes", tmp_path / "cache.zarr", "--ray-address", head.address, *ONE_SHARD)
    assert done.returncode == 1
    (error,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert "has Ray 2.44.1 and Python" in error
    assert f"this process has Ray {ray.__version__} and Python" in error
    assert error.endswith("install the same versions here and on all nodes")


WITHOUT_LABELGEN = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("labelgen", "pipelines"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""
"""A sitecustomize under which labelgen is not installed."""


def test_a_cluster_without_labelgen_is_named_before_any_work(
    made: Path, tmp_path: Path, temp: Path, labelgen, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_LABELGEN)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    clusters = start_simulated(temp, labelgen.environment() | {"PYTHONPATH": str(tmp_path)})
    head = next(clusters)
    done = labelgen.run(made / "nuscenes", tmp_path / "cache.zarr", "--ray-address", head.address, *ONE_SHARD)
    assert next(clusters, None) is None
    assert done.returncode == 1
    (error,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert "labelgen is not installed on node " in error
    assert error.endswith("install the version of this process on all nodes")
    wait_for(lambda: not users_of(temp / "ray"))

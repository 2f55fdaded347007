"""A Ray cluster of several nodes on this machine, in processes of its own: nodes can be added, killed and occupied."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SCRIPT = """
import json, sys
import ray
from ray.cluster_utils import Cluster

folder, head = sys.argv[1], json.loads(sys.argv[2])
cluster = Cluster(initialize_head=True, head_node_args={**head, "include_dashboard": False, "temp_dir": folder})
nodes = {}
jobs = []

@ray.remote
class Job:
    pass

print(cluster.address, flush=True)
for line in sys.stdin:
    deed, name, given = json.loads(line)
    if deed == "add":
        nodes[name] = cluster.add_node(**given)
    elif deed == "occupy":
        ray.init(cluster.address, log_to_driver=False)
        jobs.append(Job.options(**given).remote())
        ray.get(jobs[-1].__ray_ready__.remote())
    else:
        cluster.remove_node(nodes.pop(name), allow_graceful=False)
    print("done", flush=True)
cluster.shutdown()
"""

QUICK = {"RAY_health_check_period_ms": "500"}
"""Ray asks each node every half second, and not every three; one that misses five answers counts as lost."""


class SimulatedCluster:
    """A head node, which the driver of a run joins, and other nodes by name."""

    def __init__(self, folder: Path, environment: dict[str, str], **head: Any) -> None:
        """Start the head node with the resources `head` (num_cpus, num_gpus); Ray's files are in `folder`."""
        self._process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(folder), json.dumps(head)],
            env={**environment, **QUICK, "RAY_USAGE_STATS_ENABLED": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.address = self._answer()

    def add(self, name: str, **resources: Any) -> None:
        self._tell("add", name, resources)

    def occupy(self, **resources: Any) -> None:
        """Have another job hold resources, until the cluster ends."""
        self._tell("occupy", "", resources)

    def kill(self, name: str) -> None:
        """Kill all processes of a node at once, as when its machine loses power."""
        self._tell("kill", name, {})

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.communicate(timeout=60)

    def _tell(self, *message: Any) -> None:
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
        assert self._answer() == "done"

    def _answer(self) -> str:
        answer = self._process.stdout.readline().strip()
        assert answer, "the simulated cluster has ended"
        return answer

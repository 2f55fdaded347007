"""The Ray cluster of a run: a running one by address, or a local one."""

import io
import logging
import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass

from pipelines.errors import PipelineError
from pipelines.local_cluster import local_cluster
from pipelines.stop import take_sigterm_for_ctrl_c

CONNECT_SECONDS = 10
PROBE_SECONDS = 60
"""How long nodes may take to say whether labelgen is installed there. A node that is too busy is not refused."""

LONGEST_LINE = 200
LOCAL = "local"
"""The address by which Ray itself names a new local cluster."""


@dataclass(frozen=True)
class Cluster:
    """The cluster that this process is connected to; `joined` if it was given by address, and so is not ours."""

    joined: bool

    def resources(self) -> dict[str, float]:
        """Return what the nodes that are alive have together, such as CPU and GPU, used or not."""
        import ray

        found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]  # so in Ray
        return found


def _given_address(address: str | None) -> str | None:
    """Return the address of the cluster to join (`address`, else RAY_ADDRESS); None for a local cluster."""
    address = address or os.environ.get("RAY_ADDRESS")
    return None if address in (None, "", LOCAL) else address


class _FirstLines(io.TextIOBase):
    """Passes the first line of each message on to standard error: some have pages of Ray's logs below it."""

    def write(self, text: str) -> int:
        sys.stderr.write(text.split("\n", 1)[0][:LONGEST_LINE] if text.strip() else text)
        return len(text)

    def flush(self) -> None:
        sys.stderr.flush()


@contextmanager
def cluster(address: str | None, *, num_cpus: int | None = None, log_to_driver: bool = False) -> Iterator[Cluster]:
    """Connect to the cluster at `address` (or RAY_ADDRESS), else start a local one.

    `num_cpus` is for a local one. With `log_to_driver`, what workers print appears on standard error.

    Raises:
        PipelineError: if no cluster answers there.
    """
    given = _given_address(address)
    # A call has two references. After a failure only one is awaited, and Ray would report the other as unhandled.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    # Ray would retry a task that its memory monitor kills for ever. `CpuTasks` decides how often.
    os.environ.setdefault("RAY_task_oom_retries", "0")
    joined = _remote(given, log_to_driver) if given else local_cluster(num_cpus, log_to_driver)
    # Ray prints messages about dead workers to standard output, where only the summary of the run belongs.
    with redirect_stdout(sys.stderr if log_to_driver else _FirstLines()), joined:
        take_sigterm_for_ctrl_c()  # again, since Ray has installed its own handler
        yield Cluster(joined=given is not None)


@contextmanager
def _remote(address: str, log_to_driver: bool) -> Iterator[None]:
    _refuse_silent_host(address)
    import ray

    try:
        ray.init(address=address, log_to_driver=log_to_driver, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        if "ersion mismatch" in str(error):
            raise _other_version(address, str(error)) from None
        raise _no_cluster(address, str(error).splitlines()[0]) from None
    try:
        _refuse_nodes_without_labelgen(address)
        yield
    finally:
        ray.shutdown()


def _refuse_silent_host(address: str) -> None:
    """Try to connect to a host:port address first, since Ray itself would retry for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or "://" in address or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise _no_cluster(address, error.strerror or str(error)) from None


def _other_version(address: str, ray_says: str) -> PipelineError:
    """Return the error for a cluster of another Ray or Python; Ray's message has the four versions, two of each."""
    theirs, ours = (re.findall(rf"{name}: (\S+)", ray_says) for name in ("Ray", "Python"))
    there, here = (f"Ray {ray} and Python {python}" for ray, python in zip(theirs, ours, strict=True))
    return PipelineError(
        f"the Ray cluster at {address!r} has {there}, this process has {here}; "
        "install the same versions here and on all nodes"
    )


def _refuse_nodes_without_labelgen(address: str) -> None:
    """Ask each node whether it can import this package.

    Raises:
        PipelineError: naming a node that cannot.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    def find_package() -> bool:  # a local function, so that Ray sends its code and not the name of this module
        import importlib.util

        try:
            return (
                importlib.util.find_spec("pipelines") is not None and importlib.util.find_spec("labelgen") is not None
            )
        except ImportError:
            return False

    answers = {}
    for node in ray.nodes():  # type: ignore[no-untyped-call]  # so in Ray
        if node["Alive"]:
            place = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked = ray.remote(find_package).options(num_cpus=0, scheduling_strategy=place, max_retries=1)
            answers[asked.remote()] = node["NodeManagerAddress"]
    answered, _ = ray.wait(list(answers), num_returns=len(answers), timeout=PROBE_SECONDS)
    for answer in answered:
        try:
            found = ray.get(answer)
        except ray.exceptions.RayError:  # the node has just been lost
            continue
        if not found:
            raise PipelineError(
                f"labelgen is not installed on node {answers[answer]} of the Ray cluster at {address!r}; "
                "install the version of this process on all nodes"
            )


def _no_cluster(address: str, reason: str) -> PipelineError:
    return PipelineError(
        f"no Ray cluster answers at {address!r} ({reason}); start one with `ray start --head`, "
        "or leave out --ray-address and RAY_ADDRESS for a local one"
    )

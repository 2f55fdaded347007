"""The simulation of a run on a cluster: times that can be counted by hand."""

import pytest

from benchmarks.cluster.simulate import Costs, Size, simulate


def _costs(loop_call: float = 0.0, call_s: float = 0.0, task_s: float = 0.0, worker_start_s: float = 0.0) -> Costs:
    return Costs(((4.0, 4.0), (1.0,)), ((2.0,),), loop_call, 0.0, call_s, task_s, worker_start_s)


@pytest.mark.parametrize(
    ("size", "costs", "seconds"),
    [
        (Size(1, 1, 1, 2, 3.0), _costs(), 4 + 4 + 1 + 2 * 3 + 2),  # one core does both parts, one after the other
        (Size(1, 2, 1, 2, 3.0), _costs(), 4 + 1 + 2 * 3 + 2),
        (Size(2, 2, 1, 2, 3.0), _costs(), 4 + 1 + 3 + 2),
        (Size(1, 8, 3, 2, 3.0), _costs(), 4 + 1 + 3 * 2 * 3 + 2),  # the actor never waits between shards
        (Size(1, 8, 3, 2, 3.0, in_flight=1), _costs(), 3 * (4 + 1 + 2 * 3 + 2)),
        (Size(1, 1, 1, 2, 3.0), _costs(worker_start_s=10.0), 10 + 4 + 4 + 1 + 2 * 3 + 2),  # once, not for each task
        (Size(1, 2, 1, 2, 3.0), _costs(task_s=0.5), 4.5 + 1.5 + 2 * 3 + 2.5),
        (Size(1, 2, 1, 4, 3.0), _costs(call_s=0.5), 4 + 1 + 4 * 3 + 0.5 + 2),  # an actor has the next call meanwhile
        (Size(4, 2, 1, 4, 3.0), _costs(loop_call=1.0), 2 + 4 + 1 + 1 + 4 + 3 + 1 + 2),  # the loop makes calls in turn
    ],
)
def test_seconds_of_a_run(size: Size, costs: Costs, seconds: float) -> None:
    assert simulate(costs, size) == pytest.approx(seconds)

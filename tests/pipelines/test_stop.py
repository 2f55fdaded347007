"""Runs that are told to stop, by Ctrl-C or by a scheduler: a clean end that says how to go on."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from cache_schemas.lock import run_lock
from tests.pipelines.processes import Seals, left_in, said_by, seals, users_of, wait_for

pytestmark = [pytest.mark.kill, pytest.mark.ray]

ONE_SHARD = "scene-0103-*"


def tell_all(driver: int, number: int) -> None:
    """Send a signal to all processes of a run, to the driver last, as may happen when it goes to all at once."""
    for process in (int(entry.name) for entry in Path("/proc").glob("[0-9]*")):
        with suppress(ProcessLookupError):
            if process != driver and os.getpgid(process) == driver:
                os.kill(process, number)
    time.sleep(0.3)
    os.kill(driver, number)


TERMINAL_CTRL_C = (os.killpg, signal.SIGINT)
KILL = (os.kill, signal.SIGTERM)
SCHEDULER = (tell_all, signal.SIGTERM)


def stop(run, how: tuple[Callable[[int, int], None], int]) -> None:
    """Tell a run to stop, and check that it does so as promised."""
    tell, what = how
    tell(run.pid, what)
    said = said_by(run, 120)
    # Python ends by SIGINT itself if that met an `exec` of imported code; shells see 130 for both.
    assert run.returncode in (130, -signal.SIGINT), said
    assert "run the same command again to resume" in said.splitlines()[-1]
    assert "Traceback" not in said


def test_stopped_runs_leave_nothing_behind_and_go_on(
    made: Path, built: Path, tmp_path: Path, temp: Path, labelgen
) -> None:
    cache, sealed = tmp_path / "cache.zarr", Seals()
    for how, ctrl_c in ((TERMINAL_CTRL_C, signal.SIG_DFL), (KILL, signal.SIG_IGN), (SCHEDULER, signal.SIG_DFL)):
        run = labelgen.start(made / "nuscenes", cache, "--shards", ONE_SHARD, ctrl_c=ctrl_c)
        wait_for(lambda: len(seals(cache)) > 0 and any("TeacherActor" in title for title in users_of(temp).values()))
        stop(run, how)
        wait_for(lambda: not users_of(temp), 10)
        assert left_in(temp) == []
        with run_lock(str(cache)):
            now = seals(cache)
        assert sealed.items() <= now.items(), "nothing sealed was redone"
        sealed = now
    assert sealed
    done = labelgen.run(made / "nuscenes", cache, "--shards", ONE_SHARD)
    assert done.returncode == 0, done.stderr
    assert sealed.items() <= seals(cache).items()
    assert seals(cache).keys() == seals(built, ONE_SHARD).keys()


def test_a_run_stops_as_clean_while_it_loads_its_code(made: Path, tmp_path: Path, temp: Path, labelgen) -> None:
    run = labelgen.start(made / "nuscenes", tmp_path / "cache.zarr")
    wait_for(lambda: "pydantic_core" in Path(f"/proc/{run.pid}/maps").read_text())
    stop(run, KILL)
    assert left_in(temp) == []


@pytest.mark.parametrize("how", [TERMINAL_CTRL_C, KILL, SCHEDULER])
def test_a_run_stops_as_clean_while_ray_starts(made: Path, tmp_path: Path, temp: Path, labelgen, how) -> None:
    run = labelgen.start(made / "nuscenes", tmp_path / "cache.zarr")
    wait_for(lambda: any("gcs_server" in named for named in users_of(temp).values()))
    stop(run, how)
    wait_for(lambda: not users_of(temp), 10)
    assert left_in(temp) == []

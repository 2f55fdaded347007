"""What a run meets besides kills: full and read-only disks, a broken teacher, small memory, wild clocks, a rival.

Each ends in one clear error or a finished run, and the same command goes on with nothing lost.
"""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipelines.processes import said_by, seals, wait_for

pytestmark = pytest.mark.ray

REPOSITORY = Path(__file__).parents[2]
NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")


ONE_SHARD = "scene-0103-*"


def errors_of(said: str) -> list[str]:
    assert "Traceback" not in said
    return [line for line in said.splitlines() if line.startswith("error: ")]


@pytest.fixture
def may_mount(tmp_path: Path) -> None:
    """Skip where a process may not mount file systems of its own."""
    where = tmp_path / "mount"
    where.mkdir()
    tried = subprocess.run([*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", where], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip(f"no file system can be mounted here: {tried.stderr.decode().strip()}")


def run_in_namespace(script: str, labelgen, command: list[str], **places: Path) -> None:
    """Run a shell script that may mount; its arguments are the command, and it knows `places` by their names."""
    environment = labelgen.environment() | {name: str(path) for name, path in places.items()}
    arguments = [*NAMESPACE, "sh", "-uc", script, "sh", *command]
    subprocess.run(arguments, cwd=REPOSITORY, env=environment, check=True, timeout=300)


FULL_DISK = """
mount -t tmpfs -o size="$room" tmpfs "$disk" || exit
"$@" 2> "$out/errors"
echo $? > "$out/code"
cp -a "$disk" "$out/first"
mount -o remount,size=100m "$disk" || exit
"$@" 2> "$out/errors-again"
echo $? > "$out/code-again"
cp -a "$disk" "$out/second"
"""
"""Run twice on a disk that has room for part of the cache, the second time after it has grown."""


@pytest.mark.usefixtures("may_mount")
def test_a_disk_that_fills_up_is_one_error_and_what_was_sealed_stays(
    made: Path, built: Path, tmp_path: Path, labelgen
) -> None:
    places = {name: tmp_path / name for name in ("disk", "out")}
    for place in places.values():
        place.mkdir()
    room = sum(file.stat().st_size for file in built.rglob("*")) * 6 // 10
    command = labelgen.run_arguments(made / "nuscenes", places["disk"] / "cache.zarr")
    run_in_namespace(FULL_DISK, labelgen, command, room=room, **places)

    out = places["out"]
    assert (out / "code").read_text() == "1\n"
    (error,) = errors_of((out / "errors").read_text())
    assert "the disk is full: free some space, then run the same command; sealed groups are kept" in error
    assert (out / "code-again").read_text() == "0\n"
    kept, whole = (written(out / name / "cache.zarr") for name in ("first", "second"))
    assert 0 < len(kept) < len(whole)
    assert kept.items() <= whole.items()
    assert whole.keys() == written(built).keys()
    assert labelgen("verify", str(out / "second/cache.zarr")).returncode == 0


def written(cache: Path) -> dict[str, list[tuple[int, int]]]:
    """Return when the files of each sealed group were written and their sizes, which a copy keeps."""
    return {group: sorted((time, size) for _, time, size in files.values()) for group, files in seals(cache).items()}


READ_ONLY = """
mount --bind "$cache" "$cache" && mount -o remount,bind,ro "$cache" || exit
"$@" 2> "$out"
echo $? >> "$out"
"""


@pytest.mark.usefixtures("may_mount")
def test_a_read_only_cache_is_one_error(made: Path, cache: Path, tmp_path: Path, labelgen) -> None:
    shutil.rmtree(cache / "shards/scene-0103-000/labels")
    before = seals(cache)
    command = labelgen.run_arguments(made / "nuscenes", cache)
    run_in_namespace(READ_ONLY, labelgen, command, cache=cache, out=tmp_path / "out")
    said = (tmp_path / "out").read_text()
    (error,) = errors_of(said)
    assert f"{cache}/.run.lock: cannot write here (Read-only file system); choose another cache folder" in error
    assert said.splitlines()[-1] == "1"
    assert seals(cache) == before
    assert labelgen.run(made / "nuscenes", cache).returncode == 0


BROKEN_TEACHER = """
import sys
import numpy

really_stack = numpy.stack

def stack(*arrays, **more):
    if "segment_anything" in sys.modules:
        raise RuntimeError("CUDA error: an illegal memory access")
    return really_stack(*arrays, **more)

numpy.stack = stack
"""
"""A sitecustomize under which SAM loads, and fails on whatever it is asked."""


def test_a_teacher_that_only_fails_stops_the_run_and_condemns_no_sample(
    made: Path, built: Path, tmp_path: Path, labelgen, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(BROKEN_TEACHER)
    cache = tmp_path / "cache.zarr"
    with monkeypatch.context() as patched:
        patched.setenv("PYTHONPATH", str(tmp_path))
        done = labelgen.run(made / "nuscenes", cache)
    assert done.returncode == 1
    (error,) = errors_of(done.stderr)
    assert "sam failed on each of its first 5 calls" in error
    assert "CUDA error: an illegal memory access; fix the cause, then run the same command again" in error
    sealed = seals(cache)
    assert sealed

    done = labelgen.run(made / "nuscenes", cache, "--shards", ONE_SHARD)
    assert done.returncode == 0, done.stderr
    assert sealed.items() <= seals(cache).items()
    assert seals(cache, ONE_SHARD).keys() == seals(built, ONE_SHARD).keys()


def test_more_pictures_than_the_object_store_holds_are_no_problem(
    made: Path, tmp_path: Path, labelgen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's smallest store, of 75 MiB, and calls whose decoded pictures take 130 MB each."""
    spec = importlib.util.spec_from_file_location("make_big", REPOSITORY / "tests/labelgen/make_nuscenes.py")
    maker = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "make_big", maker)
    spec.loader.exec_module(maker)
    maker.WIDTH_PX, maker.HEIGHT_PX = 2000, 1200
    data = maker.make_nuscenes(tmp_path / "nuscenes", {"scene-0061": 3}, lidarseg=False)
    monkeypatch.setenv("RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES", str(75 * 1024 * 1024))
    calls = ["--set", "shard_samples=3", "--set", "ray.sam.samples_per_call=3"]
    done = labelgen.run(data, tmp_path / "cache.zarr", *calls, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["samples_labelled"] == 3
    assert labelgen("verify", str(tmp_path / "cache.zarr")).returncode == 0


WILD_CLOCK = """
import sys, time

really, jumps = time.time, 0

def wild():
    global jumps
    ray = sys.modules.get("ray")
    if not (ray and hasattr(ray, "is_initialized") and ray.is_initialized()):
        return really()
    jumps += 1
    return really() + (-1) ** jumps * 86400

time.time = wild
"""
"""A sitecustomize whose clock jumps by days, to and fro, once the cluster stands."""


def test_a_clock_that_jumps_lets_no_second_run_in_and_harms_nothing(
    made: Path, built: Path, tmp_path: Path, labelgen, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(WILD_CLOCK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    cache = tmp_path / "cache.zarr"
    running = labelgen.start(made / "nuscenes", cache, "--shards", ONE_SHARD)
    wait_for(lambda: len(seals(cache)) > 0)
    os.kill(running.pid, signal.SIGSTOP)  # so that it cannot end before the second one starts
    second = labelgen.run(made / "nuscenes", cache, "--shards", ONE_SHARD)
    os.kill(running.pid, signal.SIGCONT)
    assert second.returncode == 1
    assert "is already writing this cache" in errors_of(second.stderr)[0]
    said = said_by(running)
    assert running.returncode == 0, said
    assert seals(cache).keys() == seals(built, ONE_SHARD).keys()


def test_a_folder_of_ray_that_vanishes_is_named_and_a_sweep_leaves_that_of_a_live_run(
    made: Path, tmp_path: Path, temp: Path, labelgen
) -> None:
    cache = tmp_path / "cache.zarr"
    run = labelgen.start(made / "nuscenes", cache)
    wait_for(lambda: len(seals(cache)) > 1, run=run)
    (folder,) = temp.glob("labels-ray-*")
    sweep = [sys.executable, "-c", "from pipelines.local_cluster import sweep_dead_clusters as sweep; sweep()"]
    subprocess.run(sweep, cwd=REPOSITORY, check=True)
    assert list((folder / "r").iterdir())

    shutil.rmtree(folder / "r", ignore_errors=True)
    (error,) = errors_of(said_by(run))
    assert run.returncode == 1
    assert error.startswith(f"error: {folder}/r/")
    assert "has vanished during the run; find out what removes files there, then run the same command" in error
    assert str(cache) not in error


def test_actors_that_leave_no_core_to_tasks_are_refused(made: Path, tmp_path: Path, labelgen) -> None:
    cores = os.cpu_count()
    done = labelgen.run(made / "nuscenes", tmp_path / "cache.zarr", "--set", f"ray.sam.num_cpus={cores}")
    (error,) = errors_of(done.stderr)
    assert done.returncode == 1
    assert f"need one; there are {cores}: lower ray.sam.num_cpus" in error


def test_of_two_runs_started_at_once_one_goes_on(made: Path, built: Path, tmp_path: Path, labelgen) -> None:
    cache = tmp_path / "cache.zarr"
    (tmp_path / "link.zarr").symlink_to(cache)
    places = (cache, tmp_path / "link.zarr")
    runs = [labelgen.start(made / "nuscenes", place, "--shards", ONE_SHARD) for place in places]
    said = [said_by(run) for run in runs]
    assert sorted(run.returncode for run in runs) == [0, 1], said
    (error,) = errors_of(said[[run.returncode for run in runs].index(1)])
    assert "is already writing this cache; wait for it to end" in error
    assert seals(cache).keys() == seals(built, ONE_SHARD).keys()

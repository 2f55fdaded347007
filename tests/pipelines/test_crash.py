"""Runs whose drivers, actors and workers are killed at random moments, over and over: nothing is lost, redone or left.

A few kills here; `make crashtest` makes a hundred.
"""

import os
import random
import signal
import time
from collections import Counter
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pytest

from cache_schemas.group_path import LOCKS, SUMMARY, GroupPath
from cache_schemas.lock import run_lock
from cache_schemas.store import Cache
from cache_schemas.validate import validate
from tests.pipelines.processes import Seals, left_in, said_by, seals, users_of, wait_for, workers

pytestmark = [pytest.mark.kill, pytest.mark.ray]

KILLS = int(os.environ.get("CRASH_KILLS", "4"))
SEED = int(os.environ.get("CRASH_SEED", "0"))
KINDS = ("driver", "actor", "worker", "actor", "worker")
LATEST_SECONDS = {"driver": 14.0, "actor": 4.0, "worker": 3.0}
PROGRESS = (0, 0, 0, 1, 2)
"""A kill comes at a random moment up to so many seconds after there is somebody to kill, and after so many more groups
have been sealed: on a slow machine, time alone would never let a cache come to its end."""


class Attack:
    """Runs that are killed, on one cache after another."""

    def __init__(self, labelgen, data: Path, reference: Path, folder: Path, temp: Path) -> None:
        self.labelgen, self.data, self.reference, self.folder, self.temp = labelgen, data, reference, folder, temp
        self.random = random.Random(SEED)
        self.kills: Counter[str] = Counter()
        self.runs = self.finished = self.in_a_row = 0
        self.errors: list[str] = []
        self.sealed: Seals = {}
        self.start()

    @property
    def cache(self) -> Path:
        return self.folder / f"{self.finished}.zarr"

    def start(self) -> None:
        """Start a run, as after any crash: the same command again."""
        self.runs += 1
        self.run = self.labelgen.start(self.data, self.cache, "--set", "ray.retries=3")

    def kill(self, kind: str) -> None:
        """Kill a driver, actor or worker at a random moment, and see that nothing sealed has changed."""
        target = self.wait_for_target(kind, self.random.uniform(0, LATEST_SECONDS[kind]), self.random.choice(PROGRESS))
        try:
            os.kill(target, signal.SIGKILL)
        except ProcessLookupError:
            return self.kill(kind)
        self.kills[kind] += 1
        print(f"kill {self.kills.total()}: {kind}, {self.finished} caches finished", flush=True)
        self.look()
        if kind == "driver":
            said_by(self.run, 60)
            wait_for(lambda: not users_of(self.temp))
            self.look()
            self.start()
        return None

    def wait_for_target(self, kind: str, seconds: float, groups: int) -> int:
        """Wait so long from when there is such a process, and until so many more groups are sealed."""
        due, goal = time.monotonic() + seconds, len(self.sealed) + groups
        while True:
            if self.run.poll() is not None:
                self.end()
                self.start()
                goal = len(self.sealed) + groups
            targets = [self.run.pid] if kind == "driver" else workers(self.temp, actors=kind == "actor")
            if not targets:
                due = time.monotonic() + seconds
            elif time.monotonic() >= due and len(seals(self.cache)) >= goal:
                return self.random.choice(targets)
            time.sleep(0.05)

    def look(self) -> None:
        """Check that every group seen sealed is still the same files."""
        now = seals(self.cache)
        redone = [group for group, files in self.sealed.items() if now.get(group) != files]
        assert not redone, f"seed {SEED}, after {dict(self.kills)}: {redone}"
        self.sealed = now

    def end(self) -> None:
        """Check what a run that ended by itself has to say and leaves."""
        said = said_by(self.run, 60)
        self.look()
        assert not users_of(self.temp)
        assert left_in(self.temp) == []
        assert "Traceback" not in said
        if self.run.returncode == 0:
            self.compare()
            self.finished += 1
            self.in_a_row = 0
            self.sealed = {}
        else:
            assert self.run.returncode == 1, f"seed {SEED}: {said}"
            self.errors += [line for line in said.splitlines() if line.startswith("error: ")]
            self.in_a_row += 1
            assert self.in_a_row < 4, f"seed {SEED}, the same command does not go on: {self.errors}"

    def compare(self) -> None:
        """Check that the finished cache is sound, free, and equal to one of an undisturbed run in every array."""
        (cache, manifest), (reference, _) = Cache.open(str(self.cache)), Cache.open(str(self.reference))
        assert [f"{problem.path}: {problem.message}" for problem in validate(cache, manifest)] == []
        assert files_of(self.cache) == files_of(self.reference)
        for key in reference.shard_keys():
            assert cache.shard_records([key]) == reference.shard_records([key])
            for group in reference.shard_seals(key):
                here, there = (store.read(GroupPath(key, group)) for store in (cache, reference))
                for name, values in there.items():
                    np.testing.assert_array_equal(here[name], values, err_msg=f"{key}/{group}/{name}, seed {SEED}")
        with run_lock(str(self.cache)):
            pass

    def finish(self) -> None:
        """Let the last cache come to its end."""
        last = self.finished
        while True:
            wait_for(lambda: self.run.poll() is not None, 600)
            self.end()
            if self.finished > last:
                return
            self.start()


def files_of(cache: Path) -> list[str]:
    """Return the files of a cache without its locks and its summary; the reference was made without any."""
    found = (str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file())
    return sorted(path for path in found if path not in (*LOCKS, SUMMARY))


def test_killed_runs_go_on_to_the_cache_of_an_undisturbed_one(
    made: Path, built: Path, tmp_path: Path, temp: Path, labelgen
) -> None:
    start = time.monotonic()
    attack = Attack(labelgen, made / "nuscenes", built, tmp_path, temp)
    kinds = list(islice(cycle(KINDS), KILLS))
    attack.random.shuffle(kinds)
    for kind in kinds:
        attack.kill(kind)
    attack.finish()
    kills = ", ".join(f"{count} of {kind}s" for kind, count in sorted(attack.kills.items()))
    print(f"\n{KILLS} kills (seed {SEED}): {kills}; {time.monotonic() - start:.0f} s")
    print(f"{attack.runs} runs, {attack.finished} caches finished and equal, {len(attack.errors)} runs gave up")
    for error, count in Counter(attack.errors).items():
        print(f"  {count}x {error}")


def test_the_next_run_removes_what_a_kill_left_even_if_nothing_is_to_be_done(
    made: Path, cache: Path, temp: Path, labelgen
) -> None:
    (temp / "labels-ray-a1b2c3d4" / "r" / "session").mkdir(parents=True)
    (temp / "labels-ray-a1b2c3d4" / "made-by-labelgen-run").touch()
    for folder in (cache, cache / "shards", cache / "shards/scene-0061-000"):
        (folder / "zarr.0123abcd.partial").write_text('{"attri')
    before = seals(cache)
    done = labelgen.run(made / "nuscenes", cache)
    assert done.returncode == 0, done.stderr
    assert [problem.path for problem in validate(*Cache.open(str(cache)))] == []
    assert left_in(temp) == []
    assert seals(cache) == before

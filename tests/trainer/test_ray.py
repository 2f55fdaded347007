"""Training under Ray Train: the same steps, on workers of a cluster."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.ray
def test_ray_workers_make_all_steps_and_a_failure_is_one_sentence(toy: str, tmp_path: Path) -> None:
    small = ["networks.voxel_m=1.0", "stream.images=1", "stream.hold_out=3", "optimiser.epochs=1"]
    settings = [word for setting in small for word in ("--set", setting)]
    command = [sys.executable, "-m", "trainer.cli", "fit", toy, "--out", str(tmp_path / "run"), "--ray", "2", *settings]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "run/history.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(4)), "eight samples, one a step and rank"
    assert (tmp_path / "run/last.pt").exists()
    again = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300)
    assert again.returncode == 1
    (line,) = [line for line in again.stderr.splitlines() if line.startswith("error: ")]
    assert "holds a run; give --resume to continue it" in line


def test_a_stale_ray_address_is_answered_at_once(toy: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trainer.cli", "fit", toy, "--out", str(tmp_path / "run"), "--ray", "2"]
    environment = {**os.environ, "RAY_ADDRESS": "127.0.0.1:9"}  # the port of the discard service, which nobody runs
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "no Ray cluster answers at '127.0.0.1:9' (Connection refused)" in done.stderr

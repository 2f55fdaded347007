"""What other users of the machine can reach of a run: nothing. The run here belongs to root, the intruder to nobody."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipelines.processes import said_by, title, users_of, wait_for

pytestmark = pytest.mark.ray

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
GUESS = "0" * 64
INTRUDER = """
import sys
from ray._raylet import GcsClient
print("reached", GcsClient(address=sys.argv[1]).internal_kv_keys(b"", None, 5))
"""
"""Reads the cluster's key-value store, in which Ray keeps the pickled functions that workers run."""


@pytest.fixture
def may_change_user() -> None:
    if os.geteuid() or not shutil.which(NOBODY[0]):
        pytest.skip("only root can start a process of another user")


def gcs_address(temp: Path) -> str:
    """Return the address of the run's GCS as any user finds it: in the list of processes."""
    words = " ".join(title(process) for process in users_of(temp)).split()
    return next(word.partition("=")[2] for word in words if word.startswith("--gcs-address="))


@pytest.mark.usefixtures("may_change_user")
@pytest.mark.parametrize(
    "mode", [{"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}]
)
def test_another_user_is_refused_by_the_cluster_of_a_run(
    made: Path, tmp_path: Path, temp: Path, labelgen, mode: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in mode.items():
        monkeypatch.setenv(
            name, value
        )  # also for the run, whose own cluster is closed whatever the user's settings are
    temp.chmod(0o777)
    run = labelgen.start(made / "nuscenes", tmp_path / "cache.zarr", "--shards", "scene-0103-*")
    wait_for(lambda: any(named.startswith("ray::TeacherActor") for named in users_of(temp).values()))

    intruder = [*NOBODY, sys.executable, "-c", INTRUDER, gcs_address(temp)]
    tried = subprocess.run(intruder, cwd="/", text=True, capture_output=True, timeout=60, check=False)
    assert "reached" not in tried.stdout, "another user reads the store of the run's cluster"
    assert "InvalidAuthToken" in tried.stderr
    (folder,) = temp.glob("labels-ray-*")
    look = subprocess.run([*NOBODY, "ls", folder], capture_output=True, text=True, check=False)
    assert look.returncode
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    token = folder / "token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert not [named for named in users_of(temp).values() if token.read_text() in named]

    said = said_by(run)
    assert run.returncode == 0, said
    assert list((labelgen.made / "home").iterdir()) == [], "Ray has left no token in HOME"


def test_the_sweep_removes_only_folders_that_a_run_has_made(
    made: Path, cache: Path, temp: Path, tmp_path: Path, labelgen
) -> None:
    """Folders with a name like ours, and links to folders of ours, are somebody else's."""
    mine = temp / "labels-ray-notes" / "thesis.tex"
    lookalike = temp / "labels-ray-a1b2c3d4" / "thesis.tex"
    elsewhere = tmp_path / "elsewhere" / "thesis.tex"
    for file in (mine, lookalike, elsewhere):
        file.parent.mkdir()
        file.write_text("a year of work")
    (elsewhere.parent / "made-by-labelgen-run").touch()
    (mine.parent / "made-by-labelgen-run").touch()
    (temp / "labels-ray-linked12").symlink_to(elsewhere.parent)
    assert labelgen.run(made / "nuscenes", cache).returncode == 0
    assert [file.read_text() for file in (mine, lookalike, elsewhere)] == ["a year of work"] * 3

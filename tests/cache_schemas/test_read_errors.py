"""A file that cannot be read is not damage: commands stop with one error, and `--repair` removes nothing."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from cache_schemas import local_files
from cache_schemas.group_path import GroupPath
from cache_schemas.location import StoreError
from cache_schemas.store import Cache
from labelgen.cli import main
from trainer.data.stream import CacheStream

SHARD = "shards/toy-000"
CHUNK, SEAL, METADATA = f"{SHARD}/sam/features/c/0/0/0/0", f"{SHARD}/sam/zarr.json", f"{SHARD}/sam/features/zarr.json"

STREAM = "import sys; from trainer.data.stream import CacheStream as S; s = S(sys.argv[1], ['sam/features'])"
READ_ALL = f"{STREAM}; [s.read(ref) for ref in s.samples]"


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def without_privileges(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user for whom permissions count, also where the tests run as root."""
    if not shutil.which("setpriv"):
        pytest.skip("needs setpriv")
    dropped = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.getuid() == 0 else []
    return subprocess.run([*dropped, sys.executable, *command], text=True, capture_output=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("path", [CHUNK, SEAL, METADATA, f"{SHARD}/sam", f"{SHARD}/sam/features/c/0", "shards"])
def test_a_file_or_folder_without_permission_is_not_damage(sound_folder: Path, path: str) -> None:
    before = files_of(sound_folder)
    mode = (sound_folder / path).stat().st_mode
    (sound_folder / path).chmod(0)
    repaired = without_privileges("-m", "labelgen.cli", "verify", str(sound_folder), "--repair")
    trained = without_privileges("-c", READ_ALL, str(sound_folder))
    (sound_folder / path).chmod(mode)
    assert repaired.returncode == 1
    (line,) = repaired.stderr.splitlines()
    assert line.startswith(f"error: {sound_folder}/{path}") and "cannot be read (Permission denied)" in line
    assert "Traceback" not in repaired.stdout and "removed" not in repaired.stdout
    if path == METADATA:  # the trainer takes it from the contract
        assert trained.returncode == 0, trained.stderr
    else:
        assert "StoreError" in trained.stderr and "DamagedGroupError" not in trained.stderr
    assert {file: text for file, text in files_of(sound_folder).items() if ".lock" not in file} == before


def fail_calls(monkeypatch: pytest.MonkeyPatch, name: str, code: int, place: str) -> None:
    """Let the calls of `os.<name>` that concern a path which ends in `place` fail with an error number."""
    real = getattr(os, name)

    def failing(*args: object, **options: object) -> object:
        path = str(args[0]) if name != "preadv" else str(Path(f"/proc/self/fd/{args[0]}").readlink())
        if path.endswith(place):
            raise OSError(code, os.strerror(code), path)
        return real(*args, **options)

    monkeypatch.setattr(local_files.os, name, failing)


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT])
@pytest.mark.parametrize(
    ("call", "place"), [("preadv", CHUNK), ("preadv", SEAL), ("preadv", METADATA), ("open", CHUNK), ("scandir", "sam")]
)
def test_an_error_of_the_disk_is_not_damage(
    sound_folder: Path, monkeypatch: pytest.MonkeyPatch, call: str, place: str, code: int
) -> None:
    before = files_of(sound_folder)
    fail_calls(monkeypatch, call, code, place)
    done = CliRunner().invoke(main, ["verify", str(sound_folder), "--repair"])
    assert done.exit_code == 1
    assert f"cannot be read ({os.strerror(code)}), which says nothing about its content" in done.stderr
    monkeypatch.undo()
    assert {file: text for file, text in files_of(sound_folder).items() if ".lock" not in file} == before


@pytest.mark.parametrize("place", [CHUNK, SEAL, METADATA])
def test_every_reader_tells_an_error_of_the_disk_from_damage(
    sound_folder: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    fail_calls(monkeypatch, "preadv", errno.EIO, place)
    cache, sam = Cache(str(sound_folder)), GroupPath("toy-000", "sam")
    reads: list[Callable[[], object]] = [lambda: cache.read(sam, "features"), lambda: cache.rows(sam, "features")[:1]]
    for read in reads:
        with pytest.raises(StoreError, match="cannot be read"):
            read()
    if place == METADATA:  # the trainer takes it from the contract
        return
    with pytest.raises(StoreError, match="cannot be read"):
        stream = CacheStream(str(sound_folder), ["sam/features"])
        stream.read(stream.samples[0])


@pytest.mark.parametrize("reading", ["zarr.json", "shards/toy-000/zarr.json", METADATA, CHUNK])
def test_a_disk_that_goes_away_and_comes_back_costs_nothing(
    sound_folder: Path, monkeypatch: pytest.MonkeyPatch, reading: str
) -> None:
    before, away, real = files_of(sound_folder), sound_folder.parent / "away", os.open
    listed = False

    def opening(path: str, *rest: object, **options: object) -> int:
        if listed and str(path).endswith(reading) and not away.exists():
            (sound_folder / "shards").rename(away)
        return real(path, *rest, **options)  # type: ignore[arg-type]

    def listing(base: str) -> dict[str, int | None]:
        nonlocal listed
        listed = True
        return sizes(base)

    sizes = local_files.local_file_sizes
    monkeypatch.setattr(local_files, "local_file_sizes", listing)
    monkeypatch.setattr(local_files.os, "open", opening)
    done = CliRunner().invoke(main, ["verify", str(sound_folder), "--repair"])
    assert done.exit_code == 1
    assert "disappeared while the cache was read" in done.stderr
    monkeypatch.undo()
    away.rename(sound_folder / "shards")
    assert {file: text for file, text in files_of(sound_folder).items() if ".lock" not in file} == before

"""`labelgen run` on a cache with links, unreadable files, or files that a loss of power left empty."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from cache_schemas.store import Cache
from tests.pipelines.caches import checksums, problems

SEAL = "shards/scene-0061-000/sam/zarr.json"
CHUNK = "shards/scene-0061-000/labels/image/c/0/0/0"


def state_of(folder: Path) -> dict[str, tuple[int, int, int]]:
    states = {str(path): path.stat() for path in folder.rglob("*")}
    return {path: (state.st_ino, state.st_mtime_ns, state.st_size) for path, state in states.items()}


@pytest.mark.ray
def test_a_run_makes_groups_again_whose_files_are_empty(made: Path, cache: Path, labelgen: Any) -> None:
    before = checksums(cache)
    os.truncate(cache / CHUNK, 0)
    done = labelgen.run(made / "nuscenes", cache, "--json")
    assert done.returncode == 0, done.stderr
    assert '"labels": 1' in done.stdout
    assert checksums(cache) == before
    assert problems(cache) == []


@pytest.mark.parametrize("place", ["shards", "shards/scene-0061-000", "shards/scene-0061-000/sam", "notes"])
def test_a_run_refuses_a_link_in_its_cache(
    made: Path, cache: Path, labelgen_here: Any, tmp_path: Path, place: str
) -> None:
    outside = tmp_path / "outside"
    if place == "notes":
        outside.mkdir()
    else:
        shutil.move(cache / place, outside)
    (outside / "zarr.0123.partial").write_text("mine")
    (cache / place).symlink_to(outside)
    before = state_of(outside)
    done = labelgen_here.run(made / "nuscenes", cache)
    assert done.returncode == 1
    assert f"error: {cache / place}: a link inside a cache" in done.stderr
    assert state_of(outside) == before


def test_a_run_stops_at_a_seal_that_cannot_be_read(
    made: Path, cache: Path, labelgen_here: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, real = Cache(str(cache)).file_sizes(), os.preadv

    def failing(descriptor: int, *rest: Any) -> int:
        if str(Path(f"/proc/self/fd/{descriptor}").readlink()).endswith(SEAL):
            raise OSError(5, "Input/output error")
        return real(descriptor, *rest)

    monkeypatch.setattr(os, "preadv", failing)
    done = labelgen_here.run(made / "nuscenes", cache)
    assert done.returncode == 1
    assert f"error: {cache / SEAL}: cannot be read (Input/output error)" in done.stderr
    monkeypatch.undo()
    assert {file: size for file, size in Cache(str(cache)).file_sizes().items() if ".lock" not in file} == {
        file: size for file, size in sizes.items() if ".lock" not in file
    }

"""Files and special files that are not part of the contract."""

import os
from pathlib import Path

from cache_schemas.problems import ProblemKind as K
from tests.cache_schemas.damages.registry import SHARD, makes


def stray(path: str, what: str) -> None:
    """Register the damage of one more file."""

    def damage(folder: Path) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"x")

    damage.__name__ = f"a_stray_file_{what}"
    makes(K.STRAY_FILE, path, costs=path)(damage)


stray("shards/notes.txt", "beside_the_shards")
stray(f"{SHARD}/notes.txt", "in_a_shard")
stray(f"{SHARD}/clip/notes.txt", "in_a_group")
stray(f"{SHARD}/clip/logits/notes.txt", "in_an_array")
stray(f"{SHARD}/depth/zarr.json", "that_makes_another_group")
stray(f"{SHARD}/images/rgb/c/0/0/0/0.77aa.partial", "of_a_killed_writer")
stray(f"{SHARD}/images/rgb/c/0/0/0/1", "that_poses_as_a_chunk")


@makes(K.UNRELATED_FILE, "notes/thesis.txt", costs="")
def a_file_of_the_user_at_the_top(folder: Path) -> None:
    (folder / "notes").mkdir()
    (folder / "notes/thesis.txt").write_text("mine")


@makes(K.STRAY_FILE, f"{SHARD}/waiting", costs=f"{SHARD}/waiting")
def a_named_pipe(folder: Path) -> None:
    os.mkfifo(folder / SHARD / "waiting")

"""The path of a group inside a cache: `shards/<shard>/<group>`, or `<group>` for a group beside the shards."""

from dataclasses import dataclass
from typing import Self

from cache_schemas.errors import LayoutError

SHARDS = "shards"
"""The folder that holds one folder per shard."""

LOCKS = (".run.lock", ".writers.lock")
"""The lock files at the top of a cache: that of the run, and that of its workers (local caches only)."""

SUMMARY = "summary.json"
"""What the last run that did any work has counted and measured, at the top of a cache. No reader needs it."""

CARD = ("README.md", "croissant.json")
"""The card of a cache, at its top: what it holds, for people and for programs. No reader needs it."""

NO_FOLDER_NAMES = frozenset({"", ".", ".."})
"""Names that lead to another folder; the names of objects in a store may have them between slashes."""


@dataclass(frozen=True)
class GroupPath:
    """The shard key and the name of a group; `shard` is None for a root group, which belongs to the whole cache.

    `str()` gives the path inside the cache: `GroupPath("scene-0061-000", "clip")` is `shards/scene-0061-000/clip`, and
    `GroupPath.root("text")` is `text`.

    Raises:
        LayoutError: if the shard key or the name is empty, `.`, `..`, or contains a slash.
    """

    shard: str | None
    name: str

    def __post_init__(self) -> None:
        for part in (self.name,) if self.shard is None else (self.shard, self.name):
            _refuse_path(part)

    def __str__(self) -> str:
        return self.name if self.shard is None else f"{SHARDS}/{self.shard}/{self.name}"

    @classmethod
    def root(cls, name: str) -> Self:
        """Return the path of a group beside the shards."""
        return cls(None, name)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the path that `str()` printed.

        Raises:
            LayoutError: if the text is neither `<group>` nor `shards/<shard>/<group>`.
        """
        match text.split("/"):
            case [name]:
                return cls(None, name)
            case [folder, shard, name] if folder == SHARDS:
                return cls(shard, name)
        raise LayoutError(f"{text!r}: not the path of a group; write <group> or {SHARDS}/<shard>/<group>")


def shard_path(key: str) -> str:
    """Return the path of a shard's folder inside the cache.

    Raises:
        LayoutError: if the key is empty, `.`, `..`, or contains a slash.
    """
    _refuse_path(key)
    return f"{SHARDS}/{key}"


def is_folder_name(name: str) -> bool:
    """Return whether a name is that of one folder, and not a path that leads elsewhere."""
    return name not in NO_FOLDER_NAMES and "/" not in name


def _refuse_path(name: str) -> None:
    if not is_folder_name(name):
        raise LayoutError(f"{name!r}: not the name of one folder; give a shard key or group name without slashes")

"""The list of all kinds of damage; the modules of this folder add theirs to it.

Each is a function that damages the folder of a sound cache. Its decorator says what `validate` must find.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache_schemas.problems import ProblemKind

SHARD = "shards/toy-000"

Place = tuple[ProblemKind, str]


@dataclass(frozen=True)
class Damage:
    """A damage, the problems that `validate` finds, and the folders or files that `repair` may remove."""

    do: Callable[[Path], None]
    makes: tuple[Place, ...]
    costs: tuple[str, ...]


DAMAGES: list[Damage] = []


def makes(kind: ProblemKind, path: str, *more: Place, costs: str | None = None) -> Callable[..., Any]:
    """Register a damage that makes one problem, or `more`.

    `costs` is what may be removed; "" is nothing, None the whole group.
    """
    places = ((kind, path), *more)

    def register(do: Callable[[Path], None]) -> Callable[[Path], None]:
        DAMAGES.append(
            Damage(do, places, (costs,) if costs is not None else tuple(group_of(place) for _, place in places))
        )
        return do

    return register


def group_of(path: str) -> str:
    return "/".join(path.split("/")[: 3 if path.startswith("shards") else 1])

"""Entry points: what other installed packages add to our tables, loaded only when it is used.

A package declares, for example, `labelgen.adapters = waymo = my_package.adapter:Waymo` among the entry points of its
setup.cfg. Each group is documented next to the table that it extends.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

T = TypeVar("T")


@cache
def registered(group: str) -> dict[str, EntryPoint]:
    """Return the entry points of a group by name, sorted; none of them is imported."""
    return {entry.name: entry for entry in sorted(entry_points(group=group), key=lambda entry: entry.name)}


def find(name: str, own: Mapping[str, T], group: str) -> T | None:
    """Return the entry `name` of our `own` table, else of the entry point `group`; None if neither has it."""
    if name in own:
        return own[name]
    if name not in registered(group):
        return None
    found: T = registered(group)[name].load()
    return found


def known_names(own: Iterable[str], group: str) -> list[str]:
    """Return our own names and those that packages register in `group`, sorted."""
    return sorted({*own, *registered(group)})

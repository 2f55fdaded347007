"""Where a sample is in a cache: its shard, its number there, and its rows in each array."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cache_schemas.documents import ShardRecord
from cache_schemas.errors import CacheError
from cache_schemas.group_path import GroupPath
from cache_schemas.layout import AnyArray, Axis, group_spec
from cache_schemas.store import Cache

COUNTED_BY = {"I": "images", "P": "points", "N": "pairs", "Q": "sweeps", "K": "instances"}
"""The group whose `offsets` say which rows of an axis belong to a sample."""

INDICES = {("pairs", "point"): "P", ("pairs", "image"): "I"}
"""Arrays that number the rows of an axis of the shard."""

MOST_SUGGESTIONS = 3


@dataclass(frozen=True)
class Place:
    """A sample in a cache; `index` is its number in its shard."""

    cache: Cache
    key: str
    record: ShardRecord
    index: int
    _found: dict[str, slice] = field(default_factory=dict)

    @property
    def token(self) -> str:
        """The name of the sample."""
        return self.record.samples[self.index]

    def rows(self, axis: Axis) -> slice:
        """Return the rows of the sample along the first axis of an array.

        Raises:
            UnsealedGroupError: if the group that counts them is not sealed.
        """
        name = str(axis)
        if name in COUNTED_BY and name not in self._found:
            offsets = self.cache.read(GroupPath(self.key, COUNTED_BY[name]), "offsets")["offsets"]
            self._found[name] = slice(*offsets[self.index : self.index + 2].tolist())
        of_samples: dict[str, slice] = {
            "S": slice(self.index, self.index + 1),
            "S+1": slice(self.index, self.index + 2),
        }
        return (self._found | of_samples).get(name, slice(None))

    def cut(self, path: GroupPath, arrays: Mapping[str, Any]) -> dict[str, AnyArray]:
        """Return the rows of the sample of a group's arrays, as they would be if it were alone in its shard."""
        cut = {}
        for name, array in arrays.items():
            axis = group_spec(path).arrays[name].axes[0]
            rows = array[self.rows(axis)]
            if axis == "S+1":
                rows = rows - rows[0]
            if counted := INDICES.get((path.name, name)):
                rows = (rows.astype("int64") - self.rows(counted).start).astype(rows.dtype)
            cut[name] = rows
        return cut


def find_sample(cache: Cache, token: str) -> Place:
    """Return the place of a sample.

    Raises:
        CacheError: if the cache has no labels of it: it is in quarantine, or there is no sample of that name.
    """
    records = cache.shard_records(cache.shard_keys())
    for key, record in records.items():
        if token in record.samples:
            return Place(cache, key, record, record.samples.index(token))
        for entry in record.quarantined:
            if entry.sample == token:
                raise CacheError(
                    f"{cache.url}: sample {token!r} is in quarantine ({entry.stage}: {entry.reason}), so nothing is "
                    "sealed to compare with; `labelgen run --retry-quarantined` tries it again"
                )
    known = [sample for record in records.values() for sample in record.samples]
    near = [name for name in known if token in name][:MOST_SUGGESTIONS]
    near = near or difflib.get_close_matches(token, known, MOST_SUGGESTIONS)
    hint = f"did you mean {' or '.join(near)}?" if near else f"it has {len(known):,}, such as {(known or ['none'])[0]}"
    raise CacheError(f"{cache.url}: no sample {token!r}; {hint}")

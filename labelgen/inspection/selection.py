"""Which samples of a cache an audit is about: all, those named, those with a class, the worst of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cache_schemas.documents import CacheManifest
from cache_schemas.errors import CacheError
from labelgen.inspection.measures import Row
from labelgen.inspection.oddities import worst_first
from labelgen.inspection.survey import Survey, survey_shards


@dataclass(frozen=True)
class Selection:
    """Narrows an audit to samples by id, to those where a class occurs, and to the `worst` so many of them."""

    samples: tuple[str, ...] = ()
    class_name: str | None = None
    worst: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the selection as a JSON-ready object."""
        return {"samples": list(self.samples), "class": self.class_name, "worst": self.worst}


def survey_selection(
    url: str, manifest: CacheManifest, finished: Mapping[str, Sequence[str]], selection: Selection
) -> tuple[Survey, list[Row]]:
    """Count the selected samples of the finished shards (samples by shard); also returns them, worst first.

    Raises:
        CacheError: if a sample or the class is not in the cache.
    """
    of_class = _class_index(url, manifest, selection.class_name)
    found = survey_shards(url, _named(url, finished, selection.samples))
    ranked = worst_first([row for row in found.samples if of_class is None or row.occurs[of_class]], of_class)
    if selection.worst is not None:
        ranked = ranked[: selection.worst]
    if len(ranked) < len(found.samples):
        found = survey_shards(url, _by_shard(ranked))
    return found, ranked


def _class_index(url: str, manifest: CacheManifest, name: str | None) -> int | None:
    if name is None:
        return None
    names = manifest.taxonomy.names
    if name not in names:
        raise CacheError(f"{url}: no class {name!r} in taxonomy {manifest.taxonomy.name}; it has {', '.join(names)}")
    return names.index(name)


def _named(url: str, finished: Mapping[str, Sequence[str]], samples: Sequence[str]) -> dict[str, tuple[str, ...]]:
    choice = {key: tuple(s for s in held if not samples or s in samples) for key, held in finished.items()}
    known = {sample for chosen in choice.values() for sample in chosen}
    if missing := [sample for sample in samples if sample not in known]:
        raise CacheError(
            f"{url}: no finished shard holds sample {missing[0]!r}; ids of samples are in `worst_samples` of --json"
        )
    return {key: chosen for key, chosen in choice.items() if chosen}


def _by_shard(rows: Sequence[Row]) -> dict[str, list[str]]:
    choice: dict[str, list[str]] = {}
    for row in rows:
        choice.setdefault(row.shard, []).append(str(row.sample))
    return choice

"""Count the samples that an audit is about: all, those named, those with a class, the worst of them."""

from collections.abc import Mapping, Sequence

from cache_schemas.documents import CacheManifest
from cache_schemas.errors import CacheError
from labelgen.inspection.counting.measures import Measurements
from labelgen.inspection.counting.streaming import CountedSamples, count_shards
from labelgen.inspection.judging.ranking import rank_worst_first
from labelgen.inspection.report import Scoring, Selection


def count_selection(
    url: str, manifest: CacheManifest, finished: Mapping[str, Sequence[str]], selection: Selection, scoring: Scoring
) -> tuple[CountedSamples, list[Measurements]]:
    """Count the selected samples of the finished shards, given as samples by shard; return them also worst first.

    Raises:
        CacheError: if a sample or the class is not in the cache.
    """
    class_id = _class_id(url, manifest, selection.class_name)
    counted = count_shards(url, _with_ids(url, finished, selection.samples), scoring)
    ranked = rank_worst_first([s for s in counted.samples if class_id is None or s.occurs[class_id]], class_id)
    if selection.worst is not None:
        ranked = ranked[: selection.worst]
    if len(ranked) < len(counted.samples):
        counted = count_shards(url, _by_shard(ranked), scoring)
    return counted, ranked


def _class_id(url: str, manifest: CacheManifest, name: str | None) -> int | None:
    if name is None:
        return None
    names = manifest.taxonomy.names
    if name not in names:
        raise CacheError(f"{url}: no class {name!r} in taxonomy {manifest.taxonomy.name}; it has {', '.join(names)}")
    return names.index(name)


def _with_ids(url: str, finished: Mapping[str, Sequence[str]], ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the samples with these ids by shard, or all samples if there are no ids."""
    chosen = {key: tuple(s for s in samples if not ids or s in ids) for key, samples in finished.items()}
    known = {sample for samples in chosen.values() for sample in samples}
    if missing := [own_id for own_id in ids if own_id not in known]:
        raise CacheError(
            f"{url}: no finished shard holds sample {missing[0]!r}; `worst_samples` of --json lists ids of samples"
        )
    return {key: samples for key, samples in chosen.items() if samples}


def _by_shard(samples: Sequence[Measurements]) -> dict[str, list[str]]:
    chosen: dict[str, list[str]] = {}
    for sample in samples:
        chosen.setdefault(sample.shard, []).append(str(sample.sample))
    return chosen

"""Merges caches that were made by the same teachers into a new one: group by group, without computing anything."""

from collections.abc import Mapping, Sequence
from itertools import combinations

from cache_schemas.audit_files import files_by_group, sources_by_shard
from cache_schemas.creation import create_new
from cache_schemas.documents import CacheManifest, ShardRecord
from cache_schemas.errors import CacheError
from cache_schemas.group_path import GroupPath
from cache_schemas.layout import ROOT_GROUPS, SCHEMA_VERSION, SHARD_GROUPS, TEACHERS_GROUPS
from cache_schemas.location import canonical
from cache_schemas.store import Cache

Part = tuple[Cache, CacheManifest]


def merge(urls: Sequence[str], out: str) -> int:
    """Write a cache at `out` that holds all shards of the caches at `urls`; returns the number of shards.

    Only sealed groups are taken. On one disk their files get a second name (a hard link), otherwise they are copied.
    A merge that was stopped is continued by the same call. The caller holds `run_lock` of `out`.

    Raises:
        CacheError: if the caches do not go together, share a shard or a sample, or `out` is no place for the result.
    """
    parts = [Cache.open(url) for url in urls]
    if canonical(out) in map(canonical, urls):
        raise CacheError(f"{out}: one of the caches to merge; give a new folder for the result")
    manifest = _merged_manifest(parts)
    records = [cache.shard_records(cache.shard_keys()) for cache, _ in parts]
    for (one, ours), (other, theirs) in combinations(zip(urls, records, strict=True), 2):
        _refuse_shared(one, ours, other, theirs)
    existing = Cache(out).manifest()
    if existing not in (None, manifest):
        raise CacheError(f"{out}: holds another cache; give a new folder for the result")
    target = create_new(out, manifest) if existing is None else Cache(out, "a")
    for (source, part), of_source in zip(parts, records, strict=True):
        named = {key: own.model_copy(update={"split": part.split_of(own)}) for key, own in of_source.items()}
        _copy(source, named, target)
    return sum(map(len, records))


def _merged_manifest(parts: Sequence[Part]) -> CacheManifest:
    """Return the manifest of the merged cache: that of the first part, with the sources and recipes of all."""
    (first, manifest), *others = parts
    recipes = dict(manifest.recipes)
    for cache, part in parts:
        if part.schema_version != SCHEMA_VERSION:
            raise CacheError(f"{cache.url}: schema version {part.schema_version}; run `labelgen migrate` on it first")
    for cache, other in others:
        if differing := _differences(manifest, recipes, other):
            raise CacheError(
                f"{cache.url}: {differing[0]} not that of {first.url}; merge caches of the same taxonomy, modalities, "
                "prompts, teachers and training size"
            )
        recipes |= {name: {**recipes.get(name, {}), **theirs} for name, theirs in other.recipes.items()}
    sources = tuple(dict.fromkeys(source for _, part in parts for source in part.sources))
    return manifest.model_copy(update={"sources": sources, "recipes": recipes})


def _differences(manifest: CacheManifest, recipes: Mapping[str, Mapping[str, str]], other: CacheManifest) -> list[str]:
    """Return what keeps two caches apart; `recipes` are those of all caches before the other one, by data set."""
    compared = {
        "its taxonomy is": manifest.taxonomy_digest == other.taxonomy_digest,
        "its modalities are": manifest.modalities == other.modalities,
        "its prompts are": manifest.prompts.digest == other.prompts.digest,
    }
    compared |= {
        f"its teacher {name} is": network == manifest.teachers.networks.get(name)
        for name, network in other.teachers.networks.items()
    }
    for dataset, ours in recipes.items():
        for other_dataset, theirs in other.recipes.items():
            groups = theirs.keys() & ours.keys()
            for group in sorted(groups if dataset == other_dataset else groups & set(TEACHERS_GROUPS)):
                compared[f"the recipe of its group {group} is"] = ours[group] == theirs[group]
    return [what for what, equal in compared.items() if not equal]


def _refuse_shared(one: str, ours: Mapping[str, ShardRecord], other: str, theirs: Mapping[str, ShardRecord]) -> None:
    for key in sorted(ours.keys() & theirs.keys()):
        raise CacheError(f"{other}: shard {key} is in {one} too; merge caches of different scenes")
    samples = {sample for record in ours.values() for sample in record.samples}
    for key, record in theirs.items():
        if shared := [sample for sample in record.samples if sample in samples]:
            raise CacheError(
                f"{other}: sample {shared[0]} of shard {key} is in {one} too; merge caches of other samples"
            )


def _copy(source: Cache, records: Mapping[str, ShardRecord], target: Cache) -> None:
    """Copy the sealed groups of a cache that the target does not have; the record of a shard is written first."""
    imported = sources_by_shard(files_by_group(source.file_sizes()))
    _copy_groups(source, [GroupPath.root(name) for name in ROOT_GROUPS], target)
    for key, record in records.items():
        target.write_shard_record(key, record)
        _copy_groups(source, [GroupPath(key, name) for name in (*SHARD_GROUPS, *imported.get(key, []))], target)


def _copy_groups(source: Cache, paths: Sequence[GroupPath], target: Cache) -> None:
    there = target.whole_seals(paths)
    for path, seal in source.whole_seals(paths).items():
        if path not in there:
            target.copy_group(path, seal, source)

"""The manifest of a cache, and opening a cache for a run that fits it."""

import platform
from importlib import metadata

from cache_schemas.creation import create_new
from cache_schemas.documents import CacheManifest, PromptRecord, Source
from cache_schemas.errors import CacheError
from cache_schemas.layout import SCHEMA_VERSION, TEACHERS_GROUPS
from cache_schemas.migrate import migrate
from cache_schemas.store import Cache
from labelgen.stages.inputs import ResolvedSettings
from pipelines.fingerprints import digest, recipe_of, recipes_of

SOFTWARE = ("torch", "torchvision", "open_clip_torch", "segment-anything", "numpy", "pillow", "zarr", "ray")
"""The packages whose versions the manifest records."""


def make_manifest(resolved: ResolvedSettings) -> CacheManifest:
    """Return the manifest of a new cache made under these settings."""
    config = resolved.settings.model_dump(mode="json")
    return CacheManifest(
        schema_version=SCHEMA_VERSION,
        modalities=resolved.modalities,
        sources=(source_of(resolved),),
        taxonomy=resolved.taxonomy,
        taxonomy_digest=resolved.taxonomy.digest,
        prompts=PromptRecord(
            name=resolved.prompts.name,
            digest=resolved.prompts.digest,
            class_names=resolved.prompts.class_names,
            templates=resolved.prompts.templates,
        ),
        teachers=resolved.teachers,
        config=config,
        config_digest=digest(config),
        recipes={resolved.settings.dataset: recipes_of(resolved)},
        software={"python": platform.python_version(), **{name: metadata.version(name) for name in SOFTWARE}},
    )


def source_of(resolved: ResolvedSettings) -> Source:
    """Return the part of a data set that these settings name."""
    settings = resolved.settings
    return Source(dataset=settings.dataset, split=settings.split, version=settings.version)


def open_for_run(url: str, resolved: ResolvedSettings) -> Cache:
    """Open the cache, or create it with its manifest; a cache of schema version 1 is brought to the present one.

    Raises:
        CacheError: if what it holds does not go together with what the run would add, if there are other files than a
            cache, or it cannot be written.
    """
    cache = Cache(url)
    existing = cache.manifest()
    if existing is None:
        return create_new(url, make_manifest(resolved))
    refuse_unfit(url, existing, resolved)
    cache = Cache(url, "a")
    migrate(cache)
    return cache


def refuse_unfit(url: str, existing: CacheManifest, resolved: ResolvedSettings) -> None:
    """Check that the samples of a run can be in one cache with those that it holds.

    Raises:
        CacheError: naming what differs.
    """
    compared: tuple[tuple[str, object, object], ...] = (
        ("taxonomy", existing.taxonomy.digest, resolved.taxonomy.digest),
        ("modalities", " and ".join(existing.modalities), " and ".join(resolved.modalities)),
    )
    for name, held, asked in compared:
        if held != asked:
            raise CacheError(f"{url}: holds {name} {held!r}, not {asked!r}; give another cache folder")
    own = resolved.settings.dataset
    held, asked = existing.config.get("shard_samples"), resolved.settings.shard_samples
    if own in existing.datasets and held not in (None, asked):
        raise CacheError(
            f"{url}: holds shards of up to {held} samples, and shards of {asked} beside them would repeat samples; "
            f"keep --set shard_samples={held}, or give another cache folder"
        )
    for other in set(existing.datasets) - {own}:
        recipes = existing.recipes_of(other)
        changed = [group for group in TEACHERS_GROUPS if recipes.get(group) != recipe_of(group, resolved)]
        if changed:
            raise CacheError(
                f"{url}: holds {changed[0]} of {other}, made under other settings; data sets share a cache if their "
                "training size, prompts and teachers are the same, so give these settings or another cache folder"
            )


def manifest_after(cache: Cache, resolved: ResolvedSettings) -> CacheManifest:
    """Return the manifest that a cache has after a run: with its source, and its recipes beside those of others."""
    manifest, existing = make_manifest(resolved), cache.manifest()
    if existing is None:
        return manifest
    sources = tuple(dict.fromkeys((*existing.sources, *manifest.sources)))
    return manifest.model_copy(update={"sources": sources, "recipes": {**existing.recipes, **manifest.recipes}})


def update_manifest(cache: Cache, resolved: ResolvedSettings) -> None:
    """Replace the manifest if it differs from the one of these settings."""
    manifest = manifest_after(cache, resolved)
    if cache.manifest() != manifest:
        Cache.create(cache.url, manifest)

"""The manifest of a cache, and opening a cache for a run that fits it."""

import platform
from importlib import metadata

from cache_schemas.audit_files import is_of_a_cache
from cache_schemas.documents import CacheManifest, PromptRecord
from cache_schemas.errors import CacheError
from cache_schemas.layout import SCHEMA_VERSION
from cache_schemas.store import Cache
from labelgen.stages import STAGES
from labelgen.stages.inputs import ResolvedSettings
from pipelines.fingerprints import digest, recipe_of

SOFTWARE = ("torch", "torchvision", "open_clip_torch", "segment-anything", "numpy", "pillow", "zarr", "ray")
"""The packages whose versions the manifest records."""


def make_manifest(resolved: ResolvedSettings) -> CacheManifest:
    """Return the manifest of a cache made under these settings."""
    config = resolved.settings.model_dump(mode="json")
    return CacheManifest(
        schema_version=SCHEMA_VERSION,
        dataset=resolved.settings.dataset,
        split=resolved.settings.split,
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
        recipes={name: recipe_of(name, resolved) for name in STAGES},
        software={"python": platform.python_version(), **{name: metadata.version(name) for name in SOFTWARE}},
    )


def open_for_run(url: str, resolved: ResolvedSettings) -> Cache:
    """Open the cache, or create it with its manifest.

    Raises:
        CacheError: if it holds another dataset, split, taxonomy or size of shards, or other files than a cache, or
            cannot be written.
    """
    cache = Cache(url)
    existing = cache.manifest()
    if existing is None:
        _refuse_used_folder(cache)
        return Cache.create(url, make_manifest(resolved))
    compared: tuple[tuple[str, object, object], ...] = (
        ("dataset", existing.dataset, resolved.settings.dataset),
        ("split", existing.split, resolved.settings.split),
        ("taxonomy", existing.taxonomy.digest, resolved.taxonomy.digest),
    )
    for name, held, asked in compared:
        if held != asked:
            raise CacheError(f"{url}: holds {name} {held!r}, not {asked!r}; give another cache folder")
    held, asked = existing.config.get("shard_samples"), resolved.settings.shard_samples
    if held not in (None, asked):
        raise CacheError(
            f"{url}: holds shards of up to {held} samples, and shards of {asked} beside them would repeat samples; "
            f"keep --set shard_samples={held}, or give another cache folder"
        )
    return Cache(url, "a")


def _refuse_used_folder(cache: Cache) -> None:
    """Refuse to create a cache beside other files, which `labelgen verify` would then call problems.

    Raises:
        CacheError: naming the first of them.
    """
    unrelated = sorted(path for path in cache.top_names() if not is_of_a_cache(path))
    if unrelated:
        raise CacheError(
            f"{cache.url}: not a cache, and not empty (it holds {unrelated[0]!r}); give a new folder for the cache"
        )


def update_manifest(cache: Cache, resolved: ResolvedSettings) -> None:
    """Replace the manifest if it differs from the one of these settings."""
    manifest = make_manifest(resolved)
    if cache.manifest() != manifest:
        Cache.create(cache.url, manifest)

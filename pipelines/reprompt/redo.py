"""New prompts for a cache that holds CLIP's features: its text encoder runs, and neither its image network nor SAM."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from cache_schemas.audit_consistency import stale_groups
from cache_schemas.documents import CacheManifest, GroupSeal, Provenance
from cache_schemas.errors import CacheError, ConfigError
from cache_schemas.group_path import GroupPath
from cache_schemas.lock import run_lock, writing
from cache_schemas.store import Cache
from labelgen.datasets.adapter import Adapter
from labelgen.prompts import load_prompts
from labelgen.stages import STAGES, text
from labelgen.stages.inputs import Arrays, ResolvedSettings, ShardInputs
from labelgen.stages.stage import Stage, TeacherCall
from labelgen.teachers.clip.cached_features import decode_features, load_text_encoder, score_features
from pipelines.config import RunConfig
from pipelines.fingerprints import fingerprint_of, recipe_of, sources_of, stages_of
from pipelines.manifest import update_manifest

LARGEST_DIFFERENCE = 0.004
"""Cosines from f16 features differ from those in the cache by no more; features and cosines are rounded to f16."""


@dataclass(frozen=True)
class _Shard:
    """A shard to redo: its key, its seals by group name, and the fingerprints that its groups are to have."""

    key: str
    seals: Mapping[str, GroupSeal]
    fingerprints: Mapping[str, str]


def reprompt(url: str, prompts: str, say: Callable[[str], None]) -> int:
    """Redo `text`, `clip/logits`, and the labels that follow from them, for other prompts; returns the shards redone.

    `prompts` is a file or the name of a shipped set. A run with these prompts finds the cache up to date. If it is
    stopped, the same call continues: the groups of a shard are sealed one by one, and `text` and the manifest are last.

    Raises:
        LabelgenError, CacheError: if the cache lacks features, or its scores are not the cosines of its features.
    """
    Cache.open(url)
    with run_lock(url) as holder:
        cache, manifest = Cache.open(url, "a")
        resolved = _resolve(url, manifest, prompts)
        new_text = recipe_of("text", resolved)
        shards = _plan(cache, manifest, resolved, new_text)
        for shard in shards:
            _check_scores(cache, shard, resolved)
        embeddings = _embed(resolved, cache, manifest)
        for number, shard in enumerate(shards, start=1):
            _redo(cache, shard, resolved, embeddings, holder)
            say(f"{shard.key}: {number}/{len(shards)}")
        with writing(url, holder):
            path = GroupPath.root("text")
            provenance = Provenance(new_text, recipe=new_text, teacher=resolved.teachers.networks["clip"])
            cache.write_group(path, {"embeddings": embeddings}, provenance)
            update_manifest(cache, resolved)
    return len(shards)


def _resolve(url: str, manifest: CacheManifest, prompts: str) -> ResolvedSettings:
    """Return the settings of the cache, with other prompts.

    Raises:
        ConfigError: if the cache holds several data sets.
    """
    if len(manifest.datasets) > 1:
        raise ConfigError(
            f"{url}: holds {', '.join(manifest.datasets)}, and each has settings of its own; "
            "run `labelgen run --set prompts=..` for each of them"
        )
    config = RunConfig.model_validate(manifest.config).model_copy(update={"prompts": prompts})
    own = load_prompts(prompts, manifest.taxonomy)
    return ResolvedSettings(config, manifest.taxonomy, own, manifest.teachers, manifest.modalities)


def _plan(cache: Cache, manifest: CacheManifest, resolved: ResolvedSettings, new_text: str) -> list[_Shard]:
    """Return the shards that are not up to date with the new text.

    Raises:
        CacheError: if a shard is not finished, or has no features.
    """
    keys = [key for key, record in cache.shard_records(cache.shard_keys()).items() if record.samples]
    stages = {name: stage for name, stage in stages_of(resolved).items() if not stage.at_root}
    sealed = cache.whole_seals(GroupPath(key, name) for key in keys for name in stages)
    shards = []
    for key in keys:
        seals = {name: seal for name in stages if (seal := sealed.get(GroupPath(key, name)))}
        wanted = _fingerprints(seals, resolved, new_text)
        if all(name in seals and seals[name].fingerprint == value for name, value in wanted.items()):
            continue
        clip = seals.get("clip")
        outdated = stale_groups(seals, manifest.recipes_of(manifest.dataset))
        if clip is None or ("clip" in outdated and clip.fingerprint != wanted["clip"]):
            raise CacheError(f"{cache.url}/shards/{key}: clip is missing or out of date; finish with `labelgen run`")
        if "features" not in clip.arrays:
            raise CacheError(
                f"{cache.url}/shards/{key}: holds no clip/features, so new prompts need CLIP's image network; "
                "`labelgen run` with --set clip.store_features=true stores them"
            )
        shards.append(_Shard(key, seals, wanted))
    return shards


def _fingerprints(seals: Mapping[str, GroupSeal], resolved: ResolvedSettings, new_text: str) -> dict[str, str]:
    """Return the fingerprints of the groups of a shard that follow from `text`."""
    known = {name: seal.fingerprint for name, seal in seals.items()} | {"text": new_text}
    wanted: dict[str, str] = {}
    for name, stage in stages_of(resolved).items():
        sources = sources_of(name, resolved)
        if {"text", *wanted}.isdisjoint(sources) or (settings := stage.settings(resolved)) is None:
            continue
        assert stage.raw_inputs is None, f"{name} follows from text and from raw files"
        known[name] = wanted[name] = fingerprint_of(stage, [], settings, [known.get(source) for source in sources])
    return wanted


def _check_scores(cache: Cache, shard: _Shard, resolved: ResolvedSettings) -> None:
    """Check on its first image that a shard's scores are those of its features and of the text that they were made for.

    Raises:
        CacheError: if they are not: refinements that use more than the features need the image network.
    """
    path, sealed_text = GroupPath(shard.key, "clip"), cache.seals([GroupPath.root("text")])
    made_from = shard.seals["clip"].upstream.get("text")
    if not any(seal.fingerprint == made_from for seal in sealed_text.values()):
        return  # sealed by this command before it was stopped
    first = {name: cache.rows(path, name)[0:1] for name in shard.seals["clip"].arrays}
    before = cache.read(GroupPath.root("text"))["embeddings"]
    scores = score_features(decode_features(first), before, resolved.settings.clip)
    difference = float(np.abs(scores.astype(np.float32) - first["logits"]).max(initial=0))
    if difference > LARGEST_DIFFERENCE + _largest_rounding(first, before):
        raise CacheError(
            f"{cache.url}/{path}: its scores differ by {difference:.3f} from the cosines of its features, because of a "
            "refinement that needs CLIP's image network; use `labelgen run --set prompts=..` instead"
        )


def _largest_rounding(clip: Arrays, text: NDArray[np.float32]) -> float:
    """Return by how much int8 features can change a cosine at most: each is rounded by half a scale; 0 for float16."""
    if "features_scale" not in clip:
        return 0.0
    return float((clip["features_scale"] / 2 @ np.abs(text).T).max(initial=0))


def _embed(resolved: ResolvedSettings, cache: Cache, manifest: CacheManifest) -> NDArray[np.float32]:
    """Return the class embeddings (C, D) of the new prompts, made by CLIP's text encoder on the CPU."""
    model = load_text_encoder(cache.url, manifest)
    return text.compute(model, text.receive(model, _inputs(resolved, cache), None))["embeddings"]


def _inputs(resolved: ResolvedSettings, cache: Cache, shard: str | None = None) -> ShardInputs:
    """Return what stages read that need no raw files, and so no adapter."""
    return ShardInputs(resolved, cast(Adapter, None), (), cache, shard)


def _redo(
    cache: Cache,
    shard: _Shard,
    resolved: ResolvedSettings,
    embeddings: NDArray[np.float32],
    holder: str,
) -> None:
    """Redo the groups of a shard that do not have the fingerprints that they are to have."""
    fingerprints = {name: seal.fingerprint for name, seal in shard.seals.items()} | dict(shard.fingerprints)
    fingerprints["text"] = recipe_of("text", resolved)
    for name, fingerprint in shard.fingerprints.items():
        if name in shard.seals and shard.seals[name].fingerprint == fingerprint:
            continue
        stage, inputs = STAGES[name], _inputs(resolved, cache, shard.key)
        arrays = _build(stage, inputs, embeddings)
        provenance = Provenance(
            fingerprint=fingerprint,
            recipe=recipe_of(name, resolved),
            teacher=resolved.teachers.networks[stage.teacher.name] if stage.teacher else None,
            upstream={source: fingerprints[source] for source in sources_of(name, resolved)},
            samples=shard.seals["clip"].samples,
        )
        counts = {"samples": len(provenance.samples), **stage.counts(arrays)}
        with writing(cache.url, holder):
            cache.write_group(GroupPath(shard.key, name), arrays, replace(provenance, counts=counts))


def _build(stage: Stage, inputs: ShardInputs, embeddings: NDArray[np.float32]) -> Arrays:
    """Return the arrays of a group: new scores of the old features, or what follows from them."""
    if isinstance(stage.build, TeacherCall):
        arrays = inputs.read(stage.name)
        logits = score_features(decode_features(arrays), embeddings, inputs.settings.clip)
        return {**arrays, "logits": logits}
    return stage.build(inputs)

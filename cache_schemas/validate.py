"""Find every problem that a cache can have; each has a name, the path where it is, and a sentence."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum

import numpy as np

from cache_schemas.documents import CacheManifest, GroupSeal
from cache_schemas.errors import CacheError
from cache_schemas.layout import (
    OPTIONAL_GROUPS,
    ROOT_GROUPS,
    SHARD_GROUPS,
    AnyArray,
    bind_axes,
    group_specs,
    missing_scale,
)
from cache_schemas.store import Cache, checksum
from cache_schemas.taxonomy import IGNORE


class ProblemKind(StrEnum):
    """The names of the problems that `validate` knows."""

    DAMAGED_DOCUMENT = "damaged-document"
    MISSING_RECORD = "missing-record"
    UNSEALED_GROUP = "unsealed-group"
    STALE_GROUP = "stale-group"
    MISSING_ARRAY = "missing-array"
    UNKNOWN_ARRAY = "unknown-array"
    WRONG_LAYOUT = "wrong-layout"
    UNREADABLE_ARRAY = "unreadable-array"
    CHECKSUM_MISMATCH = "checksum-mismatch"
    VALUE_OUT_OF_RANGE = "value-out-of-range"
    STRAY_FILE = "stray-file"


@dataclass(frozen=True)
class Problem:
    """One thing wrong: its name, the path inside the cache, and what was found."""

    kind: ProblemKind
    path: str
    message: str

    def to_dict(self) -> dict[str, str]:
        """Return the problem as a JSON-ready object."""
        return {key: str(value) for key, value in asdict(self).items()}


def validate(cache: Cache, manifest: CacheManifest) -> Iterator[Problem]:
    """Yield every problem of a cache, shard by shard; a sound cache yields none.

    All values of all sealed arrays are read and compared with the checksums in their seals. Shards whose every
    sample is quarantined are complete without groups.
    """
    yield from _stray_files(cache)
    text, problems = _read_group(cache, "text", {"C": len(manifest.taxonomy.classes)})
    yield from problems
    if text is not None and not np.allclose(np.linalg.norm(text["embeddings"], axis=1), 1, atol=1e-3):
        yield Problem(ProblemKind.VALUE_OUT_OF_RANGE, "text/embeddings", "embeddings are not of unit norm")
    embedding = {"D": text["embeddings"].shape[1]} if text else {}
    for key in cache.shard_keys():
        yield from _validate_shard(cache, manifest, key, embedding)


def _validate_shard(cache: Cache, manifest: CacheManifest, key: str, embedding: dict[str, int]) -> Iterator[Problem]:
    try:
        record = cache.shard_records([key]).get(key)
    except CacheError as error:
        yield Problem(ProblemKind.DAMAGED_DOCUMENT, f"shards/{key}", str(error))
        return
    if record is None:
        yield Problem(ProblemKind.MISSING_RECORD, f"shards/{key}", "the shard has no record of its samples")
        return
    if not record.samples:
        return
    sizes = {"S": len(record.samples), "C": len(manifest.taxonomy.classes), **embedding}
    groups: dict[str, dict[str, AnyArray]] = {}
    for name in SHARD_GROUPS:
        path = f"shards/{key}/{name}"
        arrays, problems = _read_group(cache, path, sizes)
        yield from problems
        if arrays is not None:
            groups[name] = arrays
            sizes, _ = bind_axes(path, {array: values.shape for array, values in arrays.items()}, sizes)
    yield from _stale_groups(cache, manifest, key)
    yield from _bad_values(manifest, f"shards/{key}", groups)


def _read_group(cache: Cache, path: str, sizes: dict[str, int]) -> tuple[dict[str, AnyArray] | None, list[Problem]]:
    """Return a sealed group's values (None where they cannot be trusted) and the problems met on the way."""
    try:
        seal = cache.seals([path]).get(path)
    except CacheError as error:
        return None, [Problem(ProblemKind.DAMAGED_DOCUMENT, path, str(error))]
    if seal is None:
        if path.rsplit("/", 1)[-1] in OPTIONAL_GROUPS and not cache.stored_bytes(path):
            return None, []
        return None, [Problem(ProblemKind.UNSEALED_GROUP, path, "the group is absent or was never sealed")]
    problems = _undeclared_arrays(cache, path, seal)
    values: dict[str, AnyArray] = {}
    gone = {problem.path for problem in problems}
    for name in seal.arrays:
        if f"{path}/{name}" in gone:
            continue
        try:
            array = cache.read(path, name)[name]
        except Exception as error:
            problems.append(Problem(ProblemKind.UNREADABLE_ARRAY, f"{path}/{name}", f"{type(error).__name__}: {error}"))
            continue
        if broken := _broken_promises(path, name, array, seal):
            problems += broken
        else:
            values[name] = array
    problems += [Problem(ProblemKind.MISSING_ARRAY, path, sentence) for sentence in missing_scale(values)]
    _, misfits = bind_axes(path, {name: array.shape for name, array in values.items()}, sizes)
    problems += [Problem(ProblemKind.WRONG_LAYOUT, path, misfit) for misfit in misfits]
    return (None if problems else values), problems


def _undeclared_arrays(cache: Cache, path: str, seal: GroupSeal) -> list[Problem]:
    specs, on_disk = group_specs(path), cache.stored_bytes(path)
    missing = [name for name, spec in specs.items() if not spec.optional and name not in seal.arrays]
    missing += [name for name in seal.arrays if name not in on_disk]
    unknown = sorted((set(on_disk) - set(seal.arrays)) | (set(seal.arrays) - set(specs)))
    return [Problem(ProblemKind.MISSING_ARRAY, f"{path}/{name}", "the array is not there") for name in missing] + [
        Problem(ProblemKind.UNKNOWN_ARRAY, f"{path}/{name}", "the contract or the seal does not know this array")
        for name in unknown
    ]


def _broken_promises(path: str, name: str, values: AnyArray, seal: GroupSeal) -> list[Problem]:
    promise, allowed = seal.arrays[name], group_specs(path)[name].dtypes
    place = f"{path}/{name}"
    if values.shape != promise.shape or values.dtype.name != promise.dtype or promise.dtype not in allowed:
        found = f"{values.dtype.name} {values.shape}, sealed as {promise.dtype} {promise.shape}"
        return [Problem(ProblemKind.WRONG_LAYOUT, place, found)]
    if (found := checksum(values)) != promise.crc32c:
        return [Problem(ProblemKind.CHECKSUM_MISMATCH, place, f"crc32c is {found}, sealed as {promise.crc32c}")]
    return []


def stale_groups(seals: Mapping[str, GroupSeal], recipes: Mapping[str, str]) -> dict[str, list[str]]:
    """Return why groups do not belong to what is around them: sentences, by group name.

    A group is stale if a group that it was made from has been redone since, or if it was made under other settings
    than the manifest's. `seals` are one shard's, by group name, and the seal of `text`; `recipes` the manifest's.
    """
    stale: dict[str, list[str]] = {}
    for name, seal in seals.items():
        if name not in SHARD_GROUPS:
            continue
        for source, was in seal.upstream.items():
            if source in seals and (now := seals[source].fingerprint) != was:
                stale.setdefault(name, []).append(f"made from {source} {was[:12]}, which is now {now[:12]}")
        if seal.recipe != recipes.get(name, seal.recipe):
            stale.setdefault(name, []).append("made under other settings than the manifest's; run again")
    return stale


def _stale_groups(cache: Cache, manifest: CacheManifest, key: str) -> Iterator[Problem]:
    try:
        seals = {**cache.shard_seals(key), **cache.seals(["text"])}
    except CacheError:
        return
    for name, reasons in stale_groups(seals, manifest.recipes).items():
        for reason in reasons:
            yield Problem(ProblemKind.STALE_GROUP, f"shards/{key}/{name}", reason)


def _bad_values(manifest: CacheManifest, shard: str, groups: dict[str, dict[str, AnyArray]]) -> Iterator[Problem]:
    found = {
        **_bad_offsets(groups),
        **_bad_pairs(groups),
        **_bad_ids(manifest, groups),
        **_bad_numbers(groups),
    }
    for path, message in found.items():
        yield Problem(ProblemKind.VALUE_OUT_OF_RANGE, f"{shard}/{path}", message)


def _bad_offsets(groups: dict[str, dict[str, AnyArray]]) -> dict[str, str]:
    counted = {"images": "rgb", "points": "xyz", "pairs": "point"}
    bad = {}
    for group, array in counted.items():
        if group in groups:
            offsets, total = groups[group]["offsets"], len(groups[group][array])
            if offsets[0] != 0 or offsets[-1] != total or np.any(np.diff(offsets) < 0):
                bad[f"{group}/offsets"] = f"offsets do not run from 0 to {total} without falling"
    return bad


def _bad_pairs(groups: dict[str, dict[str, AnyArray]]) -> dict[str, str]:
    """Check that each pair names a pixel, and a point and an image of its own sample."""
    if not {"images", "points", "pairs"} <= set(groups) or _bad_offsets(groups):
        return {}
    pairs, (height, width) = groups["pairs"], groups["images"]["rgb"].shape[1:3]
    sample = np.repeat(np.arange(len(pairs["offsets"]) - 1), np.diff(pairs["offsets"]))
    low_high: dict[str, tuple[AnyArray | int, AnyArray | int]] = {
        "point": (groups["points"]["offsets"][sample], groups["points"]["offsets"][sample + 1]),
        "image": (groups["images"]["offsets"][sample], groups["images"]["offsets"][sample + 1]),
        "row": (0, height),
        "col": (0, width),
    }
    bad = {}
    for name, (low, high) in low_high.items():
        wrong = np.flatnonzero((pairs[name] < low) | (pairs[name] >= high))
        if wrong.size:
            bad[f"pairs/{name}"] = f"{wrong.size} values out of range, the first {pairs[name][wrong[0]]} at {wrong[0]}"
    return bad


def _bad_ids(manifest: CacheManifest, groups: dict[str, dict[str, AnyArray]]) -> dict[str, str]:
    classes, bad = len(manifest.taxonomy.classes), {}
    for group in ("labels", "truth"):
        for name, ids in groups.get(group, {}).items():
            if name == "segments":  # ids of segments, not of classes
                continue
            wrong = ids[(ids >= classes) & (ids != IGNORE)]
            if wrong.size:
                bad[f"{group}/{name}"] = f"id {wrong[0]} is neither a class of {manifest.taxonomy.name} nor {IGNORE}"
    return bad


def _bad_numbers(groups: dict[str, dict[str, AnyArray]]) -> dict[str, str]:
    floats = {
        f"{group}/{name}": values
        for group, arrays in groups.items()
        for name, values in arrays.items()
        if values.dtype.kind == "f"
    }
    return {path: "not all values are finite" for path, values in floats.items() if not np.isfinite(values).all()}


def _stray_files(cache: Cache) -> Iterator[Problem]:
    """Yield files that no part of the contract put there, such as half-written chunks of a killed run."""
    shard_array = rf"shards/[^/]+/({'|'.join(SHARD_GROUPS)})/[^/]+/(zarr\.json|c(/\d+)+)"
    root_array = rf"({'|'.join(ROOT_GROUPS)})/[^/]+/(zarr\.json|c(/\d+)+)"
    group = rf"((shards(/[^/]+(/({'|'.join(SHARD_GROUPS)}))?)?|{'|'.join(ROOT_GROUPS)})/)?zarr\.json"
    expected = re.compile(f"{shard_array}|{root_array}|{group}")
    for path in cache.files():
        if not expected.fullmatch(path):
            yield Problem(ProblemKind.STRAY_FILE, path, "not part of the contract; remove it")

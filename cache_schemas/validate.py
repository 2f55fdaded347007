"""Find every problem that a cache can have; each has a name, the path where it is, and a sentence."""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum

import numpy as np

from cache_schemas.documents import CacheManifest, GroupSeal, ShardRecord
from cache_schemas.errors import CacheError
from cache_schemas.layout import OPTIONAL_GROUPS, ROOT_GROUPS, SHARD_GROUPS, AnyArray, bind_axes, group_specs
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
    for key in cache.shard_keys():
        yield from _validate_shard(cache, manifest, key)


def _validate_shard(cache: Cache, manifest: CacheManifest, key: str) -> Iterator[Problem]:
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
    sizes = {"S": len(record.samples), "C": len(manifest.taxonomy.classes)}
    groups: dict[str, dict[str, AnyArray]] = {}
    for name in SHARD_GROUPS:
        path = f"shards/{key}/{name}"
        arrays, problems = _read_group(cache, path, sizes)
        yield from problems
        if arrays is not None:
            groups[name] = arrays
            sizes, _ = bind_axes(path, {array: values.shape for array, values in arrays.items()}, sizes)
    yield from _stale_groups(cache, key)
    yield from _bad_values(manifest, record, f"shards/{key}", groups)


def _read_group(
    cache: Cache, path: str, sizes: dict[str, int]
) -> tuple[dict[str, AnyArray] | None, list[Problem]]:
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
        except Exception as error:  # noqa: BLE001 - zarr raises many kinds for damaged chunks
            problems.append(Problem(ProblemKind.UNREADABLE_ARRAY, f"{path}/{name}", f"{type(error).__name__}: {error}"))
            continue
        if broken := _broken_promises(path, name, array, seal):
            problems += broken
        else:
            values[name] = array
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


def _stale_groups(cache: Cache, key: str) -> Iterator[Problem]:
    """Yield groups made from something that has since been redone."""
    try:
        seals = {**cache.shard_seals(key), **cache.seals(["text"])}
    except CacheError:
        return
    for name, seal in seals.items():
        for source, fingerprint in seal.upstream.items():
            if source in seals and seals[source].fingerprint != fingerprint:
                message = f"made from {source} {fingerprint[:12]}, which is now {seals[source].fingerprint[:12]}"
                yield Problem(ProblemKind.STALE_GROUP, f"shards/{key}/{name}", message)


def _bad_values(
    manifest: CacheManifest, record: ShardRecord, shard: str, groups: dict[str, dict[str, AnyArray]]
) -> Iterator[Problem]:
    def wrong(path: str, message: str) -> Problem:
        return Problem(ProblemKind.VALUE_OUT_OF_RANGE, f"{shard}/{path}", message)

    lengths = {"images": ("images", "rgb"), "points": ("points", "xyz"), "pairs": ("pairs", "point")}
    totals = {name: len(groups[group][array]) for name, (group, array) in lengths.items() if group in groups}
    for name, total in totals.items():
        offsets = groups[name]["offsets"]
        if offsets[0] != 0 or offsets[-1] != total or np.any(np.diff(offsets) < 0):
            yield wrong(f"{name}/offsets", f"offsets do not run from 0 to {total} without falling")
    if "pairs" in groups and {"images", "points"} <= set(groups):
        height, width = groups["images"]["rgb"].shape[1:3]
        bounds = {"point": totals["points"], "image": totals["images"], "row": height, "col": width}
        for name, bound in bounds.items():
            values = groups["pairs"][name]
            if values.size and (values.min() < 0 or values.max() >= bound):
                yield wrong(f"pairs/{name}", f"values {values.min()}..{values.max()} are not in 0..{bound - 1}")
    classes = len(manifest.taxonomy.classes)
    for name in ("labels", "truth"):
        for array, values in groups.get(name, {}).items():
            bad = values[(values >= classes) & (values != IGNORE)]
            if bad.size:
                yield wrong(f"{name}/{array}", f"id {bad[0]} is neither a class of {manifest.taxonomy.name} nor {IGNORE}")
    for path, values in (("clip/logits", groups.get("clip", {}).get("logits")),):
        if values is not None and not np.isfinite(values).all():
            yield wrong(path, "not all values are finite")


def _stray_files(cache: Cache) -> Iterator[Problem]:
    """Yield files that no part of the contract put there, such as half-written chunks of a killed run."""
    shard_array = rf"shards/[^/]+/({'|'.join(SHARD_GROUPS)})/[^/]+/(zarr\.json|c(/\d+)+)"
    root_array = rf"({'|'.join(ROOT_GROUPS)})/[^/]+/(zarr\.json|c(/\d+)+)"
    group = rf"((shards(/[^/]+(/({'|'.join(SHARD_GROUPS)}))?)?|{'|'.join(ROOT_GROUPS)})/)?zarr\.json"
    expected = re.compile(f"{shard_array}|{root_array}|{group}")
    for path in cache.files():
        if not expected.fullmatch(path):
            yield Problem(ProblemKind.STRAY_FILE, path, "not part of the contract; remove it")


def problems_as_json(problems: list[Problem]) -> str:
    """Return the problems as one JSON object: `{"problems": [{"kind", "path", "message"}, ...]}`."""
    return json.dumps({"problems": [problem.to_dict() for problem in problems]}, indent=2)

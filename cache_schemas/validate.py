"""Find every problem that a cache can have; each has a name, the path where it is, a sentence and a remedy."""

from collections.abc import Iterator

from cache_schemas.documents import CacheManifest, GroupSeal
from cache_schemas.errors import DamagedGroupError
from cache_schemas.group_path import GroupPath, shard_path
from cache_schemas.layout import AnyArray, group_spec
from cache_schemas.problems import Problem, ProblemKind
from cache_schemas.store import Cache, checksum
from cache_schemas.structure import Part, audit, stale_groups
from cache_schemas.values import impossible_values, is_unit_norm

__all__ = ["Problem", "ProblemKind", "stale_groups", "validate"]


def validate(cache: Cache, manifest: CacheManifest) -> Iterator[Problem]:
    """Yield every problem of a cache, shard by shard; a sound cache yields none.

    Documents and sizes of files come first; where they are in order, all values of all sealed arrays are read and
    compared with the checksums in their seals. Shards whose every sample is quarantined are complete without groups.
    """
    for part in audit(cache, manifest):
        yield from part.problems
        yield from _value_problems(cache, manifest, part)


def _value_problems(cache: Cache, manifest: CacheManifest, part: Part) -> Iterator[Problem]:
    groups: dict[str, dict[str, AnyArray]] = {}
    for path, seal in part.readable.items():
        values, problems = _read_sealed(cache, path, seal, {problem.path for problem in part.problems})
        yield from problems
        required = {name for name, spec in group_spec(path).arrays.items() if not spec.optional}
        if required <= values.keys() == seal.arrays.keys():
            groups[path.name] = values
    text = groups.pop("text", None) if not part.key else None
    if text and not is_unit_norm(text["embeddings"]):
        yield Problem(ProblemKind.VALUE_OUT_OF_RANGE, "text/embeddings", "embeddings are not of unit norm")
    if not part.key:
        return
    counts = {path.name: seal.counts for path, seal in part.readable.items()}
    for place, message in impossible_values(manifest.taxonomy, groups, counts).items():
        yield Problem(ProblemKind.VALUE_OUT_OF_RANGE, f"{shard_path(part.key)}/{place}", message)


def _read_sealed(
    cache: Cache, path: GroupPath, seal: GroupSeal, known_bad: set[str]
) -> tuple[dict[str, AnyArray], list[Problem]]:
    """Return the values of a group that are what was sealed, and what is wrong with the others."""
    values: dict[str, AnyArray] = {}
    problems = []
    for name, promise in seal.arrays.items():
        place = f"{path}/{name}"
        if place in known_bad:
            continue
        try:
            array = cache.read(path, name)[name]
        except DamagedGroupError as error:
            reason = (str(error.__cause__).splitlines() or [type(error.__cause__).__name__])[0]
            problems.append(Problem(ProblemKind.UNREADABLE_ARRAY, place, f"its bytes do not read back ({reason})"))
            continue
        if (found := checksum(array)) != promise.crc32c:
            message = f"crc32c is {found}, sealed as {promise.crc32c}"
            problems.append(Problem(ProblemKind.CHECKSUM_MISMATCH, place, message))
        else:
            values[name] = array
    return values, problems

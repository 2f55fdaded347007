"""Finds every problem of a cache: those of `audit`, and wrong values, for which all arrays are read."""

from collections.abc import Iterator

from cache_schemas.array_storage import checksum
from cache_schemas.audit import audit
from cache_schemas.audit_files import disappeared
from cache_schemas.audit_part import Part
from cache_schemas.documents import CacheManifest, GroupSeal
from cache_schemas.errors import DamagedGroupError
from cache_schemas.group_path import GroupPath, shard_path
from cache_schemas.layout import AnyArray, group_spec
from cache_schemas.problems import Problem, ProblemKind
from cache_schemas.store import Cache
from cache_schemas.value_checks import impossible_values, is_unit_norm


def validate(cache: Cache, manifest: CacheManifest) -> Iterator[Problem]:
    """Yield every problem of a cache, shard by shard; a sound cache yields none.

    Documents and sizes of files come first. Arrays whose documents are sound are read, one shard at a time, and
    compared with the checksums in their seals. A shard whose samples are all quarantined needs no groups.

    Raises:
        CacheError: if there is a link in the cache.
        StoreError: if a file or folder cannot be read, or disappears.
    """
    for part in audit(cache, manifest):
        yield from part.problems
        yield from value_problems(cache, manifest, part)


def value_problems(cache: Cache, manifest: CacheManifest, part: Part) -> Iterator[Problem]:
    """Yield the problems of the values of a shard, or of the groups beside the shards, whose documents are audited."""
    groups: dict[str, dict[str, AnyArray]] = {}
    for path, seal in part.readable.items():
        values, problems = _read_sealed(cache, path, seal, {problem.path for problem in part.problems})
        yield from problems
        if group_spec(path).required(manifest.modalities) <= values.keys() == seal.arrays.keys():
            groups[path.name] = values
    if not part.key:
        if "text" in groups and not is_unit_norm(groups["text"]["embeddings"]):
            yield Problem(ProblemKind.VALUE_OUT_OF_RANGE, "text/embeddings", "embeddings are not of unit norm")
        return
    counts = {path.name: seal.counts for path, seal in part.readable.items()}
    for array, message in impossible_values(manifest.taxonomy, groups, counts).items():
        yield Problem(ProblemKind.VALUE_OUT_OF_RANGE, f"{shard_path(part.key)}/{array}", message)


def _read_sealed(
    cache: Cache, group: GroupPath, seal: GroupSeal, known_bad: set[str]
) -> tuple[dict[str, AnyArray], list[Problem]]:
    """Return the arrays of a group whose values are those that were sealed, and the problems of the others.

    Arrays with a path in `known_bad` are left out.
    """
    values: dict[str, AnyArray] = {}
    problems = []
    for name, sealed in seal.arrays.items():
        path = f"{group}/{name}"
        if path in known_bad:
            continue
        try:
            array = cache.read(group, name)[name]
        except DamagedGroupError as error:
            if isinstance(error.__cause__, FileNotFoundError):  # `audit` has seen the file
                raise disappeared(path) from error
            reason = (str(error.__cause__).splitlines() or [type(error.__cause__).__name__])[0]
            problems.append(Problem(ProblemKind.UNREADABLE_ARRAY, path, f"its bytes cannot be decoded ({reason})"))
            continue
        if (found := checksum(array)) != sealed.crc32c:
            message = f"crc32c is {found}, sealed as {sealed.crc32c}"
            problems.append(Problem(ProblemKind.CHECKSUM_MISMATCH, path, message))
        else:
            values[name] = array
    return values, problems

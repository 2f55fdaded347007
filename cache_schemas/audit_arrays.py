"""Compares the arrays of sealed groups with the contract, their metadata, and the sizes of their files."""

from collections.abc import Iterator, Mapping, Sequence

from cache_schemas.array_storage import METADATA, chunk_file, least_file_bytes, metadata_misfits
from cache_schemas.audit_files import FileSizes, disappeared
from cache_schemas.audit_part import Part, finding
from cache_schemas.documents import ArraySeal, GroupSeal
from cache_schemas.errors import CacheError
from cache_schemas.group_path import GroupPath
from cache_schemas.layout import ArraySpec, group_spec, missing_scale
from cache_schemas.problems import Problem, ProblemKind
from cache_schemas.store import Cache
from cache_schemas.zarr_documents import Documents


def audit_arrays(parts: Sequence[Part], cache: Cache, files: Mapping[str, FileSizes]) -> None:
    """Add the problems of all arrays of some parts; their metadata is read at once. `files` are by group path."""
    listed = [
        f"{path}/{name}"
        for part in parts
        for path, seal in part.seals.items()
        for name in seal.arrays
        if f"{name}/{METADATA}" in files.get(str(path), {})
    ]
    metadata = cache.documents(listed)
    if lost := [path for path in listed if path not in metadata]:
        raise disappeared(f"{lost[0]}/{METADATA}")
    for part in parts:
        for path, seal in part.seals.items():
            part.problems += _group_problems(path, seal, files.get(str(path), {}), metadata)


def _group_problems(path: GroupPath, seal: GroupSeal, files: FileSizes, metadata: Documents) -> Iterator[Problem]:
    specs = group_spec(path).arrays
    if unknown := sorted(set(seal.arrays) - set(specs)):
        message = f"the seal lists {unknown[0]!r}, an array that the contract does not have"
        yield Problem(ProblemKind.DAMAGED_DOCUMENT, str(path), message)
    for name, spec in specs.items():
        if name in seal.arrays:
            yield from _array_problems(f"{path}/{name}", spec, seal.arrays[name], files, metadata)
        elif not spec.optional:
            yield Problem(ProblemKind.MISSING_ARRAY, f"{path}/{name}", "the seal does not list it")
    required = {name for name, spec in specs.items() if not spec.optional}
    for name in sorted({file.split("/")[0] for file in files if "/" in file} - set(seal.arrays) - required):
        yield Problem(ProblemKind.UNKNOWN_ARRAY, f"{path}/{name}", "the seal does not list it")
    for sentence in missing_scale({name: sealed.dtype for name, sealed in seal.arrays.items()}):
        yield Problem(ProblemKind.MISSING_ARRAY, f"{path}/features_scale", sentence)


def _array_problems(
    path: str, spec: ArraySpec, sealed: ArraySeal, files: FileSizes, metadata: Documents
) -> Iterator[Problem]:
    if sealed.dtype not in spec.dtypes or len(sealed.shape) != len(spec.axes):
        message = f"sealed as {sealed.dtype} {sealed.shape}, the contract says {' or '.join(spec.dtypes)} {spec.axes}"
        yield Problem(ProblemKind.WRONG_LAYOUT, path, message)
        return
    document = metadata.get(path)
    if document is None:
        yield Problem(ProblemKind.MISSING_ARRAY, path, "the array does not exist")
        return
    if isinstance(document, CacheError):
        yield Problem(ProblemKind.UNREADABLE_ARRAY, path, finding(document, path))
        return
    try:
        if misfits := metadata_misfits(spec, sealed.shape, sealed.dtype, document):
            yield Problem(ProblemKind.WRONG_LAYOUT, path, "; ".join(misfits))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        yield Problem(ProblemKind.WRONG_LAYOUT, path, f"its zarr.json does not describe one Zarr shard ({error!r})")
    yield from _file_problems(path, spec, sealed, files)


def _file_problems(path: str, spec: ArraySpec, sealed: ArraySeal, files: FileSizes) -> Iterator[Problem]:
    """Compare the size of the file with the values of an array with the size that the sealed shape needs."""
    file = chunk_file(len(spec.axes))
    in_group = f"{path.rsplit('/', 1)[-1]}/{file}"
    if 0 in sealed.shape:
        if in_group in files:
            yield Problem(ProblemKind.STRAY_FILE, f"{path}/{file}", "an empty array has no chunk file")
        return
    size, least = files.get(in_group), least_file_bytes(spec, sealed.shape, sealed.dtype)
    if size is None:
        yield Problem(ProblemKind.UNREADABLE_ARRAY, path, f"its chunk file {file} does not exist")
    elif size < least:
        message = f"its chunk file {file} has {size} bytes, its shape {sealed.shape} needs at least {least}"
        yield Problem(ProblemKind.UNREADABLE_ARRAY, path, message)

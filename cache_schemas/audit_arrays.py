"""Compares the arrays of sealed groups with the contract, their metadata, and the sizes of their files."""

from collections.abc import Iterator, Mapping, Sequence

from cache_schemas.array_storage import METADATA, chunk_file, metadata_misfits
from cache_schemas.audit_files import FileSizes, disappeared
from cache_schemas.audit_part import Part, finding
from cache_schemas.documents import ArraySeal, CacheManifest, GroupSeal
from cache_schemas.errors import CacheError
from cache_schemas.file_checks import wrong_size
from cache_schemas.group_path import GroupPath
from cache_schemas.layout import ArraySpec, group_spec
from cache_schemas.layout_checks import missing_scale
from cache_schemas.problems import Problem, ProblemKind
from cache_schemas.store import Cache
from cache_schemas.zarr_documents import Document, Documents

UNREAD: Document = {}
"""Stands for the metadata of an array that exists and is not read."""


def audit_arrays(
    parts: Sequence[Part], cache: Cache, manifest: CacheManifest, files: Mapping[str, FileSizes], *, metadata: bool
) -> None:
    """Add the problems of all arrays of some parts. `files` are by group path.

    With `metadata`, that of all arrays is read, at once, and compared with the contract.
    """
    listed = [
        f"{path}/{name}"
        for part in parts
        for path, seal in part.seals.items()
        for name in seal.arrays
        if f"{name}/{METADATA}" in files.get(str(path), {})
    ]
    documents = cache.documents(listed) if metadata else dict.fromkeys(listed, UNREAD)
    if lost := [path for path in listed if path not in documents]:
        raise disappeared(f"{lost[0]}/{METADATA}")
    for part in parts:
        for path, seal in part.seals.items():
            part.problems += _group_problems(path, seal, manifest, files.get(str(path), {}), documents)


def _group_problems(
    path: GroupPath, seal: GroupSeal, manifest: CacheManifest, files: FileSizes, documents: Documents
) -> Iterator[Problem]:
    spec = group_spec(path)
    specs = {name: spec.arrays[name] for name in spec.array_names(manifest.modalities)}
    required = spec.required(manifest.modalities)
    if unknown := sorted(set(seal.arrays) - set(specs)):
        message = f"the seal lists {unknown[0]!r}, an array that the contract does not have in this cache"
        yield Problem(ProblemKind.DAMAGED_DOCUMENT, str(path), message)
    for name, array in specs.items():
        if name in seal.arrays:
            document, version = documents.get(f"{path}/{name}"), manifest.schema_version
            yield from _array_problems(f"{path}/{name}", array, seal.arrays[name], files, document, version)
        elif name in required:
            yield Problem(ProblemKind.MISSING_ARRAY, f"{path}/{name}", "the seal does not list it")
    for name in sorted({file.split("/")[0] for file in files if "/" in file} - set(seal.arrays) - required):
        yield Problem(ProblemKind.UNKNOWN_ARRAY, f"{path}/{name}", "the seal does not list it")
    for sentence in missing_scale({name: sealed.dtype for name, sealed in seal.arrays.items()}):
        yield Problem(ProblemKind.MISSING_ARRAY, f"{path}/features_scale", sentence)


def _array_problems(
    path: str, spec: ArraySpec, sealed: ArraySeal, files: FileSizes, document: Document | None, version: int
) -> Iterator[Problem]:
    if sealed.dtype not in spec.dtypes or len(sealed.shape) != len(spec.axes):
        message = f"sealed as {sealed.dtype} {sealed.shape}, the contract says {' or '.join(spec.dtypes)} {spec.axes}"
        yield Problem(ProblemKind.WRONG_LAYOUT, path, message)
        return
    if document is None:
        yield Problem(ProblemKind.MISSING_ARRAY, path, "the array does not exist")
        return
    if isinstance(document, CacheError):
        yield Problem(ProblemKind.UNREADABLE_ARRAY, path, finding(document, path))
        return
    try:
        if document is not UNREAD and (
            misfits := metadata_misfits(spec, sealed.shape, sealed.dtype, document, version)
        ):
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
    size = files.get(in_group)
    if size is None:
        yield Problem(ProblemKind.UNREADABLE_ARRAY, path, f"its chunk file {file} does not exist")
    elif wrong := wrong_size(size, spec, sealed):
        yield Problem(ProblemKind.UNREADABLE_ARRAY, path, f"its chunk file {file} has {wrong}")

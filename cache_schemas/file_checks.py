"""Compares the sizes of the files of a sealed group with those in its seal."""

from collections.abc import Mapping

from cache_schemas.array_storage import METADATA, chunk_file, least_file_bytes
from cache_schemas.documents import ArraySeal, GroupSeal
from cache_schemas.group_path import GroupPath
from cache_schemas.layout import ArraySpec, group_spec


def has_whole_files(path: GroupPath, seal: GroupSeal, sizes: Mapping[str, int | None]) -> bool:
    """Return whether no file of a group is missing or has a wrong size; `sizes` are bytes by path in the cache.

    Arrays that the contract does not have are left to `audit`.
    """
    specs = group_spec(path).arrays
    return all(
        _is_whole(f"{path}/{name}", specs[name], sealed, sizes) for name, sealed in seal.arrays.items() if name in specs
    )


def _is_whole(array: str, spec: ArraySpec, sealed: ArraySeal, sizes: Mapping[str, int | None]) -> bool:
    if not sizes.get(f"{array}/{METADATA}"):
        return False
    if 0 in sealed.shape or len(sealed.shape) != len(spec.axes) or sealed.dtype not in spec.dtypes:
        return True
    size = sizes.get(f"{array}/{chunk_file(len(sealed.shape))}")
    return size is not None and not wrong_size(size, spec, sealed)


def wrong_size(size: int, spec: ArraySpec, sealed: ArraySeal) -> str:
    """Return what is wrong with the size in bytes of the file of an array that is not empty; nothing if it is right.

    Seals of version 1 do not tell the size. The file must also be as large as the shape needs.
    """
    if sealed.bytes not in (None, size):
        return f"{size} bytes, sealed with {sealed.bytes}"
    least = least_file_bytes(spec, sealed.shape, sealed.dtype)
    return "" if size >= least else f"{size} bytes, its shape {sealed.shape} needs at least {least}"

"""Tools of the tests in this folder: edit the files of a cache as damage does, list problems, compare arrays."""

import json
import struct
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from cache_schemas.documents import Provenance
from cache_schemas.group_path import GroupPath
from cache_schemas.layout import AnyArray
from cache_schemas.problems import Problem
from cache_schemas.store import Cache
from cache_schemas.validate import validate

Attributes = dict[str, Any]


def problems_of(cache: str | Path) -> list[Problem]:
    return list(validate(*Cache.open(str(cache))))


def edit_document(folder: Path, path: str, edit: Callable[[Attributes], object]) -> None:
    """Edit the zarr.json at a path in the cache."""
    file = folder / path / "zarr.json"
    document = json.loads(file.read_text())
    edit(document)
    file.write_text(json.dumps(document))


def edit_attributes(folder: Path, path: str, edit: Callable[[Attributes], object]) -> None:
    """Edit the attributes in the zarr.json at a path in the cache."""
    edit_document(folder, path, lambda document: edit(document["attributes"]))


def chunk_of(folder: Path, array: str) -> Path:
    """Return the one file with the values of an array."""
    (file,) = (file for file in (folder / array / "c").rglob("*") if file.is_file())
    return file


def edit_chunk(folder: Path, array: str, edit: Callable[[bytes], bytes]) -> None:
    """Edit the file with the values of an array; its size leaves the seal, so that other checks find the damage."""
    file = chunk_of(folder, array)
    file.write_bytes(edit(file.read_bytes()))
    group, name = array.rsplit("/", 1)
    edit_attributes(folder, group, lambda seal: seal["arrays"][name].update(bytes=None))


def flip(position: int) -> Callable[[bytes], bytes]:
    """Flip one bit of the byte at `position`."""

    def edit(content: bytes) -> bytes:
        changed = bytearray(content)
        changed[position] ^= 1
        return bytes(changed)

    return edit


def with_first_chunk(offset: int, size: int) -> Callable[[bytes], bytes]:
    """Let a sound index say that the file's one inner chunk lies elsewhere."""

    def edit(content: bytes) -> bytes:
        index = struct.pack("<QQ", offset, size)
        return content[:-20] + index + google_crc32c.value(index).to_bytes(4, "little")

    return edit


def reseal(folder: Path, group: str, *, to: str | None = None, **changes: Any) -> None:
    """Write a group again through `Cache`, with a correct seal.

    `changes` are other fields of its provenance, by name, and functions from an array to another, by array name.
    """
    cache, _ = Cache.open(str(folder), "a")
    path = GroupPath.parse(group)
    seal, arrays = cache.seals([path])[path], cache.read(path)
    origin = {field.name: changes.pop(field.name) for field in fields(Provenance) if field.name in changes}
    changed = {name: change(arrays[name]) for name, change in changes.items()}
    cache.write_group(GroupPath.parse(to or group), arrays | changed, replace(seal.provenance, **origin))


def put(index: Any, value: float) -> Callable[[AnyArray], AnyArray]:
    """Return a function that changes one value of an array."""

    def change(array: AnyArray) -> AnyArray:
        changed = array.copy()
        changed[index] = value
        return changed

    return change


def assert_same(found: dict[str, AnyArray], expected: dict[str, AnyArray]) -> None:
    """Compare the names, dtypes, shapes and values of arrays."""
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, strict=True)

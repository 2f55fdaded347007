"""Damage to the file with the values of an array."""

import struct
from pathlib import Path

import zarr

from cache_schemas.problems import ProblemKind as K
from tests.cache_schemas.damages.registry import SHARD, makes
from tests.cache_schemas.editing import chunk_of, edit_chunk, flip, with_first_chunk


@makes(K.UNREADABLE_ARRAY, f"{SHARD}/images/rgb")
def a_flipped_bit_in_raw_bytes(folder: Path) -> None:
    edit_chunk(folder, f"{SHARD}/images/rgb", flip(10))


@makes(K.UNREADABLE_ARRAY, f"{SHARD}/sam/features")
def a_truncated_chunk(folder: Path) -> None:
    edit_chunk(folder, f"{SHARD}/sam/features", lambda content: content[:100])


@makes(K.UNREADABLE_ARRAY, f"{SHARD}/sam/mask_ids")
def a_compressed_chunk_without_its_last_byte(folder: Path) -> None:
    edit_chunk(folder, f"{SHARD}/sam/mask_ids", lambda content: content[:-1])


@makes(K.UNREADABLE_ARRAY, f"{SHARD}/pairs/row")
def an_emptied_chunk(folder: Path) -> None:
    edit_chunk(folder, f"{SHARD}/pairs/row", lambda content: b"")


@makes(K.UNREADABLE_ARRAY, "text/embeddings")
def a_chunk_with_bytes_after_its_end(folder: Path) -> None:
    edit_chunk(folder, "text/embeddings", lambda content: content + b"more")


@makes(K.UNREADABLE_ARRAY, f"{SHARD}/images/rgb")
def a_missing_chunk(folder: Path) -> None:
    chunk_of(folder, f"{SHARD}/images/rgb").unlink()


@makes(K.UNREADABLE_ARRAY, f"{SHARD}/points/xyz")
def a_directory_in_place_of_a_chunk(folder: Path) -> None:
    file = chunk_of(folder, f"{SHARD}/points/xyz")
    file.unlink()
    file.mkdir()


@makes(K.CHECKSUM_MISMATCH, f"{SHARD}/labels/point", (K.CHECKSUM_MISMATCH, f"{SHARD}/labels/point_raw"))
def two_chunks_that_changed_places(folder: Path) -> None:
    one, other = (chunk_of(folder, f"{SHARD}/labels/{name}") for name in ("point", "point_raw"))
    held = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(held)


@makes(K.CHECKSUM_MISMATCH, f"{SHARD}/points/xyz")
def a_value_changed_with_zarr_behind_the_seal(folder: Path) -> None:
    array = zarr.open_array(folder / SHARD / "points/xyz", mode="r+")
    array[3, 1] = 0.5


@makes(K.UNREADABLE_ARRAY, f"{SHARD}/points/intensity")
def an_inner_chunk_that_the_index_calls_empty(folder: Path) -> None:
    edit_chunk(folder, f"{SHARD}/points/intensity", with_first_chunk(2**64 - 1, 2**64 - 1))


@makes(K.UNREADABLE_ARRAY, f"{SHARD}/points/intensity")
def an_inner_chunk_beyond_the_end_of_the_file(folder: Path) -> None:
    edit_chunk(folder, f"{SHARD}/points/intensity", with_first_chunk(2**40, 2**40))


@makes(K.UNREADABLE_ARRAY, f"{SHARD}/labels/point")
def a_compressed_chunk_that_claims_a_terabyte(folder: Path) -> None:
    frame = b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 2**40) + b"\x01\x00\x00"
    edit_chunk(folder, f"{SHARD}/labels/point", lambda content: with_first_chunk(0, len(frame))(frame + content[-20:]))

"""Every kind of damage that a cache can take: found by name and path with its remedy, and mended at the least cost.

Each function below does one damage to the folder of a sound cache; what `validate` must say of it stands above it.
"""

import json
import os
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import zarr

from cache_schemas.documents import Provenance
from cache_schemas.group_path import GroupPath
from cache_schemas.layout import AnyArray
from cache_schemas.repair import repair
from cache_schemas.store import Cache
from cache_schemas.validate import Problem, ProblemKind, validate

SHARD = "shards/toy-000"
K = ProblemKind

Place = tuple[ProblemKind, str]
Attributes = dict[str, Any]


@dataclass(frozen=True)
class Damage:
    """A damage, the problems that it makes, and the folder or file that it may cost."""

    do: Callable[[Path], None]
    makes: tuple[Place, ...]
    costs: tuple[str, ...]


DAMAGES: list[Damage] = []


def makes(kind: ProblemKind, path: str, *more: Place, costs: str | None = None) -> Callable[..., Any]:
    """Say what a damage makes: one problem, seldom more; and what it costs, if not the group that it is in."""
    places = ((kind, path), *more)

    def register(do: Callable[[Path], None]) -> Callable[[Path], None]:
        DAMAGES.append(Damage(do, places, (costs,) if costs else tuple(group_of(place) for _, place in places)))
        return do

    return register


def group_of(path: str) -> str:
    return "/".join(path.split("/")[: 3 if path.startswith("shards") else 1])


def problems_of(folder: Path) -> list[Problem]:
    return list(validate(*Cache.open(str(folder))))


# Tools to damage with


def edit_document(folder: Path, path: str, edit: Callable[[Attributes], object]) -> None:
    """Edit a zarr.json, as with a text editor."""
    file = folder / path / "zarr.json"
    document = json.loads(file.read_text())
    edit(document)
    file.write_text(json.dumps(document))


def edit_attributes(folder: Path, path: str, edit: Callable[[Attributes], object]) -> None:
    edit_document(folder, path, lambda document: edit(document["attributes"]))


def chunk_of(folder: Path, array: str) -> Path:
    """Return the one chunk file of an array."""
    (file,) = (file for file in (folder / array / "c").rglob("*") if file.is_file())
    return file


def edit_chunk(folder: Path, array: str, edit: Callable[[bytes], bytes]) -> None:
    file = chunk_of(folder, array)
    file.write_bytes(edit(file.read_bytes()))


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
    """Write a group anew through the front door: a fitting seal, and other arrays, or another origin."""
    cache, _ = Cache.open(str(folder), "a")
    path = GroupPath.parse(group)
    seal, arrays = cache.seals([path])[path], cache.read(path)
    origin = {field.name: changes.pop(field.name) for field in fields(Provenance) if field.name in changes}
    changed = {name: change(arrays[name]) for name, change in changes.items()}
    cache.write_group(GroupPath.parse(to or group), arrays | changed, replace(seal.provenance, **origin))


def put(index: Any, value: float) -> Callable[[AnyArray], AnyArray]:
    def change(array: AnyArray) -> AnyArray:
        changed = array.copy()
        changed[index] = value
        return changed

    return change


# Bytes of an array


@makes(K.UNREADABLE_ARRAY, f"{SHARD}/images/rgb")
def a_flipped_bit_in_raw_bytes(folder: Path) -> None:
    edit_chunk(folder, f"{SHARD}/images/rgb", flip(10))


@makes(K.UNREADABLE_ARRAY, f"{SHARD}/labels/point")
def a_flipped_bit_in_compressed_bytes(folder: Path) -> None:
    edit_chunk(folder, f"{SHARD}/labels/point", flip(10))


@makes(K.UNREADABLE_ARRAY, f"{SHARD}/images/rgb")
def a_flipped_bit_in_the_index(folder: Path) -> None:
    edit_chunk(folder, f"{SHARD}/images/rgb", flip(-8))


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


@makes(K.UNREADABLE_ARRAY, f"{SHARD}/points/xyz", (K.STRAY_FILE, f"{SHARD}/points/xyz/c/0/0"), costs=f"{SHARD}/points")
def a_link_in_place_of_a_chunk(folder: Path) -> None:
    file = chunk_of(folder, f"{SHARD}/points/xyz")
    file.rename(folder.parent / "elsewhere")
    file.symlink_to(folder.parent / "elsewhere")


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


@makes(K.CHECKSUM_MISMATCH, f"{SHARD}/points/intensity")
def an_inner_chunk_that_the_index_calls_empty(folder: Path) -> None:
    edit_chunk(folder, f"{SHARD}/points/intensity", with_first_chunk(2**64 - 1, 2**64 - 1))


@makes(K.UNREADABLE_ARRAY, f"{SHARD}/points/intensity")
def an_inner_chunk_beyond_the_end_of_the_file(folder: Path) -> None:
    edit_chunk(folder, f"{SHARD}/points/intensity", with_first_chunk(2**40, 2**40))


@makes(K.UNREADABLE_ARRAY, f"{SHARD}/labels/point")
def a_compressed_chunk_that_claims_a_terabyte(folder: Path) -> None:
    frame = b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 2**40) + b"\x01\x00\x00"
    edit_chunk(folder, f"{SHARD}/labels/point", lambda content: with_first_chunk(0, len(frame))(frame + content[-20:]))


# Documents


@makes(K.DAMAGED_DOCUMENT, f"{SHARD}/clip")
def a_seal_that_lacks_a_field(folder: Path) -> None:
    edit_attributes(folder, f"{SHARD}/clip", lambda attrs: attrs.pop("fingerprint"))


@makes(K.DAMAGED_DOCUMENT, f"{SHARD}/clip")
def a_seal_with_a_field_that_nobody_knows(folder: Path) -> None:
    edit_attributes(folder, f"{SHARD}/clip", lambda attrs: attrs.update(colour="blue"))


@makes(K.DAMAGED_DOCUMENT, f"{SHARD}/clip")
def a_seal_with_a_negative_size(folder: Path) -> None:
    edit_attributes(folder, f"{SHARD}/clip", lambda attrs: attrs["arrays"]["logits"].update(shape=[-1, 3, 2, 3]))


@makes(K.DAMAGED_DOCUMENT, f"{SHARD}/clip")
def a_seal_that_is_cut_short(folder: Path) -> None:
    (folder / SHARD / "clip/zarr.json").write_bytes(b'{"attributes": {"state": "sea')


@makes(K.DAMAGED_DOCUMENT, "text")
def a_seal_that_is_no_json_object(folder: Path) -> None:
    (folder / "text/zarr.json").write_bytes(b"[]")


@makes(K.DAMAGED_DOCUMENT, f"{SHARD}/sam")
def a_seal_that_is_nested_without_end(folder: Path) -> None:
    (folder / SHARD / "sam/zarr.json").write_text('{"attributes":' * 100_000)


@makes(K.DAMAGED_DOCUMENT, f"{SHARD}/sam")
def an_array_in_place_of_a_group(folder: Path) -> None:
    edit_document(folder, f"{SHARD}/sam", lambda document: document.update(node_type="array"))


@makes(K.DAMAGED_DOCUMENT, f"{SHARD}/points")
def a_directory_in_place_of_a_seal(folder: Path) -> None:
    (folder / SHARD / "points/zarr.json").unlink()
    (folder / SHARD / "points/zarr.json").mkdir()


@makes(K.DAMAGED_DOCUMENT, "shards/toy-001", costs="shards/toy-001/zarr.json")
def a_record_with_a_field_that_nobody_knows(folder: Path) -> None:
    edit_attributes(folder, "shards/toy-001", lambda attrs: attrs.update(colour="blue"))


@makes(K.DAMAGED_DOCUMENT, SHARD, costs=f"{SHARD}/zarr.json")
def a_record_with_a_terminal_escape(folder: Path) -> None:
    edit_attributes(folder, SHARD, lambda attrs: attrs.update(cameras=["\x1b]0;mine\x07"]))


@makes(K.DAMAGED_DOCUMENT, SHARD, costs=f"{SHARD}/zarr.json")
def a_record_whose_clouds_would_leave_a_folder(folder: Path) -> None:
    edit_attributes(folder, SHARD, lambda attrs: attrs.update(clouds=["../../c0", "c1"]))


@makes(K.MISSING_RECORD, SHARD, costs=f"{SHARD}/zarr.json")
def a_record_that_is_wiped(folder: Path) -> None:
    edit_attributes(folder, SHARD, dict.clear)


@makes(K.MISSING_RECORD, "shards/toy-002")
def a_folder_without_a_record(folder: Path) -> None:
    (folder / "shards/toy-002").mkdir()


@makes(K.MISSING_RECORD, "shards/\x1b[2J to y*")
def a_folder_whose_name_a_terminal_obeys(folder: Path) -> None:
    (folder / "shards/\x1b[2J to y*").mkdir()


@makes(K.DAMAGED_DOCUMENT, "shards", costs="shards/zarr.json")
def no_document_of_the_shards(folder: Path) -> None:
    (folder / "shards/zarr.json").unlink()


@makes(K.DAMAGED_DOCUMENT, "shards", costs="shards/zarr.json")
def an_array_in_place_of_the_shards(folder: Path) -> None:
    edit_document(folder, "shards", lambda document: document.update(node_type="array"))


# How an array is stored


@makes(K.UNREADABLE_ARRAY, f"{SHARD}/pairs/row")
def an_array_document_that_is_no_json(folder: Path) -> None:
    (folder / SHARD / "pairs/row/zarr.json").write_bytes(b"{")


@makes(K.WRONG_LAYOUT, f"{SHARD}/pairs/row")
def an_array_document_that_describes_nothing(folder: Path) -> None:
    (folder / SHARD / "pairs/row/zarr.json").write_bytes(b"{}")


def altered_array(path: str, **changes: Any) -> None:
    """Register the damage of an array's document with some fields changed."""
    name = f"{path.rsplit('/', 1)[-1]}_with_another_{'_and_'.join(changes)}"

    def damage(folder: Path) -> None:
        edit_document(folder, path, lambda document: document.update(changes))

    damage.__name__ = name
    makes(K.WRONG_LAYOUT, path)(damage)


altered_array(f"{SHARD}/points/intensity", data_type="float64")
altered_array(f"{SHARD}/points/xyz", shape=[7, 4])
altered_array(f"{SHARD}/points/intensity", shape=[10**12])
altered_array(f"{SHARD}/points/intensity", fill_value=7)
altered_array(f"{SHARD}/points/intensity", dimension_names=["N"])
altered_array(f"{SHARD}/points/intensity", node_type="group")
altered_array(f"{SHARD}/points/intensity", zarr_format=2)
altered_array(f"{SHARD}/points/intensity", codecs=[{"name": "bytes"}])
altered_array(f"{SHARD}/points/intensity", chunk_grid={"name": "regular", "configuration": {"chunk_shape": [3]}})
altered_array(f"{SHARD}/points/intensity", chunk_key_encoding={"name": "v2", "configuration": {"separator": "."}})


@makes(K.WRONG_LAYOUT, f"{SHARD}/points/xyz")
def bytes_in_the_other_order(folder: Path) -> None:
    def edit(document: Attributes) -> None:
        document["codecs"][0]["configuration"]["codecs"][0]["configuration"]["endian"] = "big"

    edit_document(folder, f"{SHARD}/points/xyz", edit)


@makes(K.WRONG_LAYOUT, f"{SHARD}/labels/image")
def compression_without_its_checksum(folder: Path) -> None:
    def edit(document: Attributes) -> None:
        document["codecs"][0]["configuration"]["codecs"][1]["configuration"]["checksum"] = False

    edit_document(folder, f"{SHARD}/labels/image", edit)


@makes(K.WRONG_LAYOUT, f"{SHARD}/images/rgb")
def inner_chunks_of_another_size(folder: Path) -> None:
    def edit(document: Attributes) -> None:
        document["codecs"][0]["configuration"]["chunk_shape"] = [3, 4, 6, 3]

    edit_document(folder, f"{SHARD}/images/rgb", edit)


@makes(K.UNREADABLE_ARRAY, f"{SHARD}/points/intensity", (K.WRONG_LAYOUT, f"{SHARD}/points"))
def a_seal_and_an_array_that_agree_on_a_trillion_points(folder: Path) -> None:
    size, rows = 10**12, 65536

    def edit(document: Attributes) -> None:
        document.update(shape=[size])
        document["chunk_grid"]["configuration"]["chunk_shape"] = [-(-size // rows) * rows]
        document["codecs"][0]["configuration"]["chunk_shape"] = [rows]

    edit_document(folder, f"{SHARD}/points/intensity", edit)
    edit_attributes(folder, f"{SHARD}/points", lambda attrs: attrs["arrays"]["intensity"].update(shape=[size]))


@makes(K.WRONG_LAYOUT, f"{SHARD}/truth/point")
def a_dtype_outside_the_contract_though_sealed(folder: Path) -> None:
    zarr.create_array(folder / SHARD / "truth/point", data=np.zeros(7, np.int64), overwrite=True)
    edit_attributes(folder, f"{SHARD}/truth", lambda attrs: attrs["arrays"]["point"].update(dtype="int64"))


@makes(K.MISSING_ARRAY, f"{SHARD}/sam/mask_ids")
def a_missing_array(folder: Path) -> None:
    shutil.rmtree(folder / SHARD / "sam/mask_ids")


@makes(K.MISSING_ARRAY, f"{SHARD}/sam/mask_ids")
def an_array_missing_from_disk_and_seal(folder: Path) -> None:
    shutil.rmtree(folder / SHARD / "sam/mask_ids")
    edit_attributes(folder, f"{SHARD}/sam", lambda attrs: attrs["arrays"].pop("mask_ids"))


@makes(K.MISSING_ARRAY, f"{SHARD}/sam/features_scale")
def int8_features_without_their_scale(folder: Path) -> None:
    shutil.rmtree(folder / SHARD / "sam/features_scale")
    edit_attributes(folder, f"{SHARD}/sam", lambda attrs: attrs["arrays"].pop("features_scale"))


@makes(K.UNKNOWN_ARRAY, f"{SHARD}/images/depth", costs=f"{SHARD}/images/depth")
def an_array_that_the_seal_does_not_list(folder: Path) -> None:
    zarr.create_array(folder / SHARD / "images/depth", data=np.ones(3))


@makes(K.DAMAGED_DOCUMENT, f"{SHARD}/points")
def a_sealed_array_that_the_contract_does_not_know(folder: Path) -> None:
    zarr.create_array(folder / SHARD / "points/ring", data=np.zeros(7, np.uint8))
    ring = {"shape": [7], "dtype": "uint8", "crc32c": "00000000"}
    edit_attributes(folder, f"{SHARD}/points", lambda attrs: attrs["arrays"].update(ring=ring))


# Sizes that do not fit


@makes(K.WRONG_LAYOUT, f"{SHARD}/truth")
def truth_of_fewer_points_than_there_are(folder: Path) -> None:
    reseal(folder, f"{SHARD}/truth", point=lambda array: array[:-1])


@makes(K.WRONG_LAYOUT, f"{SHARD}/images")
def pictures_of_another_size_than_their_labels(folder: Path) -> None:
    reseal(folder, f"{SHARD}/images", rgb=lambda array: array[:, :2])


@makes(K.WRONG_LAYOUT, f"{SHARD}/clip")
def scores_of_fewer_classes_than_the_taxonomy(folder: Path) -> None:
    reseal(folder, f"{SHARD}/clip", logits=lambda array: array[:, :2])


@makes(K.WRONG_LAYOUT, "text")
def embeddings_of_fewer_classes_than_the_taxonomy(folder: Path) -> None:
    reseal(folder, "text", embeddings=lambda array: array[:2])


@makes(K.WRONG_LAYOUT, f"{SHARD}/points")
def offsets_of_more_samples_than_the_record(folder: Path) -> None:
    reseal(folder, f"{SHARD}/points", offsets=lambda array: np.append(array, array[-1]))


# Unsealed remains


@makes(K.UNSEALED_GROUP, f"{SHARD}/sam")
def a_group_that_was_never_written(folder: Path) -> None:
    shutil.rmtree(folder / SHARD / "sam")


@makes(K.UNSEALED_GROUP, "text")
def embeddings_that_were_never_written(folder: Path) -> None:
    shutil.rmtree(folder / "text")


@makes(K.UNSEALED_GROUP, f"{SHARD}/sam")
def a_group_whose_writer_was_killed(folder: Path) -> None:
    edit_attributes(folder, f"{SHARD}/sam", dict.clear)


@makes(K.UNSEALED_GROUP, f"{SHARD}/truth")
def an_optional_group_whose_writer_was_killed(folder: Path) -> None:
    edit_attributes(folder, f"{SHARD}/truth", dict.clear)


@makes(K.UNSEALED_GROUP, f"{SHARD}/clip")
def arrays_without_their_group(folder: Path) -> None:
    (folder / SHARD / "clip/zarr.json").unlink()


# Groups and shards of another run


@makes(K.STALE_GROUP, f"{SHARD}/labels")
def a_group_whose_source_was_redone(folder: Path) -> None:
    reseal(folder, f"{SHARD}/sam", fingerprint="new")


@makes(K.STALE_GROUP, f"{SHARD}/clip")
def a_group_whose_class_names_were_redone(folder: Path) -> None:
    reseal(folder, "text", fingerprint="new")


@makes(K.STALE_GROUP, f"{SHARD}/clip")
def a_group_made_under_other_settings(folder: Path) -> None:
    reseal(folder, f"{SHARD}/clip", recipe="of another run", fingerprint="of another run")


@makes(K.STALE_GROUP, "text")
def class_names_made_under_other_settings(folder: Path) -> None:
    reseal(folder, "text", recipe="of another run", fingerprint="of another run")


@makes(K.STALE_GROUP, f"{SHARD}/sam")
def a_group_made_by_another_network(folder: Path) -> None:
    clip = Cache.open(str(folder))[1].teachers.networks["clip"]
    reseal(folder, f"{SHARD}/sam", teacher=clip.model_copy(update={"weights": "untrained:3"}))


@makes(K.FOREIGN_GROUP, f"{SHARD}/sam")
def a_group_of_other_samples(folder: Path) -> None:
    reseal(folder, f"{SHARD}/sam", samples=("s7", "s8"), fingerprint="of another shard")


@makes(K.FOREIGN_GROUP, "shards/toy-001/points")
def a_group_in_a_shard_whose_samples_are_all_in_quarantine(folder: Path) -> None:
    reseal(folder, f"{SHARD}/points", to="shards/toy-001/points")


@makes(K.FOREIGN_RECORD, SHARD, costs=f"{SHARD}/zarr.json")
def a_record_of_other_samples_than_all_groups(folder: Path) -> None:
    edit_attributes(folder, SHARD, lambda attrs: attrs.update(samples=["s0", "s1", "s9"]))


@makes(K.FOREIGN_SHARD, "shards/street-000", costs="shards/street-000")
def a_shard_of_another_scene_than_its_name(folder: Path) -> None:
    shutil.copytree(folder / SHARD, folder / "shards/street-000")


@makes(K.FOREIGN_SHARD, "shards/toy-002", costs="shards/toy-002")
def a_shard_that_holds_samples_of_another(folder: Path) -> None:
    shutil.copytree(folder / SHARD, folder / "shards/toy-002")


@makes(K.STALE_GROUP, "shards/toy-002/clip", (K.STALE_GROUP, "shards/toy-002/labels"), (K.STALE_GROUP, f"{SHARD}/clip"))
def a_shard_out_of_a_cache_of_other_settings(folder: Path) -> None:
    """The other cache has other samples, class names and masks; the last problem shows that ours stay as they are."""
    other = shutil.copytree(folder, folder.parent / "other")
    tokens = ("o0", "o1")
    edit_attributes(other, SHARD, lambda attrs: attrs.update(samples=list(tokens)))
    upstream = {"images": "fingerprint-of-images", "text": "other class names"}
    for group in ("images", "clip", "sam", "points", "pairs", "labels", "truth"):
        reseal(other, f"{SHARD}/{group}", samples=tokens, **({"upstream": upstream} if group == "clip" else {}))
    reseal(other, f"{SHARD}/sam", fingerprint="other masks")
    shutil.copytree(other / SHARD, folder / "shards/toy-002")
    reseal(folder, f"{SHARD}/clip", recipe="ours is old too")


# Values that cannot be, under a seal that fits


def impossible(group: str, array: str, index: Any, value: float, what: str) -> None:
    """Register the damage of one value of an array, sealed as if it were right."""

    def damage(folder: Path) -> None:
        reseal(folder, group, **{array: put(index, value)})

    damage.__name__ = f"{group.rsplit('/', 1)[-1]}_{array}_{what}"
    makes(K.VALUE_OUT_OF_RANGE, f"{group}/{array}")(damage)


for _array, _index, _id in (
    ("image_raw", (-1, -1, -1), 3),
    ("image", (0, 0, 0), 254),
    ("point_raw", -1, 3),
    ("point", 0, 254),
):
    impossible(f"{SHARD}/labels", _array, _index, _id, f"{_id}_outside_the_taxonomy")
impossible(f"{SHARD}/truth", "point", 2, 3, "3_outside_the_taxonomy")
for _array, _value in (("point", 7), ("point", -1), ("point", 3), ("image", 3), ("image", 1), ("row", 4), ("col", 6)):
    impossible(f"{SHARD}/pairs", _array, 4, _value, f"{_value}_outside_its_sample_or_picture")
for _group, _total in (("images", 3), ("points", 7), ("pairs", 5)):
    impossible(f"{SHARD}/{_group}", "offsets", 0, 1, "that_start_late")
    impossible(f"{SHARD}/{_group}", "offsets", 2, _total - 1, "that_end_early")
    impossible(f"{SHARD}/{_group}", "offsets", 1, _total + 1, "that_fall")
impossible(f"{SHARD}/sam", "mask_ids", (0, 0, 0), 5, "5_beyond_the_count")
impossible(f"{SHARD}/sam", "features_scale", (0, 0), np.nan, "that_is_not_a_number")
impossible(f"{SHARD}/clip", "logits", (0, 1, 1, 2), np.nan, "that_is_not_a_number")
impossible(f"{SHARD}/points", "xyz", (0, 1), np.inf, "that_is_infinite")
impossible(f"{SHARD}/images", "intrinsics", (0, 0, 0), np.nan, "that_is_not_a_number")
impossible("text", "embeddings", (2, 2), 1.01, "that_is_not_of_unit_norm")
impossible("text", "embeddings", (0, 0), np.nan, "that_is_not_a_number")


# Files that nobody knows


def stray(path: str, what: str) -> None:
    """Register the damage of a file that is too many."""

    def damage(folder: Path) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"x")

    damage.__name__ = f"a_stray_file_{what}"
    makes(K.STRAY_FILE, path, costs=path)(damage)


stray("notes.txt", "at_the_root")
stray("shards/notes.txt", "beside_the_shards")
stray(f"{SHARD}/notes.txt", "in_a_shard")
stray(f"{SHARD}/clip/notes.txt", "in_a_group")
stray(f"{SHARD}/clip/logits/notes.txt", "in_an_array")
stray(f"{SHARD}/depth/zarr.json", "that_makes_another_group")
stray(f"{SHARD}/images/rgb/c/0/0/0/0.77aa.partial", "of_a_killed_writer")
stray(f"{SHARD}/images/rgb/c/0/0/0/1", "that_poses_as_a_chunk")


@makes(K.STRAY_FILE, "shards/toy-009", costs="shards/toy-009")
def a_link_in_place_of_a_shard(folder: Path) -> None:
    elsewhere = shutil.copytree(folder / SHARD, folder.parent / "elsewhere")
    (folder / "shards/toy-009").symlink_to(elsewhere)


@makes(K.STRAY_FILE, f"{SHARD}/truth", costs=f"{SHARD}/truth")
def a_link_in_place_of_a_group(folder: Path) -> None:
    (folder / SHARD / "truth").rename(folder.parent / "elsewhere")
    (folder / SHARD / "truth").symlink_to(folder.parent / "elsewhere")


@makes(K.STRAY_FILE, f"{SHARD}/waiting", costs=f"{SHARD}/waiting")
def a_pipe_that_nobody_writes_to(folder: Path) -> None:
    os.mkfifo(folder / SHARD / "waiting")


# What must hold for each of them


def state_of(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def state_around(folder: Path) -> dict[str, bytes]:
    state = state_of(folder.parent)
    return {path: content for path, content in state.items() if not path.startswith(f"{folder.name}/")}


each_damage = pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.do.__name__.replace("_", "-"))


def test_there_are_many_kinds_of_damage_and_every_kind_of_problem() -> None:
    assert len(DAMAGES) == len({damage.do.__name__ for damage in DAMAGES}) > 40
    assert {kind for damage in DAMAGES for kind, _ in damage.makes} == set(ProblemKind)


def test_a_sound_cache_has_no_problem(sound_folder: Path) -> None:
    assert problems_of(sound_folder) == []


@each_damage
def test_damage_is_found_with_its_remedy_and_repair_drops_nothing_good(damage: Damage, sound_folder: Path) -> None:
    damage.do(sound_folder)
    problems = problems_of(sound_folder)
    assert sorted((problem.kind, problem.path) for problem in problems) == sorted(damage.makes)
    for problem in problems:
        assert str(problem).isprintable()
        assert "`labelgen verify --repair`" in str(problem) or "`labelgen run`" in str(problem)

    before, outside = state_of(sound_folder), state_around(sound_folder)
    repair(Cache.open(str(sound_folder), "a")[0], problems)
    after = state_of(sound_folder)
    kept = {path for path in before if not any(path == cost or path.startswith(f"{cost}/") for cost in damage.costs)}
    assert {path: after.get(path) for path in kept} == {path: before[path] for path in kept}
    assert not set(after) - set(before) - {"shards/zarr.json"}
    assert state_around(sound_folder) == outside, "nothing outside the cache is touched"
    left = {problem.kind for problem in problems_of(sound_folder)}
    assert left <= {K.UNSEALED_GROUP, K.MISSING_RECORD}, "what is left is only missing, not bad"


def _arrays() -> list[str]:
    groups = {
        "text": ["embeddings"],
        f"{SHARD}/images": ["rgb", "intrinsics", "cam_from_cloud", "offsets"],
        f"{SHARD}/clip": ["logits"],
        f"{SHARD}/sam": ["mask_ids", "features", "features_scale"],
        f"{SHARD}/points": ["xyz", "intensity", "offsets"],
        f"{SHARD}/pairs": ["point", "image", "row", "col", "offsets"],
        f"{SHARD}/labels": ["image_raw", "image", "point_raw", "point"],
        f"{SHARD}/truth": ["point"],
    }
    return [f"{group}/{name}" for group, names in groups.items() for name in names]


@pytest.mark.parametrize("array", _arrays())
def test_a_flipped_bit_anywhere_in_any_array_is_found(array: str, sound_folder: Path) -> None:
    size = chunk_of(sound_folder, array).stat().st_size
    for position in (4, size // 2, size - 21, size - 12, size - 2):  # values, then the index and its checksum
        edit_chunk(sound_folder, array, flip(position))
        found = [(problem.kind, problem.path) for problem in problems_of(sound_folder)]
        assert found in ([(K.UNREADABLE_ARRAY, array)], [(K.CHECKSUM_MISMATCH, array)]), position
        edit_chunk(sound_folder, array, flip(position))
    assert problems_of(sound_folder) == []

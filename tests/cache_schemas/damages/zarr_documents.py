"""Damage to the documents of groups and shards."""

from pathlib import Path

from cache_schemas.problems import ProblemKind as K
from tests.cache_schemas.damages.registry import SHARD, makes
from tests.cache_schemas.editing import edit_attributes, edit_document


@makes(K.DAMAGED_DOCUMENT, f"{SHARD}/clip")
def a_seal_that_lacks_a_field(folder: Path) -> None:
    edit_attributes(folder, f"{SHARD}/clip", lambda attrs: attrs.pop("fingerprint"))


@makes(K.DAMAGED_DOCUMENT, f"{SHARD}/clip")
def a_seal_with_a_field_that_is_unknown(folder: Path) -> None:
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
def a_record_with_a_field_that_is_unknown(folder: Path) -> None:
    edit_attributes(folder, "shards/toy-001", lambda attrs: attrs.update(colour="blue"))


@makes(K.DAMAGED_DOCUMENT, SHARD, costs=f"{SHARD}/zarr.json")
def a_record_with_a_terminal_escape(folder: Path) -> None:
    edit_attributes(folder, SHARD, lambda attrs: attrs.update(pictures=[["\x1b]0;mine\x07", "a.jpg", 64, 48]]))


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
def a_folder_whose_name_has_a_terminal_escape(folder: Path) -> None:
    (folder / "shards/\x1b[2J to y*").mkdir()


@makes(K.DAMAGED_DOCUMENT, "shards", costs="shards/zarr.json")
def a_missing_document_of_the_shards(folder: Path) -> None:
    (folder / "shards/zarr.json").unlink()


@makes(K.DAMAGED_DOCUMENT, "shards", costs="shards/zarr.json")
def an_array_in_place_of_the_shards(folder: Path) -> None:
    edit_document(folder, "shards", lambda document: document.update(node_type="array"))

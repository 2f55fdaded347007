"""Arrays whose metadata is not that of the contract, missing arrays and unknown ones."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from cache_schemas.problems import ProblemKind as K
from tests.cache_schemas.damages.registry import SHARD, makes
from tests.cache_schemas.editing import Attributes, edit_attributes, edit_document


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

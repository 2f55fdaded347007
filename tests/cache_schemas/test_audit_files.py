"""The files of a cache: which of them are part of the cache format."""

import pytest

from cache_schemas.audit_files import stray_files


@pytest.mark.parametrize("path", ["shards/../clip/zarr.json", "shards//clip/zarr.json", "text/./zarr.json"])
def test_names_that_only_an_object_store_can_have_are_stray(path: str) -> None:
    assert dict(stray_files({path: 3})) == {path: "not part of the cache format"}


@pytest.mark.parametrize(
    "path",
    [
        "summary.json",
        "zarr.json",
        "shards/zarr.json",
        "shards/s-000/zarr.json",
        "shards/s-000/clip/zarr.json",
        "text/zarr.json",
    ],
)
def test_documents_are_expected(path: str) -> None:
    assert dict(stray_files({path: 3})) == {}
    assert dict(stray_files({path: None})) == {path: "a special file"}

"""The server of the benchmark answers s3fs as a store does: objects, ranges, lists of several pages."""

from pathlib import Path

import pytest
from s3fs import S3FileSystem

from benchmarks.object_store_server import BUCKET, requests_so_far, serve
from cache_schemas.cache_files import files_at
from cache_schemas.location import file_system


@pytest.mark.s3
def test_objects_ranges_and_long_lists_are_those_of_the_folder(tmp_path: Path) -> None:
    cache = tmp_path / "c.zarr"
    (cache / "shards" / "a-000" / "images").mkdir(parents=True)
    (cache / "text").mkdir()
    for number in range(1003):  # more than a page holds
        (cache / "shards" / "a-000" / "images" / f"{number:04}").write_bytes(b"x" * (number % 7 + 1))
    for name in ("zarr.json", "shards/zarr.json", "text/0&1"):
        (cache / name).write_text("0123456789")
    with pytest.MonkeyPatch.context() as patch, serve(tmp_path, 0.01) as (address, environment):
        for name, value in environment.items():
            patch.setenv(name, value)
        S3FileSystem.clear_instance_cache()  # that of an earlier test has the address of its own server
        url = f"s3://{BUCKET}/c.zarr"
        assert files_at(url).sizes() == files_at(str(cache)).sizes()
        assert files_at(url).sizes(["text"]) == {"text/0&1": 10}
        fs, base = file_system(url)
        before = requests_so_far(address)
        found = fs.cat_ranges(
            [f"{base}/zarr.json"] * 3 + [f"{base}/none"], [2, -3, 0, 0], [5, None, None, 1], on_error="return"
        )
        assert found[:3] == [b"234", b"789", b"0123456789"]
        assert isinstance(found[3], FileNotFoundError)
        assert requests_so_far(address) == before + 4
    S3FileSystem.clear_instance_cache()

"""Other software opens a cache: zarr-python alone, zarr over obstore, TensorStore, and xarray."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import obstore.store
import pytest
import tensorstore
import xarray
import zarr
from zarr.storage import ObjectStore

from cache_schemas.group_path import GroupPath
from cache_schemas.layout import ROOT_GROUPS, SHARD_GROUPS, AnyArray, group_spec
from cache_schemas.store import Cache
from tests.toy_cache import create_toy_cache, toy_manifest, write_toy_shard

Arrays = dict[str, AnyArray]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, fill_group: Callable[..., Arrays]) -> Path:
    """A cache with every array of the layout, optional ones too."""
    folder = tmp_path_factory.mktemp("readers") / "cache"
    cache = create_toy_cache(str(folder), toy_manifest(), embedding_size=5)
    groups = {name: fill_group(GroupPath("toy-000", name)) for name in SHARD_GROUPS}
    groups["images"]["offsets"] = np.array([0, 2, 3])
    write_toy_shard(cache, "toy", groups, ("s0", "s1"))
    return folder


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, Arrays]:
    """The values of each group by its path, as our own reader returns them."""
    paths = [*map(GroupPath.root, ROOT_GROUPS), *(GroupPath("toy-000", name) for name in SHARD_GROUPS)]
    groups = {str(path): Cache(str(folder)).read(path) for path in paths}
    assert all(
        arrays.keys() == group_spec(path).arrays.keys() for path, arrays in zip(paths, groups.values(), strict=True)
    )
    return groups


def assert_equal(found: AnyArray, expected: AnyArray) -> None:
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_zarr_python_reads_all_arrays(folder: Path, expected: dict[str, Arrays]) -> None:
    cache = zarr.open_group(folder, mode="r")
    for path, arrays in expected.items():
        for name, values in arrays.items():
            assert_equal(cache[f"{path}/{name}"][...], values)


def test_zarr_over_obstore_reads_all_arrays(folder: Path, expected: dict[str, Arrays]) -> None:
    store = ObjectStore(obstore.store.LocalStore(folder), read_only=True)
    cache = zarr.open_group(store, mode="r")
    for path, arrays in expected.items():
        for name, values in arrays.items():
            assert_equal(cache[f"{path}/{name}"][...], values)


def test_tensorstore_reads_all_arrays(folder: Path, expected: dict[str, Arrays]) -> None:
    for path, arrays in expected.items():
        for name, values in arrays.items():
            file = {"driver": "file", "path": str(folder / path / name)}
            array = tensorstore.open({"driver": "zarr3", "kvstore": file}, read=True).result()
            assert array.domain.labels == tuple(group_spec(GroupPath.parse(path)).arrays[name].dimension_names)
            assert_equal(array.read().result(), values)


def test_xarray_opens_each_group_as_one_data_set(folder: Path, expected: dict[str, Arrays]) -> None:
    for path, arrays in expected.items():
        with xarray.open_zarr(folder, group=path, chunks=None, consolidated=False, mask_and_scale=False) as group:
            assert set(group.data_vars) == set(arrays)
            for name, values in arrays.items():
                assert_equal(group[name].values, values)

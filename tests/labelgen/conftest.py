"""Shared fixtures: the maker of fake nuScenes datasets, datasets to read and to damage, and the small teachers."""

import runpy
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from cache_schemas.taxonomy import Taxonomy, load_taxonomy


@pytest.fixture(scope="session")
def make_nuscenes() -> Callable[..., Path]:
    """The maker of fake datasets in make_nuscenes.py."""
    maker: Callable[..., Path] = runpy.run_path(str(Path(__file__).with_name("make_nuscenes.py")))["make_nuscenes"]
    return maker


@pytest.fixture(scope="session")
def nuscenes_folder(tmp_path_factory: pytest.TempPathFactory, make_nuscenes: Callable[..., Path]) -> Path:
    """A fake dataset to be read only: three keyframes of scene-0061, two of scene-0103, with lidarseg."""
    return make_nuscenes(tmp_path_factory.mktemp("nuscenes"))


@pytest.fixture
def damaged_folder(nuscenes_folder: Path, tmp_path: Path) -> Path:
    """A copy of the fake dataset that is this test's own to damage."""
    return Path(shutil.copytree(nuscenes_folder, tmp_path / "nuscenes"))


@pytest.fixture(scope="session")
def taxonomy() -> Taxonomy:
    """The 16 nuScenes classes."""
    return load_taxonomy("nuscenes16")


@pytest.fixture(scope="session")
def refused() -> Callable[..., AbstractContextManager[None]]:
    """Return a context that expects an error of one line whose message holds all the given parts."""

    @contextmanager
    def expect(kind: type[Exception], *parts: str) -> Iterator[None]:
        with pytest.raises(kind) as error:
            yield
        message = str(error.value)
        assert "\n" not in message
        assert [part for part in parts if str(part) not in message] == [], message

    return expect

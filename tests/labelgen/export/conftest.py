"""The commands `labelgen export` and `labelgen import-labels`, and caches of each official taxonomy."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from labelgen.cli import main
from tests.made_labels import write_label_cache

Command = Callable[..., Result]


@pytest.fixture(scope="session")
def command() -> Command:
    """Run `labelgen`; the exit code must be `exit_code`."""

    def run(*arguments: object, exit_code: int = 0) -> Result:
        done = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert done.exit_code == exit_code, done.output
        return done

    return run


@pytest.fixture
def nuscenes(tmp_path: Path) -> str:
    """A cache of nuScenes' classes, of this test's own."""
    return write_label_cache(str(tmp_path / "nuscenes.zarr"), "nuscenes16")


@pytest.fixture
def semantickitti(tmp_path: Path) -> str:
    """A cache of SemanticKITTI's classes, of this test's own."""
    return write_label_cache(str(tmp_path / "semantickitti.zarr"), "semantickitti19")


@pytest.fixture
def scannet(tmp_path: Path) -> str:
    """A cache of ScanNet's classes, of this test's own."""
    return write_label_cache(str(tmp_path / "scannet.zarr"), "scannet20")

"""A tiny made nuScenes, a finished cache of it, and the real command to run on them."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
SCENES = {"scene-0061": 3, "scene-0103": 2}

PROMPTS = """
taxonomy: nuscenes16
templates: ["a photo of a {}."]
classes:
  barrier: [barrier]
  bicycle: [bicycle]
  bus: [bus]
  car: [car]
  construction_vehicle: [excavator]
  motorcycle: [motorcycle]
  pedestrian: [person]
  traffic_cone: [cone]
  trailer: [trailer]
  truck: [truck]
  driveable_surface: [road]
  other_flat: [curb]
  sidewalk: [sidewalk]
  terrain: [grass]
  manmade: [building]
  vegetation: [tree]
"""


def _maker() -> Any:
    spec = importlib.util.spec_from_file_location("make_nuscenes", REPOSITORY / "tests/labelgen/make_nuscenes.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.make_nuscenes


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with `nuscenes/` and `prompts.yaml`; do not change it."""
    folder = tmp_path_factory.mktemp("made")
    _maker()(folder / "nuscenes", scenes=SCENES, lidarseg=True)
    (folder / "prompts.yaml").write_text(PROMPTS)
    return folder


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    """Return a copy of the made nuScenes that a test may damage."""
    return shutil.copytree(made / "nuscenes", tmp_path / "nuscenes")


def small_settings(made: Path) -> list[str]:
    """Return the overrides of a small run: one process for each teacher, two samples in a shard."""
    sizes = ["images.height=64", "images.width=112", "shard_samples=2", "sam.points_per_side=1"]
    return [*sizes, f"prompts={made / 'prompts.yaml'}", "ray.sam.actors=1", "ray.retries=1"]


class Command:
    """Runs `labelgen` in a process of its own, as a user would."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def run_arguments(self, data: Path, cache: Path, *more: str) -> list[str]:
        """Return the command line of a small run."""
        settings = [word for setting in small_settings(self.made) for word in ("--set", setting)]
        where = ["--dataset", "nuscenes", "--data", str(data), "--cache", str(cache), "--teachers", "untrained"]
        return [sys.executable, "-m", "labelgen.cli", "run", *where, *settings, *more]

    def run(self, data: Path, cache: Path, *more: str) -> subprocess.CompletedProcess[str]:
        """Run a small run to its end."""
        return self._finish(self.run_arguments(data, cache, *more))

    def start(
        self, data: Path, cache: Path, *more: str, ctrl_c: signal.Handlers = signal.SIG_DFL
    ) -> subprocess.Popen[str]:
        """Start a small run, as in a terminal of its own (where `ctrl_c` may be ignored), and return at once."""
        arguments = self.run_arguments(data, cache, *more)
        return subprocess.Popen(
            arguments,
            cwd=REPOSITORY,
            env=self.environment(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, ctrl_c),
        )

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run any other command."""
        return self._finish([sys.executable, "-m", "labelgen.cli", *arguments])

    def inspect(self, cache: Path) -> dict[str, Any]:
        """Return what `labelgen inspect --json` prints."""
        done = self("inspect", str(cache), "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def environment(self) -> dict[str, str]:
        """Return the environment of commands: this one, with a HOME that shows what is left in it."""
        home = self.made / "home"
        home.mkdir(exist_ok=True)
        return {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | {"HOME": str(home)}

    def _finish(self, arguments: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            arguments, cwd=REPOSITORY, env=self.environment(), text=True, capture_output=True, timeout=300, check=False
        )


@pytest.fixture(scope="session")
def labelgen(made: Path) -> Command:
    """Return the command."""
    return Command(made)


class CommandHere(Command):
    """Runs `labelgen` in this process: for commands that start no cluster."""

    def _finish(self, arguments: list[str]) -> subprocess.CompletedProcess[str]:
        from click.testing import CliRunner

        from labelgen.cli import main

        words = arguments[arguments.index("labelgen.cli") + 1 :]
        result = CliRunner(env={"RAY_ADDRESS": None}).invoke(main, words)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return subprocess.CompletedProcess(words, result.exit_code, result.stdout, result.stderr)


@pytest.fixture(scope="session")
def labelgen_here(made: Path) -> CommandHere:
    """Return the command in this process."""
    return CommandHere(made)


@pytest.fixture
def temp(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the temporary folder of a test's runs: whoever has it open is theirs, and it shows what they leave."""
    with tempfile.TemporaryDirectory(prefix="", dir="/tmp") as folder:  # Ray's sockets have room for a short one only
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


@pytest.fixture(scope="session")
def finished(made: Path, labelgen: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the cache of an undisturbed run; do not change it."""
    cache = tmp_path_factory.mktemp("finished") / "cache.zarr"
    done = labelgen.run(made / "nuscenes", cache)
    assert done.returncode == 0, done.stderr
    return cache


@pytest.fixture(scope="session")
def built(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache equal to `finished`, made in this process without Ray; do not change it."""
    from pipelines.config import load_config
    from tests.pipelines.in_process import build_cache

    cache = tmp_path_factory.mktemp("built") / "cache.zarr"
    config = load_config("nuscenes", teachers="untrained", overrides=small_settings(made))
    build_cache(config, made / "nuscenes", str(cache))
    return cache


@pytest.fixture
def cache(built: Path, tmp_path: Path) -> Path:
    """Return a copy of the built cache that a test may change."""
    return shutil.copytree(built, tmp_path / "cache.zarr")


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """Start one local Ray cluster for a module."""
    from pipelines.cluster import cluster

    with cluster(None):
        yield

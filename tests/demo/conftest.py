"""The real `labelgen` command, in a process of its own."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def labelgen() -> Command:
    """Return a function that runs `labelgen` with the given arguments and returns how it ended."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "labelgen.cli", *map(str, arguments)]
        return subprocess.run(command, cwd=REPOSITORY, text=True, capture_output=True, timeout=300, check=False)

    return run

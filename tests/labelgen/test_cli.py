"""The `labelgen` command as a whole: help is complete and fast, since nothing heavy is imported for it."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("numpy", "pydantic", "zarr", "torch", "ray", "PIL", "yaml", "dask", "open_clip", "segment_anything")


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )


def test_help_lists_all_commands_with_a_short_help() -> None:
    done = python("from labelgen.cli import main; main(['--help'])")
    assert done.returncode == 0, done.stderr
    commands = dict(line.split(maxsplit=1) for line in done.stdout.partition("Commands:\n")[2].splitlines())
    own = [
        "card",
        "check",
        "compare-labels",
        "export",
        "import-labels",
        "inspect",
        "merge",
        "migrate",
        "pack",
        "plan",
        "query",
        "replay",
        "reprompt",
        "run",
    ]
    assert sorted(commands) == sorted([*own, "demo", "verify", "weights"])
    assert all(text.endswith(".") for text in commands.values())


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["run"],
        ["inspect"],
        ["query"],
        ["reprompt"],
        ["replay"],
        ["card"],
        ["pack"],
        ["compare-labels"],
        ["verify"],
        ["check"],
        ["demo", "make"],
        ["weights", "fetch"],
    ],
)
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    done = python(
        "import sys; from labelgen.cli import main\n"
        f"main({[*words, '--help']!r}, standalone_mode=False)\n"
        f"print('heavy:', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert done.stdout.splitlines()[-1] == "heavy: []", done.stderr


def test_the_help_of_run_names_every_data_set() -> None:
    done = python("from labelgen.cli import main; main(['run', '--help'])")
    options = done.stdout.partition("Options:")[2]
    words = options.partition("--dataset")[2].partition("--data ")[0].replace(",", " ").replace(";", " ").split()
    assert {"demo", "files", "nuimages", "nuscenes", "scannet", "semantickitti"} <= set(words), done.stderr

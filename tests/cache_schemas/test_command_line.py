"""Groups that import their commands late, names that packages register, and errors as one line."""

import sys
from importlib.metadata import EntryPoint
from types import ModuleType

import click
import pytest
from click.testing import CliRunner

from cache_schemas import command_line, extensions
from cache_schemas.command_line import LazyGroup, load_attribute, reports_errors
from cache_schemas.errors import ConfigError
from cache_schemas.extensions import find, known_names


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return a module that another package could bring along; it registers the names `theirs` and `own`."""
    module = ModuleType("their_package")
    module.theirs = click.Command("theirs", help="A command of theirs.", callback=lambda: click.echo("theirs ran"))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "their_package", module)
    entries = {name: EntryPoint(name, "their_package:theirs", "group") for name in ("own", "theirs")}
    for user in (extensions, command_line):
        monkeypatch.setattr(user, "registered", lambda group: entries if group == "group" else {})
    return module


def test_our_own_entry_comes_before_a_registered_one(package: ModuleType) -> None:
    assert find("own", {"own": 1}, "group") == 1
    assert find("theirs", {"own": 1}, "group") is package.theirs
    assert find("nobody", {"own": 1}, "group") is None
    assert find("theirs", {"own": 1}, "another group") is None
    assert known_names({"zebra": 1, "own": 1}, "group") == ["own", "theirs", "zebra"]


def test_commands_are_found_by_place_and_by_registration(package: ModuleType) -> None:
    group = LazyGroup(
        "top", commands_at={"here": "their_package:theirs", "absent": "no_such_module:it"}, extensions="group"
    )
    assert group.list_commands(click.Context(group)) == ["absent", "here", "own", "theirs"]
    for name in ("here", "theirs"):
        result = CliRunner().invoke(group, [name])
        assert (result.exit_code, result.output) == (0, "theirs ran\n")


def test_an_unknown_command_is_wrong_usage() -> None:
    result = CliRunner().invoke(LazyGroup("top", commands_at={}), ["missing"])
    assert result.exit_code == 2
    assert "No such command 'missing'" in result.stderr


def test_a_place_names_a_module_and_an_attribute() -> None:
    assert load_attribute("cache_schemas.command_line:load_attribute") is load_attribute


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("a\x1b[31m = 3: too large"), 1, "error: a\\x1b[31m = 3: too large\n"),
        (KeyboardInterrupt(), 130, "interrupted; run it again\n"),
    ],
)
def test_errors_become_one_line_and_an_exit_code(error: BaseException, code: int, said: str) -> None:
    @click.command()
    @reports_errors("run it again")
    def command() -> None:
        raise error

    result = CliRunner().invoke(command)
    assert (result.exit_code, result.stderr) == (code, said)


def test_our_own_bugs_keep_their_traceback() -> None:
    @click.command()
    @reports_errors("run it again")
    def command() -> None:
        raise ZeroDivisionError

    assert isinstance(CliRunner().invoke(command).exception, ZeroDivisionError)

"""What the command line programs share: groups that import their commands late, and errors as one line."""

import importlib
import shutil
import sys
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, NoReturn, ParamSpec, TypeVar

import click

from cache_schemas.extensions import registered

FAILED = 1
INTERRUPTED = 130
"""Exit codes. Click itself exits with 2 where an option is missing or unknown."""

WIDTH_OUTSIDE_TERMINALS = 120

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}

P = ParamSpec("P")
R = TypeVar("R")


class LazyGroup(click.Group):
    """A group whose commands are imported when one is called or listed.

    Modules with commands import click and nothing heavy at their top, so that `--help` is fast.
    """

    def __init__(
        self, *args: Any, commands_at: Mapping[str, str] | None = None, extensions: str | None = None, **options: Any
    ) -> None:
        """Name the commands.

        Args:
            *args: of click.Group.
            commands_at: command names, and "module:attribute" where each one is.
            extensions: entry point group whose names are commands as well.
            **options: of click.Group.
        """
        super().__init__(*args, **options)
        self._commands_at = commands_at or {}
        self._extensions = extensions

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all command names, sorted."""
        return sorted({*super().list_commands(ctx), *self._commands_at, *self._registered()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, imported if it has to be; None if there is no such command."""
        place = self._commands_at.get(cmd_name) or self._registered().get(cmd_name)
        command: click.Command | None = load_attribute(place) if place else super().get_command(ctx, cmd_name)
        return command

    def _registered(self) -> dict[str, str]:
        """Return names and places of the commands that packages register."""
        if self._extensions is None:
            return {}
        return {name: entry.value for name, entry in registered(self._extensions).items()}


def load_attribute(place: str) -> Any:
    """Import what "module:attribute" names."""
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


def reports_errors(interrupted: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that prints an error a user can act on as one line, and exits with 1.

    Ctrl-C exits with 130 after the message `interrupted`, which says how to resume.
    """

    def decorate(command: Callable[P, R]) -> Callable[P, R]:
        @wraps(command)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                from cache_schemas.errors import UserError

                return command(*args, **kwargs)
            except KeyboardInterrupt:  # first, since it can interrupt the import
                click.echo(f"interrupted; {interrupted}", err=True)
                sys.exit(INTERRUPTED)
            except UserError as error:
                fail(str(error))

        return wrapped

    return decorate


def text_width() -> int:
    """Return how many columns text on standard output may take: those of the terminal, 120 in a pipe or a file."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH_OUTSIDE_TERMINALS


def fail(message: str) -> NoReturn:
    """Print an error and exit with 1."""
    click.echo(f"error: {message}", err=True)
    sys.exit(FAILED)


def say(line: str) -> None:
    """Print a line of progress to standard error."""
    click.echo(line, err=True)

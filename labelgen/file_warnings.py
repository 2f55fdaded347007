"""Warnings about raw files that are used all the same, such as unknown label ids. The summary of a run shows them."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cache_schemas.plurals import counted

FilesByText = dict[str, set[str]]
"""The files that a warning is about, by the text of the warning."""

MOST_LINES = 5

_log = logging.getLogger(__name__)


def warn(file: Path, text: str) -> None:
    """Warn about a raw file. The text does not name the file: files with the same text are shown together."""
    _log.warning("%s: %s", file, text)


@contextmanager
def collecting(found: FilesByText) -> Iterator[None]:
    """Add all warnings of this process to `found`."""
    collector = _Collector(found)
    _log.addHandler(collector)
    try:
        yield
    finally:
        _log.removeHandler(collector)


class _Collector(logging.Handler):
    def __init__(self, found: FilesByText) -> None:
        super().__init__()
        self._found = found

    def emit(self, record: logging.LogRecord) -> None:
        assert isinstance(record.args, tuple)
        file, text = map(str, record.args)
        self._found.setdefault(text, set()).add(file)


def describe(found: Mapping[str, set[str]]) -> list[str]:
    """Return a line for each text, those of most files first; the last line counts texts after the first few."""
    by_count = sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
    lines = []
    for text, files in by_count[:MOST_LINES]:
        others = f" and {counted(len(files) - 1, 'other file')}" if len(files) > 1 else ""
        lines.append(f"{text} ({min(files)}{others})")
    if len(by_count) > MOST_LINES:
        lines.append(f"{counted(len(by_count) - MOST_LINES, 'more warning')}")
    return lines

"""Text from files that reaches terminals and file names: what a name may contain, and how other text is escaped.

Plain text has no control characters (a terminal executes them), no line breaks, no characters that change the
direction of writing (they can hide what a name is), and no lone surrogates (they cannot be printed).
"""

import re
from typing import Annotated

from pydantic import AfterValidator

UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""The characters that plain text does not contain."""

NO_FILE_NAMES = frozenset({"", ".", ".."})
"""Texts without a slash that still lead to another folder."""


def is_plain(text: str) -> bool:
    """Return whether the text can be shown unchanged."""
    return UNSAFE.search(text) is None


def is_file_name(text: str) -> bool:
    """Return whether the text can be the name of one file or folder, and never a path that leads elsewhere.

    Such a name is plain text without slashes, and is not empty, `.` or `..`.
    """
    return is_plain(text) and text not in NO_FILE_NAMES and "/" not in text and "\\" not in text


def printable(text: str) -> str:
    """Return the text with all characters that are not plain escaped, in Python's notation."""
    return UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def _check_plain(text: str) -> str:
    if not is_plain(text):
        raise ValueError("control characters are not allowed in a name")
    return text


def _check_file_name(text: str) -> str:
    if not is_file_name(text):
        raise ValueError(
            "this is a name, never a path: empty names, `.`, `..`, slashes and control characters are not allowed"
        )
    return text


def _check_file_name_or_nothing(text: str) -> str:
    return text and _check_file_name(text)


PlainText = Annotated[str, AfterValidator(_check_plain)]
"""A field of a document that is shown to people."""

FileName = Annotated[str, AfterValidator(_check_file_name)]
"""A field of a document that names files or folders."""

OptionalFileName = Annotated[str, AfterValidator(_check_file_name_or_nothing)]
"""A field of a document that names a file or folder, or is empty because there is none."""

EscapedText = Annotated[str, AfterValidator(printable)]
"""A field of a document that quotes what was found in files; what is not plain in it is escaped."""

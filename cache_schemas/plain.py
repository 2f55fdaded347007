"""Text out of files reaches terminals and file names: names must be plain, and all else is escaped before it is shown.

Plain text has no control characters (a terminal obeys them), no line breaks, nothing that turns the direction of
writing (it hides what a name is), and no half characters (they cannot be printed).
"""

import re
from typing import Annotated

from pydantic import AfterValidator

UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def is_plain(text: str) -> bool:
    """Tell whether text can be shown as it is."""
    return UNSAFE.search(text) is None


def is_file_name(text: str) -> bool:
    """Tell whether a file or folder can be named so: plain text with no slash in it."""
    return is_plain(text) and "/" not in text and "\\" not in text


def printable(text: str) -> str:
    """Return the text with all that is not plain escaped, as Python escapes it."""
    return UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _check_plain(text: str) -> str:
    if not is_plain(text):
        raise ValueError("control characters have no place in a name")
    return text


def _check_file_name(text: str) -> str:
    if not is_file_name(text):
        raise ValueError("slashes and control characters have no place in a name that files are called by")
    return text


PlainText = Annotated[str, AfterValidator(_check_plain)]
"""A field of a document that is shown to people."""

FileName = Annotated[str, AfterValidator(_check_file_name)]
"""A field of a document that files or folders are named by."""

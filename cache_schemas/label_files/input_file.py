"""Reading a label file that anyone may have made: a regular file of a plausible size, and nothing else."""

import os
import stat
from pathlib import Path

BYTES_PER_POINT = 64
"""More than any format needs for the label of a point."""

BYTES_BESIDE = 2**16
"""Room for headers."""


def read_label_file(file: Path, points: int) -> bytes:
    """Return the content of a file with the labels of `points` points. A link to such a file will do.

    Raises:
        OSError: if it cannot be opened or read.
        ValueError: if it is not a regular file, or far too large for so many points.
    """
    # A named pipe without a writer would block the opening.
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as opened:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is not a regular file")
        most = BYTES_PER_POINT * points + BYTES_BESIDE
        if found.st_size > most:
            raise ValueError(f"it has {found.st_size:,} bytes, too many for {points:,} points")
        return opened.read(most)

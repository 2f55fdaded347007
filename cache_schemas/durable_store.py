"""Write local files that survive a loss of power: each is on the disk before it gets its final name."""

import os
import uuid
from pathlib import Path

BytesLike = bytes | bytearray | memoryview

PARTIAL = ".partial"
"""The end of the name of a file that is not finished."""


def sync_folder(folder: str | Path) -> None:
    """Bring the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folders(folder: str | Path) -> None:
    """Bring the names in a folder and in all folders below it to the disk."""
    for path, _, _ in os.walk(folder):
        sync_folder(path)


def write_durably(path: Path, value: BytesLike) -> None:
    """Write a file; it is on the disk before it gets its name. Readers see the old content or the whole new content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        with partial.open("xb") as file:
            file.write(value)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)

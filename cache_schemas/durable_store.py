"""A local Zarr store whose files survive a loss of power: each is on the disk before it gets its final name."""

import asyncio
import os
import uuid
from pathlib import Path

from zarr.core.buffer import Buffer
from zarr.storage import LocalStore

BytesLike = bytes | bytearray | memoryview

PARTIAL = ".partial"
"""The end of the name of a file that is not finished."""


class DurableStore(LocalStore):
    """A `LocalStore` that calls fsync before it renames a file. Folders are synchronised by `sync_folders`."""

    async def _set(self, key: str, value: Buffer, exclusive: bool = False) -> None:
        self._check_writable()
        await asyncio.to_thread(write_durably, self.root / key, value.as_buffer_like(), exclusive)

    def set_sync(self, key: str, value: Buffer) -> None:
        """Write a file; readers see the old content or the whole new content, also after a loss of power."""
        self._check_writable()
        write_durably(self.root / key, value.as_buffer_like())


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


def write_durably(path: Path, value: "BytesLike", exclusive: bool = False) -> None:
    """Write a file; it is on the disk before it gets its name.

    Raises:
        FileExistsError: if it exists and `exclusive` is set.
    """
    if exclusive and path.exists():  # Zarr tries this for every parent of a new group
        raise FileExistsError(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        with partial.open("xb") as file:
            file.write(value)
            file.flush()
            os.fsync(file.fileno())
        if exclusive:
            os.link(partial, path)
        else:
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)

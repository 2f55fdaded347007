"""Reads a packed cache in place: one zip file whose members are the files of the cache, stored without compression.

The directory of the zip is read once. After that, each read is one `pread` of the member's bytes, which threads and
forked processes can do at the same time on one descriptor.
"""

import io
import os
import stat
import struct
import weakref
import zipfile
from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from cache_schemas.errors import CacheError
from cache_schemas.group_path import NO_FOLDER_NAMES
from cache_schemas.local_files import NoFileError, read_at
from cache_schemas.location import disk_error, is_packed

LARGEST_DIRECTORY_BYTES = 2**28
"""The directory of a zip is held in memory. Nothing larger is read; that of nuScenes' caches takes 6 MB."""

LOCAL_HEADER = struct.Struct("<4s22xHH")
"""The header before the bytes of a member: its signature, and the lengths of the name and extra field behind it."""

COPIED_AT_ONCE = 2**24
"""So many bytes of a member are in memory while it is copied."""

OPEN_FILES = 8
"""The directories of so many packed caches are kept in memory."""


class PackedFile:
    """The members of a packed cache, by their path in the cache."""

    def __init__(self, path: str) -> None:
        """Open the file and read its directory.

        Raises:
            CacheError: if it is no zip of stored members, or is cut short.
            StoreError: if it cannot be read.
        """
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            weakref.finalize(self, os.close, self._descriptor)
            self._bytes = os.fstat(self._descriptor).st_size
            self._place_of = _read_directory(path, self._descriptor, self._bytes)
        except OSError as error:
            raise disk_error(path, error) from error
        self.names = sorted(self._place_of)
        self._first_byte_of: dict[str, int] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Open the file again where it is unpickled."""
        return open_packed, (self.path,)

    def below(self, folder: str) -> list[str]:
        """Return the names of all members below a folder; "" is the whole cache."""
        if not folder:
            return self.names
        return self.names[bisect_left(self.names, f"{folder}/") : bisect_left(self.names, f"{folder}0")]  # "0" is "/"+1

    def size(self, name: str) -> int:
        """Return the bytes of a member.

        Raises:
            NoFileError: if there is no such member.
        """
        if name not in self._place_of:
            raise NoFileError(f"{self.path} has no member {name}")
        return self._place_of[name][1]

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytearray:
        """Return the bytes of a member from `start` to `stop` (None is the end), as far as it has them.

        A negative `start` counts from the end.

        Raises:
            NoFileError: if there is no such member.
            ValueError: if its bytes are not where the directory says.
            StoreError: if they cannot be read.
        """
        size = self.size(name)
        first = min(size, start if start >= 0 else max(0, size + start))
        last = size if stop is None else min(size, stop)
        try:
            offset = self._first_byte_of.get(name) or self._find(name)
            return read_at(self._descriptor, offset + first, offset + max(first, last))
        except OSError as error:
            raise disk_error(self.path, error) from error

    def read_ranges(self, ranges: Sequence[tuple[str, int, int | None]]) -> list[bytearray | Exception]:
        """Return the bytes of many ranges, or their errors. Members are given as `<member>` or `<file>/<member>`."""
        return [self._read_or_error(self._member(path), start, stop) for path, start, stop in ranges]

    def copy(self, path: str, target: str) -> None:
        """Copy a member, given as the full path `<file>/<member>`, to a file on the local disk.

        Raises:
            NoFileError, ValueError, StoreError: as `read` does.
            OSError: if the target cannot be written.
        """
        name = self._member(path)
        with Path(target).open("wb") as file:
            for start in range(0, self.size(name), COPIED_AT_ONCE):
                file.write(self.read(name, start, start + COPIED_AT_ONCE))

    def _member(self, path: str) -> str:
        return path.removeprefix(f"{self.path}/")

    def _read_or_error(self, name: str, start: int, stop: int | None) -> bytearray | Exception:
        try:
            return self.read(name, start, stop)
        except (NoFileError, ValueError) as error:
            return error

    def _find(self, name: str) -> int:
        """Return the offset of the first byte of a member, which is behind its own header."""
        header_at, size = self._place_of[name]
        header = bytes(read_at(self._descriptor, header_at, header_at + LOCAL_HEADER.size))
        signature, name_bytes, extra_bytes = LOCAL_HEADER.unpack(header)
        behind: int = header_at + LOCAL_HEADER.size
        stored_name = bytes(read_at(self._descriptor, behind, min(self._bytes, behind + name_bytes)))
        offset = behind + int(name_bytes) + int(extra_bytes)
        if signature != b"PK\3\4" or stored_name != name.encode() or offset + size > self._bytes:
            raise ValueError("its bytes are not where the directory of the zip says")
        self._first_byte_of[name] = offset
        return offset


def packed_error(path: str) -> CacheError:
    """Return the error of a file that was to be changed."""
    return CacheError(
        f"{path}: is a file, and only a folder or an object store can be written; unpack a packed cache with "
        f"`unzip -d FOLDER {path}`, and give that folder"
    )


def refuse_packed(location: str) -> None:
    """Check that a location is not that of a packed cache, before it is written.

    Raises:
        CacheError: if it is.
    """
    if is_packed(location):
        raise packed_error(location)


def open_packed(path: str) -> PackedFile:
    """Return the packed cache at a path, whose directory is read once in a process, until the file is replaced.

    Raises:
        CacheError: if it is no zip of stored members, or is cut short.
        StoreError: if it cannot be read.
    """
    try:
        status = Path(path).stat()
    except OSError as error:
        raise disk_error(path, error) from error
    if not stat.S_ISREG(status.st_mode):
        raise disk_error(path, OSError(0, "it is not a regular file any more"))
    return _open(path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(OPEN_FILES)
def _open(path: str, *_state: int) -> PackedFile:
    return PackedFile(path)


def _read_directory(path: str, descriptor: int, file_bytes: int) -> dict[str, tuple[int, int]]:
    """Return where the header of each member is, and the bytes of the member, by name."""
    try:
        with _BoundedReads(descriptor, closefd=False) as file, zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError, EOFError) as error:
        raise CacheError(
            f"{path}: neither the folder of a cache nor a whole packed cache ({error}); copy the file again, or pack "
            "the cache again with `labelgen pack`"
        ) from None
    place_of: dict[str, tuple[int, int]] = {}
    for member in members:
        if reason := _unfit(member, file_bytes):
            raise _not_packed(path, member.orig_filename, reason)
        if member.filename in place_of:
            raise _not_packed(path, member.filename, "it is there twice")
        place_of[member.filename] = member.header_offset, member.file_size
    return place_of


def _unfit(member: zipfile.ZipInfo, file_bytes: int) -> str:
    """Return why a member cannot be a file of a packed cache; nothing if it can."""
    name = member.orig_filename
    if not NO_FOLDER_NAMES.isdisjoint(name.split("/")) or "\\" in name or "\0" in name:
        return "its name is not the path of a file in a folder"
    if stat.S_ISLNK(member.external_attr >> 16):
        return "it is a link"
    if member.flag_bits & 1:
        return "it is encrypted"
    if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
        return "it is compressed"
    if member.header_offset < 0 or member.header_offset + LOCAL_HEADER.size + member.file_size > file_bytes:
        return "its bytes lie outside the file"
    return ""


def _not_packed(path: str, name: str, reason: str) -> CacheError:
    return CacheError(
        f"{path}: not a packed cache: its member {name[:120]!r} does not fit, since {reason}; make it again with "
        "`labelgen pack`"
    )


class _BoundedReads(io.FileIO):
    """A file of which no part is read that is larger than the largest directory."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Return bytes of the file.

        Raises:
            BadZipFile: if they are too many.
        """
        if size is not None and size > LARGEST_DIRECTORY_BYTES:
            raise zipfile.BadZipFile(f"its directory has {size:,} bytes, more than {LARGEST_DIRECTORY_BYTES:,}")
        return super().read(size) or b""

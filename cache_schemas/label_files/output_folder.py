"""The folder of an export: files appear whole, never outside the folder, and never over a file of the user."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from cache_schemas.array_storage import METADATA
from cache_schemas.errors import LabelFileError
from cache_schemas.names import is_file_name

WRITTEN = ".labelgen-written"
"""The file at the top with a line for each file that was written: the SHA-256 of its content, a space, its path."""

PARTIAL = ".partial"
"""The end of the name of a file that is not finished."""


class OutputFolder:
    """Writes files below a folder.

    A file that is there already is replaced only if it is as this class wrote it, so that corrected labels are kept.
    The folder itself may be a link; links below it are not followed.
    """

    def __init__(self, folder: Path, *, overwrite: bool = False) -> None:
        """Write below `folder`; `overwrite` replaces any file.

        Raises:
            LabelFileError: if the folder lies in a cache, or cannot be made or read.
        """
        self.folder, self._overwrite = folder, overwrite
        real = folder.resolve()
        if caches := [place for place in (real, *real.parents) if (place / METADATA).is_file()]:
            raise LabelFileError(f"{folder}: lies in the cache {caches[-1]}; give a folder outside of it")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._written = _read_log(folder / WRITTEN)
        except OSError as error:
            raise self._unwritable(error) from None

    def write(self, steps: Sequence[str], content: bytes) -> Path:
        """Write a file whole; `steps` are the names of its folders and its own. A file of equal content stays.

        Raises:
            LabelFileError: if a step is not the name of one file or folder, the file is there and is not as it was
                written, or it cannot be written.
        """
        file = self._path(steps)
        self._refuse_links_to(file)
        try:
            if file.is_symlink() or file.exists():
                found = file.read_bytes() if file.is_file() and not file.is_symlink() else None
                if found == content:
                    return file
                if not self._overwrite and (found is None or _line(found, steps) not in self._written):
                    raise LabelFileError(
                        f"{file}: is there already and was not written here, or has been changed since; give another "
                        "folder, or replace it with --overwrite"
                    )
            file.parent.mkdir(parents=True, exist_ok=True)
            partial = file.with_name(file.name + PARTIAL)
            partial.unlink(missing_ok=True)
            with partial.open("xb") as unfinished:
                unfinished.write(content)
            self._note(_line(content, steps))
            partial.replace(file)
        except OSError as error:
            raise self._unwritable(error) from None
        return file

    def _path(self, steps: Sequence[str]) -> Path:
        if paths := [name for name in steps if not is_file_name(name)]:
            raise LabelFileError(
                f"the cache calls a file {paths[0]!r}, which is not a name; make the cache again with `labelgen run`"
            )
        return self.folder.joinpath(*steps)

    def _refuse_links_to(self, file: Path) -> None:
        """Raise LabelFileError if a folder on the way to a file is a link, which could lead anywhere."""
        for number in range(1, len(file.relative_to(self.folder).parts)):
            if (place := self.folder.joinpath(*file.relative_to(self.folder).parts[:number])).is_symlink():
                raise LabelFileError(f"{place}: is a link, and files are not written through links; remove it")

    def _note(self, line: str) -> None:
        """Write down what is about to be written, so that the next command knows the file."""
        if line not in self._written:
            log_file = os.open(self.folder / WRITTEN, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            with os.fdopen(log_file, "a", encoding="utf-8") as log:
                log.write(f"{line}\n")
            self._written.add(line)

    def _unwritable(self, error: OSError) -> LabelFileError:
        return LabelFileError(
            f"{error.filename or self.folder}: cannot be written ({error.strerror}); give another folder"
        )


def _line(content: bytes, steps: Sequence[str]) -> str:
    return f"{hashlib.sha256(content).hexdigest()} {'/'.join(steps)}"


def _read_log(file: Path) -> set[str]:
    if file.is_symlink() or (file.exists() and not file.is_file()):
        raise LabelFileError(f"{file}: is not a regular file; remove it")
    return set(file.read_text(encoding="utf-8", errors="replace").splitlines()) if file.exists() else set()

"""Copies the arrays that a training reads to a disk of its node, so that it reads the store only once.

An array's file is `<folder>/<shard>/<group>-<digest of its seal>/<array>`. A group that is made again has another
seal, and so another place: old and new content never mix, and trainings on several caches may share the folder.
"""

import errno
import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from cache_schemas.documents import ArraySeal, GroupSeal
from cache_schemas.errors import CacheError, DamagedGroupError
from cache_schemas.group_path import GroupPath
from cache_schemas.layout import AnyArray
from cache_schemas.location import canonical, is_url
from cache_schemas.row_reader import ArrayFile, RowReader, Span, StoredArray
from trainer.errors import TrainerError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class LocalCopy:
    """Reads rows as `RowReader` does, from copies in a local folder; it makes those that are not there yet.

    Keys of arrays are `<shard>/<group>/<array>`.
    """

    def __init__(self, folder: Path, source: RowReader, seals: Mapping[GroupPath, GroupSeal]) -> None:
        """Copy into `folder` what `source` reads; `seals` are those of all groups.

        Raises:
            TrainerError: if the folder is not private, lies in the cache, or cannot be written.
        """
        self._folder = Path(os.path.abspath(folder))  # noqa: PTH100  # `resolve` would follow a link
        self._source, self._seals = source, seals
        if not is_url(source.url) and Path(os.path.realpath(folder)).is_relative_to(canonical(source.url)):
            raise TrainerError(f"stream.local_copy: {folder}: lies in the cache itself; give a folder outside it")
        self._make_private_folder()
        self._reader = RowReader(str(self._folder))

    def open(
        self, files: Mapping[str, ArrayFile], whole: Collection[str] = ()
    ) -> tuple[dict[str, StoredArray], dict[str, AnyArray]]:
        """Return what `RowReader.open` returns, of the copies of these files.

        Raises:
            CacheError: if a file cannot be copied, or is not the one that was sealed.
            TrainerError: if the disk is full, the folder cannot be written, or a copy in it is damaged.
        """
        copies = {key: replace(array, file=str(self._place(key))) for key, array in files.items()}
        shards = sorted({key.split("/")[0] for key in self._missing(copies)})
        if shards:
            self._make_private_folder()  # each node has its own
            with self._errors_of_the_disk(), ExitStack() as stack:
                for shard in shards:  # in one order, so that no two processes wait for each other
                    stack.enter_context(self._locked(shard))
                self._copy(files, copies, self._missing(copies))
        with self._damage_explained():
            return self._reader.open(copies, whole)

    def read(self, spans: Sequence[Span]) -> list[AnyArray]:
        """Return the values of each span of arrays from `open`.

        Raises:
            TrainerError: if the copy is damaged.
        """
        with self._damage_explained():
            return self._reader.read(spans)

    def _place(self, key: str) -> Path:
        shard, group, name = key.split("/")
        seal = json.dumps(self._seals[GroupPath(shard, group)].to_attrs(), sort_keys=True)
        return self._folder / shard / f"{group}-{hashlib.sha256(seal.encode()).hexdigest()[:16]}" / name

    def _sealed(self, key: str) -> ArraySeal:
        shard, group, name = key.split("/")
        return self._seals[GroupPath(shard, group)].arrays[name]

    def _missing(self, copies: Mapping[str, ArrayFile]) -> list[str]:
        """Return the keys of arrays whose copy is absent or has another size than the sealed one."""
        with self._errors_of_the_disk():
            return [key for key, array in copies.items() if not array.is_empty and not self._is_whole(key, array.file)]

    def _is_whole(self, key: str, file: str) -> bool:
        try:
            size = Path(file).stat().st_size
        except FileNotFoundError:
            return False
        return self._sealed(key).bytes in (None, size)  # seals of version 1 do not tell the size

    def _copy(self, files: Mapping[str, ArrayFile], copies: Mapping[str, ArrayFile], keys: Sequence[str]) -> None:
        """Copy files at once; each gets its name when it is known to be the one that was sealed."""
        partial = {key: replace(copies[key], file=f"{copies[key].file}.partial") for key in keys}
        for array in partial.values():
            Path(array.file).parent.mkdir(mode=0o700, exist_ok=True)
        try:
            self._source.copy_files({files[key].file: array.file for key, array in partial.items()})
            for key, array in partial.items():
                self._check(key, array)
                Path(array.file).replace(copies[key].file)
        finally:
            for array in partial.values():
                Path(array.file).unlink(missing_ok=True)

    def _check(self, key: str, copy: ArrayFile) -> None:
        """Raise CacheError if a copied file does not have the size and the values that were sealed."""
        sealed, found = self._sealed(key), ""
        if self._is_whole(key, copy.file):
            try:
                found = self._reader.checksum(self._reader.open({key: copy})[0][key])
            except DamagedGroupError:
                found = ""
        if found != sealed.crc32c:
            raise CacheError(
                f"{self._source.url}/shards/{key}: damaged (what was copied to {self._folder} is not what was sealed); "
                "`labelgen verify` lists all damage"
            )

    @contextmanager
    def _locked(self, shard: str) -> Iterator[None]:
        """Hold the lock of a shard's copies; other processes of the node wait for it."""
        (self._folder / shard).mkdir(mode=0o700, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._folder / shard / ".lock", flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _make_private_folder(self) -> None:
        """Make the folder, or check that no other user can write into it: others could replace what is trained on."""
        with self._errors_of_the_disk():
            self._folder.parent.mkdir(parents=True, exist_ok=True)
            self._folder.mkdir(mode=0o700, exist_ok=True)
            status = self._folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise TrainerError(
                f"stream.local_copy: {self._folder}: is a link, belongs to another user, or others may write into it; "
                "give a folder that is yours alone, such as a new one"
            )

    @contextmanager
    def _errors_of_the_disk(self) -> Iterator[None]:
        try:
            yield
        except (OSError, CacheError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            if isinstance(cause, OSError) and cause.errno in FULL:
                raise TrainerError(
                    f"stream.local_copy: {self._folder}: its disk is full ({cause.strerror}); free some of it, or give "
                    "a folder on a larger disk, then continue with --resume"
                ) from None
            if isinstance(error, CacheError):
                raise
            raise TrainerError(
                f"stream.local_copy: {self._folder}: nothing can be copied there ({error}); give another folder"
            ) from None

    @contextmanager
    def _damage_explained(self) -> Iterator[None]:
        try:
            yield
        except CacheError as error:
            what = str(error).partition("; remove")[0]
            raise TrainerError(
                f"stream.local_copy: {what}; the copy changed since it was made: check the disk, remove "
                f"{self._folder}, then continue with --resume"
            ) from None

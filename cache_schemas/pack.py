"""Packs a cache into one file: a zip of its files, stored as they are, that is checked before it gets its name."""

import fcntl
import os
import stat
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

from cache_schemas.audit import audit
from cache_schemas.audit_files import stray_files
from cache_schemas.cache_files import CacheFiles, files_at
from cache_schemas.card_files import refuse_old_card
from cache_schemas.documents import CacheManifest
from cache_schemas.durable_store import sync_folder
from cache_schemas.errors import CacheError
from cache_schemas.group_path import LOCKS, SUMMARY
from cache_schemas.location import canonical, is_packed, is_url
from cache_schemas.problems import Problem, ProblemKind
from cache_schemas.store import Cache
from cache_schemas.validate import value_problems

FILES_AT_ONCE = 16

NOT_OF_THE_CACHE = (ProblemKind.STRAY_FILE, ProblemKind.UNRELATED_FILE)
"""Files with these problems are not packed."""

Progress = Callable[[str, int, int], None]
"""Called with the name of the present step, what is done of it, and its total."""


def pack(url: str, file: Path, progress: Progress = lambda *_: None) -> int:
    """Write the cache at `url` into one `file`, which must not exist; returns its bytes.

    The bytes of the file depend on the cache alone. It is written once, from its start to its end, as `<file>.part`;
    then all of it is read and compared with the seals, and it gets its name. Locks, the summary of the last run, and
    files that the cache format does not have are left out.

    Raises:
        CacheError: if the cache is incomplete, damaged or packed, its card describes another state, or the file exists,
            lies in the cache or cannot be written. `<file>.part` is removed then.
    """
    cache, manifest = Cache.open(url)
    if is_packed(url):
        raise CacheError(f"{url}: is packed already; copy this file")
    try:
        _refuse_place(file, url)
        _refuse_incomplete(cache, manifest)
        refuse_old_card(cache, manifest)
        part = file.with_name(f"{file.name}.part")
        with _opened_alone(part) as opened:
            _write(cache, files_at(url), opened, progress)
            _check(str(part), url, progress)
            _refuse_place(file, url)
            part.replace(file)
        sync_folder(file.absolute().parent)
    except OSError as error:
        raise CacheError(
            f"{file}: cannot be written ({error.strerror or error}); free some space, or choose another place"
        ) from error
    return file.stat().st_size


def _refuse_place(file: Path, url: str) -> None:
    if file.exists():
        raise CacheError(f"{file}: exists; remove it, or choose another file")
    if not is_url(url) and Path(os.path.realpath(file)).is_relative_to(canonical(url)):
        raise CacheError(f"{file}: lies in the cache that is packed, which has no such file; choose a place outside it")


@contextmanager
def _opened_alone(part: Path) -> Iterator[BinaryIO]:
    """Open an empty file for this process alone, and remove it at the end. What a killed run left is used again.

    Raises:
        CacheError: if another process writes the file, or it is a link, no regular file, or one of another user.
    """
    if part.is_symlink():
        raise CacheError(f"{part}: a link; remove it, or choose another place")
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(part, flags, 0o666), "r+b") as opened:
        status = os.fstat(opened.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_nlink > 1:
            raise CacheError(f"{part}: not a file that is yours alone; remove it, or choose another place")
        if not _locked(opened) or not part.exists() or not os.path.samestat(status, part.lstat()):
            raise CacheError(f"{part}: another `labelgen pack` writes it; wait for its end, or choose another file")
        try:
            opened.truncate()
            yield opened
        finally:
            with suppress(OSError):
                part.unlink()


def _locked(opened: BinaryIO) -> bool:
    """Lock a file, and tell whether no other process holds its lock."""
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network file systems have no locks
        return True
    return True


def _refuse_incomplete(cache: Cache, manifest: CacheManifest) -> None:
    """Check the documents of a cache and the sizes of its files, before anything is written."""
    problems: list[Problem] = []
    samples = 0
    for part in audit(cache, manifest):
        problems += [problem for problem in part.problems if problem.kind not in NOT_OF_THE_CACHE]
        samples += len(part.record.samples) if part.record else 0
    if problems:
        more = f" (and {len(problems) - 1} more; `labelgen verify` lists all)" if len(problems) > 1 else ""
        raise CacheError(f"{cache.url}: incomplete or damaged, so it is not packed{more}: {problems[0]}")
    if not samples:
        raise CacheError(f"{cache.url}: holds no sample; run the same `labelgen run` command until it has finished")


def _write(cache: Cache, files: CacheFiles, opened: BinaryIO, progress: Progress) -> None:
    sizes = cache.file_sizes()
    left_out = {path for path, _ in stray_files(sizes)} | {*LOCKS, SUMMARY}
    names = sorted(sizes.keys() - left_out)
    total, done = sum(sizes[name] or 0 for name in names), 0
    with zipfile.ZipFile(opened, "w", zipfile.ZIP_STORED) as archive:
        for name, content in _contents(cache, files, names):
            archive.writestr(_member(name), content)
            done += len(content)
            progress("packing", done, total)
    opened.flush()
    os.fsync(opened.fileno())


def _contents(cache: Cache, files: CacheFiles, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the names and contents of files in their order; those of one shard are read at once, and held in memory."""

    def read(name: str) -> bytes:
        try:
            return files.content(name)
        except (FileNotFoundError, ValueError) as error:
            raise _changed(cache.url, f"{name}: {getattr(error, 'strerror', None) or error}") from error

    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        for _, of_shard in groupby(names, key=lambda name: name.split("/")[:2]):
            some = list(of_shard)
            yield from zip(some, pool.map(read, some), strict=True)


def _member(name: str) -> zipfile.ZipInfo:
    """Return the entry of a file in the zip: with the time and mode that all have."""
    member = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    member.create_system = 3  # Unix, so that the mode counts
    member.external_attr = 0o100644 << 16
    return member


def _check(part: str, url: str, progress: Progress) -> None:
    """Read all of a packed cache.

    Raises:
        CacheError: if it is not sound: the cache was damaged, or it was changed while it was packed.
    """
    packed, manifest = Cache.open(part)
    total = 1 + len(packed.shard_keys())
    for number, shard in enumerate(audit(packed, manifest), start=1):
        for problem in (*shard.problems, *value_problems(packed, manifest, shard)):
            raise _changed(url, str(problem))
        progress("checking", number, total)


def _changed(url: str, found: str) -> CacheError:
    return CacheError(
        f"{url}: damaged, or changed while it was packed, so it is not packed: {found}; if a run writes the "
        "cache, wait for its end"
    )

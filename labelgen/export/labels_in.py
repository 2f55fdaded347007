"""Take label files back into a cache, as a second source of labels with a name of its own."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_schemas.documents import CacheManifest, LabelOrigin, Provenance, ShardRecord
from cache_schemas.errors import LabelFileError
from cache_schemas.group_path import GroupPath
from cache_schemas.label_files.formats import point_format
from cache_schemas.label_files.input_file import read_label_file
from cache_schemas.label_files.point_format import PointFormat
from cache_schemas.layout import SOURCE_PREFIX
from cache_schemas.lock import run_lock
from cache_schemas.store import Cache
from cache_schemas.taxonomy import IGNORE
from labelgen.export.labels_out import Track
from labelgen.export.shards import FinishedShards, cloud_names, find_finished

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
RESERVED = {"instances": "by instances", "time": "over time"}
"""With these names, trainings choose cached labels of another kind."""


@dataclass
class Imported:
    """What was taken into the cache.

    Attributes:
        name, format, folder: the source, and what its files were.
        shards: how many got labels.
        clouds, clouds_without_file: how many of the clouds in finished shards had a file, and how many had none.
        points, labelled: the points of clouds with a file, and those with a label.
        compared, equal: the points with a label here and in the cache, and those where both are the same.
        unknown_ids: ids in the files that the format does not have; their points have no label.
    """

    name: str
    format: str
    folder: str
    shards: int = 0
    clouds: int = 0
    clouds_without_file: int = 0
    points: int = 0
    labelled: int = 0
    compared: int = 0
    equal: int = 0
    unknown_ids: list[int] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON-ready object that `--json` prints."""
        return asdict(self)

    def __str__(self) -> str:
        equal = f"{100 * self.equal / self.compared:.1f} %" if self.compared else "none"
        missing = f"; {self.clouds_without_file:,} clouds have no file" if self.clouds_without_file else ""
        unknown = f"; unknown ids, taken as no label: {', '.join(map(str, self.unknown_ids))}"
        return (
            f"source {self.name}: {self.clouds:,} clouds of {self.shards:,} shards, {self.labelled:,} of "
            f"{self.points:,} points have a label; {equal} of {self.compared:,} are as in the cache{missing}"
            + (unknown if self.unknown_ids else "")
        )


def import_labels(
    url: str, folder: Path, file_format: str, name: str, *, overwrite: bool = False, track: Track = lambda keys: keys
) -> Imported:
    """Store the labels in `folder` as source `name` of a cache; all files are checked before the first is stored.

    A shard without any file gets no labels of this source. In others, clouds without a file have no label.

    Raises:
        CacheError: if the cache cannot be read or written, another run writes to it, the format does not fit it, the
            source is there already and `overwrite` is not set, or a file is malformed or of another length.
    """
    if not NAME.fullmatch(name):
        raise LabelFileError(
            f"--name {name!r}: not a name for a source; use at most 64 lower-case letters, digits, - and _"
        )
    if name in RESERVED:
        raise LabelFileError(f"--name {name}: reserved for the cached labels {RESERVED[name]}; choose another one")
    Cache.open(url)
    with run_lock(url):
        cache, manifest = Cache.open(url, "a")
        points = point_format(file_format, manifest.taxonomy)
        shards = find_finished(cache, ("points", "labels"))
        sources = [GroupPath(key, SOURCE_PREFIX + name) for key in cache.shard_keys()]
        present = cache.seals(sources)
        if present and not overwrite:
            raise LabelFileError(
                f"{url}: has labels of source {name!r} already; give another --name, or replace them with --overwrite"
            )
        with_files = _check_files(cache, manifest, shards, points, folder)
        for path in present:
            cache.remove_group(path)
        imported = Imported(name, file_format, str(folder))
        for key in track(with_files):
            _store(cache, manifest, key, shards.records[key], points, imported)
        imported.clouds_without_file = sum(len(r.samples) for r in shards.records.values()) - imported.clouds
    return imported


def _check_files(
    cache: Cache, manifest: CacheManifest, shards: FinishedShards, points: PointFormat, folder: Path
) -> list[str]:
    """Read all files, and return the keys of the shards that have one."""
    found = []
    for key, record in shards.records.items():
        if any(official is not None for official, _ in _read_shard(cache, manifest, key, record, points, folder)):
            found.append(key)
    if not found:
        record = next(iter(shards.records.values()))
        expected = folder.joinpath(*points.label_file(cloud_names(manifest, record)[0]))
        raise LabelFileError(
            f"{folder}: has no label file of this cache; the first would be {expected}; give the folder of an export"
        )
    return found


def _read_shard(
    cache: Cache, manifest: CacheManifest, key: str, record: ShardRecord, points: PointFormat, folder: Path
) -> list[tuple[NDArray[np.int64] | None, int]]:
    """Return the official ids (P,) of each cloud of a shard, None without a file, and its number of points."""
    ends = cache.read(GroupPath(key, "points"), "offsets")["offsets"]
    read = []
    for name, count in zip(cloud_names(manifest, record), np.diff(ends).tolist(), strict=True):
        files = (folder.joinpath(*steps) for steps in points.places(name))
        official = next((ids for file in files if (ids := _read_file(file, points, count)) is not None), None)
        read.append((official, count))
    return read


def _read_file(file: Path, points: PointFormat, count: int) -> NDArray[np.int64] | None:
    """Return the official ids (P,) in a file, or None if there is no such file."""
    try:
        official = points.unpack(read_label_file(file, count))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LabelFileError(f"{file}: cannot be read ({error.strerror}); make it readable") from None
    except (ValueError, EOFError, OverflowError, MemoryError) as error:
        raise LabelFileError(f"{file}: not a label file of format {points.name} ({error}); restore it") from None
    if len(official) != count:
        raise LabelFileError(
            f"{file}: has labels of {len(official):,} points, its cloud has {count:,}; labels must be of every point "
            "of the cloud, in its order"
        )
    return official


def _store(
    cache: Cache, manifest: CacheManifest, key: str, record: ShardRecord, points: PointFormat, imported: Imported
) -> None:
    """Write the group of one shard, and count it."""
    read = _read_shard(cache, manifest, key, record, points, Path(imported.folder))
    labels = _join(read, points)
    for official, count in read:
        if official is not None:
            imported.clouds += 1
            imported.points += count
            imported.unknown_ids = sorted({*imported.unknown_ids, *points.ids.unknown(official)})
    cached = cache.read(GroupPath(key, "labels"), "point")["point"]
    both = (labels != IGNORE) & (cached != IGNORE)
    imported.shards += 1
    imported.labelled += int(np.count_nonzero(labels != IGNORE))
    imported.compared += int(np.count_nonzero(both))
    imported.equal += int(np.count_nonzero(labels[both] == cached[both]))
    upstream = GroupPath(key, "points")
    provenance = Provenance(
        fingerprint=hashlib.sha256(f"{points.name} ".encode() + labels.tobytes()).hexdigest(),
        upstream={"points": cache.seals([upstream])[upstream].fingerprint},
        samples=record.samples,
        counts={"clouds": sum(official is not None for official, _ in read)},
        origin=LabelOrigin(
            format=points.name,
            folder=imported.folder,
            imported=datetime.now(UTC).isoformat(timespec="seconds"),
            software=f"labelgen {version('labelgen')}",
        ),
    )
    cache.write_group(GroupPath(key, SOURCE_PREFIX + imported.name), {"point": labels}, provenance)


def _join(read: Sequence[tuple[NDArray[np.int64] | None, int]], points: PointFormat) -> NDArray[np.uint8]:
    """Return the labels (P,) of a shard's points."""
    parts = [
        np.full(count, IGNORE, np.uint8) if official is None else points.ids.decode(official)
        for official, count in read
    ]
    return np.concatenate(parts)

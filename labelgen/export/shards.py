"""What an export reads of a cache: its finished shards, and the clouds and calibration in them."""

import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cache_schemas.documents import CacheManifest, ShardRecord
from cache_schemas.errors import CacheError
from cache_schemas.group_path import GroupPath
from cache_schemas.label_files.point_format import CloudCalibration, CloudName, LabelledCloud
from cache_schemas.store import Cache


@dataclass(frozen=True)
class FinishedShards:
    """The records of the shards that have all groups asked for, by key, and what was left out.

    `quarantined` counts samples that the cache left out, and `unfinished` counts shards without one of the groups.
    """

    records: dict[str, ShardRecord]
    quarantined: int
    unfinished: int


def find_finished(cache: Cache, groups: Sequence[str], pattern: str = "*") -> FinishedShards:
    """Return the shards whose key matches a pattern, as of the shell, and that hold these groups.

    Raises:
        CacheError: if there is none.
    """
    keys = [key for key in cache.shard_keys() if fnmatch.fnmatchcase(key, pattern)]
    records = cache.shard_records(keys)
    held = {key: record for key, record in records.items() if record.samples}
    seals = cache.whole_seals(GroupPath(key, group) for key in held for group in groups)
    finished = {
        key: record
        for key, record in held.items()
        if all((seal := seals.get(GroupPath(key, group))) and seal.samples == record.samples for group in groups)
    }
    if not finished:
        where = "no shard" if pattern == "*" else f"no shard that matches {pattern!r}"
        wanted = f"the group {groups[0]}" if len(groups) == 1 else f"all of the groups {', '.join(groups)}"
        raise CacheError(
            f"{cache.url}: {where} has {wanted}; make it with `labelgen run`, or ask for what the cache has"
        )
    quarantined = sum(len(record.quarantined) for record in records.values())
    empty = sum(bool(record.quarantined) and not record.samples for record in records.values())
    return FinishedShards(finished, quarantined, len(keys) - len(finished) - empty)


def cloud_names(manifest: CacheManifest, record: ShardRecord) -> list[CloudName]:
    """Return the names of a shard's clouds, in the order of its samples."""
    clouds = record.clouds or ("",) * len(record.samples)
    return [
        CloudName(manifest.split_of(record), record.scene, token, cloud)
        for token, cloud in zip(record.samples, clouds, strict=True)
    ]


def read_clouds(cache: Cache, key: str, names: Sequence[CloudName], labels: str) -> Iterator[LabelledCloud]:
    """Yield the clouds of a shard that have points; `labels` is the array of the group `labels` to take."""
    points = cache.read(GroupPath(key, "points"))
    ids = cache.read(GroupPath(key, "labels"), labels)[labels]
    for index, name in enumerate(names):
        rows = slice(*points["offsets"][index : index + 2].tolist())
        if rows.stop > rows.start:
            optional = {own: points[own][rows] for own in ("intensity", "colour") if own in points}
            yield LabelledCloud(name, ids[rows], points["xyz"][rows], **optional)


def read_calibration(cache: Cache, key: str, names: Sequence[CloudName]) -> list[CloudCalibration]:
    """Return the calibration of a shard's clouds; that of the first image of each sample."""
    images = cache.read(GroupPath(key, "images"), "offsets", "cam_from_cloud", "intrinsics")
    path = GroupPath(key, "points")
    known = "world_from_cloud" in cache.seals([path])[path].arrays
    poses = cache.read(path, "world_from_cloud")["world_from_cloud"] if known else [None] * len(names)
    calibration = []
    for index, name in enumerate(names):
        first, end = images["offsets"][index : index + 2].tolist()
        seen = end > first
        calibration.append(
            CloudCalibration(
                name,
                poses[index],
                images["cam_from_cloud"][first] if seen else None,
                images["intrinsics"][first] if seen else None,
            )
        )
    return calibration

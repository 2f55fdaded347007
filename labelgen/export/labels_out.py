"""Write the labels of a cache in a format."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cache_schemas.documents import CacheManifest
from cache_schemas.label_files.formats import POINT_FORMATS, point_format
from cache_schemas.label_files.output_folder import OutputFolder
from cache_schemas.label_files.point_format import CloudCalibration, PointFormat
from cache_schemas.store import Cache
from cache_schemas.taxonomy import IGNORE
from labelgen.export.coco_panoptic import CocoPanoptic
from labelgen.export.shards import FinishedShards, cloud_names, find_finished, read_calibration, read_clouds

FORMATS = (*POINT_FORMATS, CocoPanoptic.name)
"""All formats of `labelgen export`."""

Kind = Literal["raw", "refined"]
"""Labels before the vote in masks, or after it."""

Track = Callable[[Iterable[str]], Iterable[str]]
"""Passes the keys of shards on, and shows how many were taken."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        format, labels, folder: what, of which labels, and where.
        shards, samples, files: how many were exported and written.
        unit: what has a label: points or pixels.
        labelled, unlabelled: how many of them have a label, and how many have none.
        quarantined, unfinished: samples and shards of the cache that are not in the export.
    """

    format: str
    labels: Kind
    folder: str
    shards: int
    samples: int
    files: int
    unit: str
    labelled: int
    unlabelled: int
    quarantined: int
    unfinished: int

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON-ready object that `--json` prints."""
        return asdict(self)

    def __str__(self) -> str:
        left_out = [
            f"{count} {what}"
            for count, what in ((self.quarantined, "quarantined samples"), (self.unfinished, "unfinished shards"))
            if count
        ]
        return (
            f"{self.folder}: {self.samples:,} samples of {self.shards:,} shards as {self.format}, {self.files:,} "
            f"files; {self.labels} labels, {self.unlabelled:,} of {self.labelled + self.unlabelled:,} {self.unit} "
            "have none" + (f"; left out: {', '.join(left_out)}" if left_out else "")
        )


@dataclass
class _Tally:
    """Counts of what was written so far."""

    samples: int = 0
    files: int = 0
    labelled: int = 0
    unlabelled: int = 0


def export_labels(
    url: str,
    file_format: str,
    folder: Path,
    *,
    labels: Kind = "refined",
    pattern: str = "*",
    overwrite: bool = False,
    track: Track = lambda keys: keys,
) -> Exported:
    """Write the labels of the finished shards of a cache that match `pattern`, in one of `FORMATS`, below `folder`.

    Raises:
        CacheError: if the cache cannot be read or has nothing to export, the format does not fit it, a file of the
            user would be replaced, or `folder` cannot be written.
    """
    cache, manifest = Cache.open(url)
    if file_format == CocoPanoptic.name:
        panoptic = CocoPanoptic(manifest)
        shards = find_finished(cache, CocoPanoptic.groups, pattern)
        tally, unit = _write_pictures(cache, shards, panoptic, OutputFolder(folder, overwrite=overwrite), labels, track)
    else:
        points = point_format(file_format, manifest.taxonomy)
        shards = find_finished(cache, ("images", "points", "labels"), pattern)
        _check_names(manifest, shards, points)
        output = OutputFolder(folder, overwrite=overwrite)
        tally, unit = _write_points(cache, manifest, shards, points, output, labels, track)
    return Exported(
        file_format,
        labels,
        str(folder),
        len(shards.records),
        tally.samples,
        tally.files,
        unit,
        tally.labelled,
        tally.unlabelled,
        shards.quarantined,
        shards.unfinished,
    )


def _check_names(manifest: CacheManifest, shards: FinishedShards, points: PointFormat) -> None:
    """Raise LabelFileError before anything is written if a cloud has no name in the format."""
    for record in shards.records.values():
        for name in cloud_names(manifest, record):
            points.label_file(name)


def _write_points(
    cache: Cache,
    manifest: CacheManifest,
    shards: FinishedShards,
    points: PointFormat,
    output: OutputFolder,
    labels: Kind,
    track: Track,
) -> tuple[_Tally, str]:
    tally = _Tally()
    scenes: dict[str, list[CloudCalibration]] = {}
    for key in track(shards.records):
        record = shards.records[key]
        names = cloud_names(manifest, record)
        scenes.setdefault(record.scene, []).extend(read_calibration(cache, key, names))
        for cloud in read_clouds(cache, key, names, "point" if labels == "refined" else "point_raw"):
            for steps, content in points.files_of_cloud(cloud):
                output.write(steps, content)
                tally.files += 1
            tally.samples += 1
            tally.unlabelled += int(np.count_nonzero(cloud.labels == IGNORE))
            tally.labelled += int(np.count_nonzero(cloud.labels != IGNORE))
    splits = dict.fromkeys(manifest.split_of(record) for record in shards.records.values())
    once = [file for clouds in scenes.values() for file in points.files_of_scene(clouds)]
    once += [file for split in splits for file in points.files_of_split(split)]
    for steps, content in once:
        output.write(steps, content)
        tally.files += 1
    return tally, "points"


def _write_pictures(
    cache: Cache, shards: FinishedShards, panoptic: CocoPanoptic, output: OutputFolder, labels: Kind, track: Track
) -> tuple[_Tally, str]:
    tally = _Tally()
    for key in track(shards.records):
        for steps, content in panoptic.files_of_shard(
            cache, key, shards.records[key], "image" if labels == "refined" else "image_raw"
        ):
            output.write(steps, content)
            tally.files += 1
        tally.samples += len(shards.records[key].samples)
    for steps, content in panoptic.documents():
        output.write(steps, content)
        tally.files += 1
    tally.labelled, tally.unlabelled = panoptic.labelled, panoptic.unlabelled
    return tally, "pixels"

"""The three kinds of class ids of ScanNet, and their map to the 20 classes of the benchmark.

- nyu40 ids: the property `label` of `_vh_clean_2.labels.ply`, and the label pictures of frames_25k;
- raw ids: the pictures of `_2d-label-filt.zip`; the column `id` of scannetv2-labels.combined.tsv;
- raw names: `.aggregation.json`; the column `raw_category`.

The kind follows from the file. The values do not tell it: nearly all raw ids up to 40 mean another class as nyu40.
"""

import csv
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_schemas.taxonomy import IGNORE
from labelgen.errors import DatasetError
from labelgen.file_warnings import warn
from labelgen.samples import unreadable

LABEL_MAP = "scannetv2-labels.combined.tsv"
COLUMNS = ("id", "raw_category", "nyu40id")
NYU40_OF_CLASS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36, 39)
"""The nyu40 ids of the 20 classes of the benchmark, in its order."""

NYU40_IDS = 41
"""nyu40 ids are 0 (unlabelled) to 40."""


@dataclass(frozen=True)
class LabelMap:
    """nyu40 ids by raw id and by raw name."""

    of_id: dict[int, int]
    of_name: dict[str, int]


def classes_of_nyu40(ids: NDArray[Any], file: Path) -> NDArray[np.uint8]:
    """Return the class (...) u8 of nyu40 ids (...); 255 for ids outside the 20 classes. It warns of unknown ids."""
    table = np.full(NYU40_IDS, IGNORE, np.uint8)
    table[list(NYU40_OF_CLASS)] = np.arange(len(NYU40_OF_CLASS))
    known = (ids >= 0) & (ids < NYU40_IDS)
    _warn_of_unknown("nyu40 ids", ids[~known], file)
    return np.asarray(np.where(known, table[np.where(known, ids, 0)], np.uint8(IGNORE)))


def classes_of_raw_ids(ids: NDArray[Any], labels: LabelMap, file: Path) -> NDArray[np.uint8]:
    """Return the class (...) u8 of raw ids (...); 255 for ids outside the 20 classes. It warns of unknown ids."""
    found, inverse = np.unique(ids, return_inverse=True)
    nyu40 = [labels.of_id.get(int(raw), 0) for raw in found]
    _warn_of_unknown("raw ids", found[[raw not in labels.of_id and raw != 0 for raw in found]], file)
    return classes_of_nyu40(np.array(nyu40, np.int64), file)[inverse].reshape(ids.shape)


def classes_of_groups(
    groups: list[tuple[str, list[int]]], segments: NDArray[np.int64], labels: LabelMap, file: Path
) -> NDArray[np.uint8]:
    """Return the class (P,) u8 of vertices from annotated groups; 255 for vertices of no group.

    Args:
        groups: the raw name and the segments of each object; a later one overwrites an earlier one.
        segments: (P,) the segment of each vertex.
        labels: the label map.
        file: the file of the groups, for messages.
    """
    nyu40_of_segment: dict[int, int] = {}
    for name, members in groups:
        nyu40_of_segment.update(dict.fromkeys(members, labels.of_name.get(name, 0)))
    _warn_of_unknown("names", np.array(sorted({name for name, _ in groups} - labels.of_name.keys())), file)
    found, inverse = np.unique(segments, return_inverse=True)
    nyu40 = np.array([nyu40_of_segment.get(int(segment), 0) for segment in found], np.int64)
    return classes_of_nyu40(nyu40, file)[inverse]


def _warn_of_unknown(kind: str, unknown: NDArray[Any], file: Path) -> None:
    if unknown.size:
        values = ", ".join(map(str, np.unique(unknown)[:5]))
        warn(file, f"unknown {kind} {values}; what they mark counts as unlabelled")


def read_label_map(file: Path) -> LabelMap:
    """Read scannetv2-labels.combined.tsv. If an id has several rows, the last one counts, as in the official scripts.

    Raises:
        DatasetError: if the file is missing or is another table.
        SourceError: if it cannot be read.
    """
    try:
        return _label_map(file, file.stat().st_mtime_ns)
    except FileNotFoundError:
        raise DatasetError(
            f"{file}: no such file; it tells what raw label ids mean; get it with --label_map of the official script"
        ) from None
    except OSError as error:
        raise unreadable(file, error) from None


@lru_cache(maxsize=1)
def _label_map(file: Path, _changed_ns: int) -> LabelMap:
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            rows = list(csv.DictReader(opened, delimiter="\t"))
        found = [(int(row["id"]), row["raw_category"], int(row["nyu40id"])) for row in rows]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise DatasetError(
            f"{file}: not the table with the columns {', '.join(COLUMNS)} ({error!r}); download it again"
        ) from None
    return LabelMap({raw: nyu40 for raw, _, nyu40 in found}, {name: nyu40 for _, name, nyu40 in found})

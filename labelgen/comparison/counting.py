"""Score the labels of several caches against truth: each alone, and where all of them have a label."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cache_schemas.errors import CacheError
from cache_schemas.group_path import SHARDS, GroupPath
from cache_schemas.plurals import counted
from cache_schemas.scoring import Scores, confusion_matrix, json_number, score
from cache_schemas.store import Cache
from cache_schemas.taxonomy import IGNORE, Taxonomy
from labelgen.comparison.calibration import Calibration
from labelgen.comparison.cost import seconds_per_sample
from labelgen.export.shards import find_finished
from labelgen.presets import preset_of

Target = Literal["image", "point"]

TARGETS: tuple[Target, ...] = ("image", "point")


@dataclass
class TargetCounts:
    """Labels of pixels, or of points, of one cache.

    `labelled` of `elements` have a label. `own` (C, C) is the confusion matrix of all of them with truth, `common`
    (C, C) that of those which have a label in all caches; None where the caches differ in size. `calibration` is None
    without stored confidence.
    """

    classes: int
    elements: int = 0
    labelled: int = 0
    own: NDArray[np.int64] = field(init=False)
    common: NDArray[np.int64] | None = field(init=False)
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        """Begin with nothing."""
        self.own = np.zeros((self.classes, self.classes), np.int64)
        self.common = np.zeros_like(self.own)

    @property
    def coverage(self) -> float:
        """The share of elements with a label, NaN of none."""
        return self.labelled / self.elements if self.elements else float("nan")

    def add(
        self, ids: NDArray[np.uint8], truth: NDArray[np.uint8] | None, confidence: NDArray[np.uint8] | None
    ) -> None:
        """Add the labels of a shard, with its truth and their confidence if there are any."""
        has_label = ids != IGNORE
        self.elements += ids.size
        self.labelled += int(has_label.sum())
        if truth is None:
            return
        self.own += confusion_matrix(truth, ids, self.classes)
        if confidence is not None:
            scored = has_label & (truth != IGNORE)
            found = Calibration.of(confidence[scored], ids[scored] == truth[scored])
            self.calibration = found if self.calibration is None else self.calibration + found

    def to_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the scores, JSON-ready."""
        return {
            "coverage": json_number(self.coverage),
            "own": score(self.own).to_dict(names),
            "common": None if self.common is None else score(self.common).to_dict(names),
            "calibration": self.calibration.to_dict() if self.calibration else None,
        }


@dataclass(frozen=True)
class ComparedCache:
    """The labels of one cache: `targets` has pixels ("image") and, in caches with points, points ("point").

    `preset` is the name of the settings of its last run. `labels` is the group that holds the labels. `label_bytes` and
    `bytes` are those on disk of this group and of all groups, for each sample. `stage_seconds` is what
    `seconds_per_sample` returns.
    """

    url: str
    preset: str
    labels: str
    targets: Mapping[Target, TargetCounts]
    stage_seconds: Mapping[str, float | None]
    label_bytes: float
    bytes: float

    @property
    def seconds(self) -> float | None:
        """Seconds of work for a sample; None if the last run did not do all of it."""
        known = [seconds for seconds in self.stage_seconds.values() if seconds is not None]
        return sum(known) if len(known) == len(self.stage_seconds) else None


@dataclass(frozen=True)
class ComparedLabels:
    """Several caches, compared on the `samples` of the shards that all of them have; `left_out` shards are not."""

    taxonomy: Taxonomy
    samples: int
    left_out: int
    caches: tuple[ComparedCache, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return all scores as a JSON-ready object."""
        names = self.taxonomy.names
        return {
            "samples": self.samples,
            "shards_left_out": self.left_out,
            "caches": [
                {
                    "cache": cache.url,
                    "preset": cache.preset,
                    "labels": cache.labels,
                    **{target: counts.to_dict(names) for target, counts in cache.targets.items()},
                    "label_bytes_per_sample": cache.label_bytes,
                    "bytes_per_sample": cache.bytes,
                    "seconds_per_sample": cache.seconds,
                    "stage_seconds_per_sample": dict(cache.stage_seconds),
                }
                for cache in self.caches
            ],
        }


def compare(urls: Sequence[str], groups: Sequence[str] = ("labels",)) -> ComparedLabels:
    """Score the labels of the caches at `urls` on the shards that all of them have with the same samples.

    Each of `groups` of labels, `labels` or `time`, is scored alone.

    Raises:
        CacheError: if a cache is missing or damaged, the caches have other classes, or they share no shard.
    """
    opened = [Cache.open(url) for url in urls]
    caches, taxonomy = [cache for cache, _ in opened], opened[0][1].taxonomy
    for cache, manifest in opened[1:]:
        if manifest.taxonomy.digest != taxonomy.digest:
            raise CacheError(
                f"{cache.url}: its taxonomy {manifest.taxonomy.name} has other classes than that of {caches[0].url} "
                f"({taxonomy.name}); compare caches of one taxonomy"
            )
    rows = [(cache, group) for cache in caches for group in groups]
    records = [find_finished(cache, (group,)).records for cache, group in rows]
    shared = [
        key
        for key, record in records[0].items()
        if all(key in other and other[key].samples == record.samples for other in records[1:])
    ]
    if not shared:
        raise CacheError(f"{', '.join(urls)}: no shard with the same samples has labels in all; compare the same data")
    targets = TARGETS if all("point" in manifest.modalities for _, manifest in opened) else TARGETS[:1]
    totals = [{target: TargetCounts(len(taxonomy.classes)) for target in targets} for _ in rows]
    for key in shared:
        for target in targets:
            _count_shard(rows, key, target, [own[target] for own in totals])
    samples = sum(len(records[0][key].samples) for key in shared)
    presets = {cache.url: preset_of(manifest.config) for cache, manifest in opened}
    found = tuple(
        ComparedCache(
            cache.url,
            presets[cache.url],
            group,
            own,
            seconds_per_sample(cache, shared[0], group),
            *(size / samples for size in _stored_bytes(cache, group, shared)),
        )
        for (cache, group), own in zip(rows, totals, strict=True)
    )
    return ComparedLabels(taxonomy, samples, len(set().union(*records)) - len(shared), found)


def _count_shard(rows: Sequence[tuple[Cache, str]], key: str, target: Target, totals: Sequence[TargetCounts]) -> None:
    """Add the labels of one shard of all `rows`, a cache and a group each, to the `totals` of each."""
    read = [_read(cache, GroupPath(key, group), target) for cache, group in rows]
    for total, (ids, truth, confidence) in zip(totals, read, strict=True):
        total.add(ids, truth, confidence)
    alike = len({ids.shape for ids, _, _ in read}) == 1
    everywhere = np.logical_and.reduce([ids != IGNORE for ids, _, _ in read]) if alike else None
    for total, (ids, truth, _) in zip(totals, read, strict=True):
        if everywhere is None or total.common is None:
            total.common = None
        elif truth is not None:
            total.common += confusion_matrix(truth[everywhere], ids[everywhere], total.classes)


def _read(
    cache: Cache, labels: GroupPath, target: Target
) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None, NDArray[np.uint8] | None]:
    """Return the labels of a group of a shard, the truth, and the confidence; None for what the cache does not have."""
    truth = GroupPath(labels.shard, "truth")
    seals = cache.seals([labels, truth])
    name = f"{target}_confidence"
    return (
        cache.read(labels, target)[target],
        cache.read(truth, target)[target] if truth in seals and target in seals[truth].arrays else None,
        cache.read(labels, name)[name] if name in seals[labels].arrays else None,
    )


def _stored_bytes(cache: Cache, group: str, keys: Sequence[str]) -> tuple[int, int]:
    """Return the bytes on disk of one group of some shards, and of all their groups."""
    wanted, of_group, of_all = set(keys), 0, 0
    for file, size in cache.file_sizes().items():
        steps = file.split("/")
        if steps[0] == SHARDS and steps[1] in wanted:
            of_all += size or 0
            of_group += (size or 0) if steps[2] == group else 0
    return of_group, of_all


def scores_of(confusion: NDArray[np.int64] | None) -> Scores | None:
    """Return the scores of a confusion matrix; None if nothing was scored."""
    return score(confusion) if confusion is not None and confusion.any() else None


def describe(found: ComparedLabels) -> str:
    """Return a sentence on what was compared."""
    rest = f"; {counted(found.left_out, 'shard')} not in all caches left out" if found.left_out else ""
    caches = len({cache.url for cache in found.caches})
    every = "all " if caches > 1 else ""
    return f"{counted(found.samples, 'sample')} in {every}{counted(caches, 'cache')}{rest}"

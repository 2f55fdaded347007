"""What differs between two caches: settings, scores, shares of classes, and labels where both hold the same samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cache_schemas.errors import CacheError
from cache_schemas.group_path import GroupPath
from cache_schemas.scoring import json_number
from cache_schemas.store import Cache
from labelgen.inspection.findings import inspect_cache
from labelgen.inspection.measures import moved_share, share
from labelgen.inspection.selection import Selection
from labelgen.inspection.statistics import Counts, count_together

_SETTINGS = ("dataset", "split", "taxonomy", "prompts", "config_digest")


@dataclass(frozen=True)
class _Moves:
    """Where labels of one shard went: (C+1, C+1) counts of (theirs, ours), or why they cannot be compared."""

    shard: str
    image: Counts | None
    point: Counts | None
    reason: str | None


def compare_caches(found: Mapping[str, Any], other: str, selection: Selection | None = None) -> dict[str, Any]:
    """Return what differs between an inspected cache (`found`) and the cache at `other`, as a JSON-ready object.

    Changes are ours minus theirs. Labels are compared pixel by pixel and point by point in shards that hold the same
    samples at the same size, in all their samples whatever the selection; others are named with the reason.

    Raises:
        CacheError: if there is no readable cache at `other`, or its classes are others.
    """
    theirs = inspect_cache(other, selection)
    _, manifest = Cache.open(other)
    ours = Cache.open(found["cache"])[1]
    names = manifest.taxonomy.names
    if names != ours.taxonomy.names:
        raise CacheError(
            f"{other}: its taxonomy {manifest.taxonomy.name} is not the classes of {found['cache']} "
            f"({ours.taxonomy.name}); compare caches of one taxonomy"
        )
    moves = _moves(found, theirs, len(names))
    return {
        "cache": other,
        "settings": _settings(found, theirs),
        "scores": {target: _scores(found, theirs, target) for target in ("image", "point")},
        "classes": {name: _class_change(found, theirs, name) for name in names},
        "moved": {target: _moved([getattr(move, target) for move in moves], names) for target in ("image", "point")},
        "by_shard": sorted((_shard_change(move) for move in moves), key=_most_changed),
        "only_here": _only(found, theirs),
        "only_there": _only(theirs, found),
    }


def _settings(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what differs, by setting: our value and theirs."""
    pairs = {name: (ours[name], theirs[name]) for name in _SETTINGS}
    pairs |= {name: (ours["teachers"][name], theirs["teachers"][name]) for name in ("preset", "clip", "sam")}
    return {name: {"here": here, "there": there} for name, (here, there) in pairs.items() if here != there}


def _scores(ours: Mapping[str, Any], theirs: Mapping[str, Any], target: str) -> dict[str, Any] | None:
    here, there = (report.get("truth", {}).get(target) for report in (ours, theirs))
    if not here or not there:
        return None
    return {
        kind: {score: {"here": here[kind][score], "there": there[kind][score]} for score in ("miou", "accuracy")}
        for kind in ("raw", "refined")
    }


def _class_change(ours: Mapping[str, Any], theirs: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return, of voted labels, the share of pixels and points that a class has, and its IoU, here and there."""
    return {
        target: {
            "share": {"here": _class_share(ours, target, name), "there": _class_share(theirs, target, name)},
            "iou": {"here": _class_iou(ours, target, name), "there": _class_iou(theirs, target, name)},
        }
        for target in ("image", "point")
    }


def _class_share(report: Mapping[str, Any], target: str, name: str) -> float | None:
    counts = report["labels"][target]["refined"] if "labels" in report else {name: 0}
    return json_number(share(counts[name], sum(counts.values())))


def _class_iou(report: Mapping[str, Any], target: str, name: str) -> float | None:
    truth = report.get("truth", {}).get(target)
    return truth["refined"]["iou"][name] if truth else None


def _moves(ours: Mapping[str, Any], theirs: Mapping[str, Any], classes: int) -> list[_Moves]:
    import dask

    shared = sorted(_shards(ours) & _shards(theirs))
    tasks = [dask.delayed(_shard_moves)(ours["cache"], theirs["cache"], key, classes) for key in shared]
    return list(dask.compute(*tasks, scheduler="threads"))


def _shard_moves(ours: str, theirs: str, key: str, classes: int) -> _Moves:
    caches = Cache(ours), Cache(theirs)
    if caches[0].shard_records([key])[key].samples != caches[1].shard_records([key])[key].samples:
        return _Moves(key, None, None, "holds other samples there")
    here, there = (cache.read(GroupPath(key, "labels"), "image", "point") for cache in caches)
    sized = {name: here[name].shape == there[name].shape for name in here}
    counts = {name: count_together(there[name], here[name], classes) if same else None for name, same in sized.items()}
    unlike = [
        f"{name} labels are {here[name].shape} here, {there[name].shape} there" for name in here if not sized[name]
    ]
    return _Moves(key, counts["image"], counts["point"], "; ".join(unlike) or None)


def _moved(parts: Sequence[Counts | None], names: Sequence[str]) -> dict[str, Any] | None:
    """Return how much changed in shards that can be compared, and the moves between classes, largest first."""
    counts = sum(part for part in parts if part is not None)
    if isinstance(counts, int):
        return None
    named = [*names, "ignore"]
    moves = [
        {"from": named[row], "to": named[column], "count": int(counts[row, column])}
        for row, column in np.argwhere(counts > 0)
        if row != column
    ]
    return {
        "share": json_number(moved_share(counts)),
        "moves": sorted(moves, key=lambda move: -int(str(move["count"]))),
    }


def _shard_change(move: _Moves) -> dict[str, Any]:
    changed = {
        target: None if counts is None else json_number(moved_share(counts))
        for target, counts in (("image", move.image), ("point", move.point))
    }
    return {"shard": move.shard, **changed, "reason": move.reason}


def _most_changed(entry: Mapping[str, Any]) -> tuple[float, str]:
    return -max(entry["image"] or 0.0, entry["point"] or 0.0), entry["shard"]


def _shards(report: Mapping[str, Any]) -> set[str]:
    return {entry["shard"] for entry in report["by_shard"]}


def _only(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    return sorted(_shards(here) - _shards(there))

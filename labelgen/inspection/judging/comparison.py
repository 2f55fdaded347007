"""Compare two reports: settings, scores, shares of classes, and labels where both caches hold the same samples."""

from collections.abc import Sequence

import numpy as np

from cache_schemas.documents import TeacherIdentity
from cache_schemas.scoring import json_number
from labelgen.inspection.counting.label_changes import LabelChanges
from labelgen.inspection.counting.measures import changed_share, ratio
from labelgen.inspection.counting.statistics import Counts
from labelgen.inspection.report import (
    ClassChange,
    Comparison,
    HereThere,
    LabelMove,
    LabelMoves,
    Report,
    ScoreChange,
    ScoreChanges,
    ShardChange,
)
from labelgen.inspection.report_statistics import Agreement, ByTarget, LabelCounts, LabelScores

Setting = str | TeacherIdentity | None


def compare_reports(ours: Report, theirs: Report, changes: Sequence[LabelChanges], names: Sequence[str]) -> Comparison:
    """Return what differs between a cache (`ours`) and another; changes are ours minus theirs.

    `changes` are of the shards that both hold, in all samples, whatever the selection. `names` are the classes.
    """
    return Comparison(
        cache=theirs.cache,
        settings=_changed_settings(ours, theirs),
        scores=ByTarget[ScoreChanges | None](
            image=_score_changes(_agreement(ours, "image"), _agreement(theirs, "image")),
            point=_score_changes(_agreement(ours, "point"), _agreement(theirs, "point")),
        ),
        classes={name: _class_changes(ours, theirs, name) for name in names},
        moved=ByTarget[LabelMoves | None](
            image=_label_moves([change.image for change in changes], names),
            point=_label_moves([change.point for change in changes], names),
        ),
        by_shard=tuple(sorted((_shard_change(change) for change in changes), key=_most_changed_first)),
        only_here=tuple(sorted(shard_keys(ours) - shard_keys(theirs))),
        only_there=tuple(sorted(shard_keys(theirs) - shard_keys(ours))),
    )


def shard_keys(report: Report) -> set[str]:
    """Return the keys of the shards that a report counts."""
    return {entry.shard for entry in report.by_shard}


def _settings(report: Report) -> dict[str, Setting]:
    names = ("dataset", "split", "taxonomy", "prompts", "preset", "config_digest")
    teachers = report.teachers
    return {**{name: getattr(report, name) for name in names}, "teachers": teachers.preset, **teachers.networks}


def _changed_settings(ours: Report, theirs: Report) -> dict[str, HereThere[Setting]]:
    here, there = _settings(ours), _settings(theirs)
    names = [*here, *(name for name in there if name not in here)]
    return {
        name: HereThere[Setting](here=here.get(name), there=there.get(name))
        for name in names
        if here.get(name) != there.get(name)
    }


def _agreement(report: Report, target: str) -> Agreement | None:
    if report.statistics is None:
        return None
    truth = report.statistics.truth
    return truth.image if target == "image" else truth.point


def _label_counts(report: Report, target: str) -> LabelCounts | None:
    if report.statistics is None:
        return None
    labels = report.statistics.labels
    return labels.image if target == "image" else labels.point


def _score_changes(here: Agreement | None, there: Agreement | None) -> ScoreChanges | None:
    if here is None or there is None:
        return None
    return ScoreChanges(raw=_score_change(here.raw, there.raw), refined=_score_change(here.refined, there.refined))


def _score_change(here: LabelScores, there: LabelScores) -> ScoreChange:
    return ScoreChange(
        miou=HereThere[float | None](here=here.miou, there=there.miou),
        accuracy=HereThere[float | None](here=here.accuracy, there=there.accuracy),
    )


def _class_changes(ours: Report, theirs: Report, name: str) -> ByTarget[ClassChange]:
    return ByTarget[ClassChange](
        image=_class_change(ours, theirs, "image", name), point=_class_change(ours, theirs, "point", name)
    )


def _class_change(ours: Report, theirs: Report, target: str, name: str) -> ClassChange:
    shares = [_class_share(_label_counts(report, target), name) for report in (ours, theirs)]
    ious = [_class_iou(_agreement(report, target), name) for report in (ours, theirs)]
    return ClassChange(
        share=HereThere[float | None](here=shares[0], there=shares[1]),
        iou=HereThere[float | None](here=ious[0], there=ious[1]),
    )


def _class_share(counts: LabelCounts | None, name: str) -> float | None:
    return json_number(ratio(counts.refined[name], sum(counts.refined.values()))) if counts else None


def _class_iou(agreement: Agreement | None, name: str) -> float | None:
    return agreement.refined.iou[name] if agreement else None


def _label_moves(tables: Sequence[Counts | None], names: Sequence[str]) -> LabelMoves | None:
    """Return how many labels changed in the shards that can be compared, and from which class to which."""
    known = [table for table in tables if table is not None]
    if not known:
        return None
    counts = np.stack(known).sum(axis=0)
    labels = [*names, "ignore"]
    moves = [
        LabelMove(before=labels[there], after=labels[here], count=int(counts[there, here]))
        for there, here in np.argwhere(counts > 0).tolist()
        if there != here
    ]
    return LabelMoves(
        share=json_number(changed_share(counts)), moves=tuple(sorted(moves, key=lambda move: -move.count))
    )


def _shard_change(change: LabelChanges) -> ShardChange:
    return ShardChange(
        shard=change.shard,
        image=None if change.image is None else json_number(changed_share(change.image)),
        point=None if change.point is None else json_number(changed_share(change.point)),
        reason=change.reason,
    )


def _most_changed_first(change: ShardChange) -> tuple[float, str]:
    return -max(change.image or 0.0, change.point or 0.0), change.shard

"""Fill the report's statistics from summed counts."""

from collections.abc import Mapping, Sequence

import numpy as np

from cache_schemas.scoring import ScoringRule, json_number
from labelgen.inspection.counting.measures import (
    MEASURES,
    Measurements,
    changed_share,
    compute_measures,
    ratio,
    with_truth,
)
from labelgen.inspection.counting.statistics import MASK_SHARES, SEGMENT_SHARES, Counts, Statistics
from labelgen.inspection.report import SampleMeasures, ShardMeasures
from labelgen.inspection.report_statistics import (
    Agreement,
    ByTarget,
    ClipScores,
    LabelCounts,
    LabelScores,
    LabelStatistics,
    MaskAgreement,
    MaskCounts,
    MasksOfSize,
    MasksPerImage,
    PointCounts,
    SegmentsOfSize,
    TruthAgreement,
    UnitHistogram,
)


def summarize(total: Statistics, names: Sequence[str], rule: ScoringRule) -> LabelStatistics:
    """Return the report's statistics of some counts; `names` are the classes in id order, `rule` says what counts."""
    measures = compute_measures(total, rule)
    return LabelStatistics(
        labels=ByTarget[LabelCounts](
            image=_label_counts(total.image_flow, names), point=_label_counts(total.point_flow, names)
        ),
        scores=_clip_scores(total, measures),
        points=_point_counts(total, measures),
        masks=_mask_counts(total, measures),
        truth=TruthAgreement(
            masks=_mask_agreement(total),
            image=_agreement(total.image_flow, total.image_truth_raw, total.image_truth_voted, names, rule),
            point=_agreement(total.point_flow, total.point_truth_raw, total.point_truth_voted, names, rule),
        ),
    )


def summarize_shard(measured: Measurements, names: Sequence[str]) -> ShardMeasures:
    """Return the report's entry of one shard."""
    return ShardMeasures(
        shard=measured.shard,
        samples=measured.sample_count,
        measures=_measures_by_name(measured),
        iou=_iou_by_name(measured, names),
    )


def summarize_sample(measured: Measurements, names: Sequence[str]) -> SampleMeasures:
    """Return the report's entry of one sample."""
    return SampleMeasures(
        shard=measured.shard,
        sample=str(measured.sample),
        measures=_measures_by_name(measured),
        iou=_iou_by_name(measured, names),
    )


def _measures_by_name(measured: Measurements) -> dict[str, float | None]:
    return {name: json_number(value) for name, value in zip(MEASURES, measured.values, strict=True)}


def _iou_by_name(measured: Measurements, names: Sequence[str]) -> dict[str, float]:
    return {name: float(iou) for name, iou in zip(names, measured.iou, strict=True) if np.isfinite(iou)}


def _label_counts(flow: Counts, names: Sequence[str]) -> LabelCounts:
    return LabelCounts(
        raw=_counts_by_name(flow.sum(axis=1), names),
        refined=_counts_by_name(flow.sum(axis=0), names),
        changed=json_number(changed_share(flow)),
        flow=flow.tolist(),
    )


def _counts_by_name(counts: Counts, names: Sequence[str]) -> dict[str, int]:
    return dict(zip([*names, "ignore"], counts.tolist(), strict=True))


def _clip_scores(total: Statistics, measures: Mapping[str, float]) -> ClipScores:
    return ClipScores(
        patches=int(total.entropy.sum()),
        entropy=UnitHistogram(mean=json_number(measures["entropy"]), histogram=total.entropy.tolist()),
        margin=UnitHistogram(mean=json_number(measures["margin"]), histogram=total.margin.tolist()),
    )


def _point_counts(total: Statistics, measures: Mapping[str, float]) -> PointCounts:
    unseen, once, twice = total.cameras.tolist()
    return PointCounts(
        total=unseen + once + twice,
        seen=once + twice,
        seen_share=json_number(measures["seen"]),
        pairs=int(total.pairs),
        hidden_pairs=int(total.pairs_hidden),
        by_cameras={"0": unseen, "1": once, "2+": twice},
        camera_disagreement=json_number(measures["camera_disagreement"]),
        pair_agreement=json_number(measures["pair_agreement"]),
    )


def _mask_counts(total: Statistics, measures: Mapping[str, float]) -> MaskCounts:
    numbers = np.flatnonzero(total.mask_counts)
    return MaskCounts(
        images=int(total.images),
        per_image=MasksPerImage(
            mean=json_number(measures["masks_per_image"]),
            min=int(numbers.min(initial=len(total.mask_counts))),
            max=int(numbers.max(initial=0)),
            histogram=total.mask_counts.tolist(),
        ),
        covered_share=json_number(measures["masked"]),
        by_share=tuple(
            MasksOfSize(lower=lower, upper=upper, masks=count)
            for lower, upper, count in zip(MASK_SHARES[:-1], MASK_SHARES[1:], total.mask_sizes.tolist(), strict=True)
        ),
    )


def _agreement(
    flow: Counts, truth_raw: Counts, truth_voted: Counts, names: Sequence[str], rule: ScoringRule
) -> Agreement | None:
    """Score labels against truth by a rule."""
    elements = int(with_truth(truth_voted).sum())
    if not elements:
        return None
    return Agreement(
        truth=elements,
        share=json_number(ratio(elements, flow.sum())),
        raw=_label_scores(with_truth(truth_raw), names, rule),
        refined=_label_scores(with_truth(truth_voted), names, rule),
    )


def _label_scores(table: Counts, names: Sequence[str], rule: ScoringRule) -> LabelScores:
    scores, confusion = rule.score(table), table[:, :-1]
    return LabelScores(
        **scores.to_dict(names),
        unlabelled=dict(zip(names, table[:, -1].tolist(), strict=True)),
        class_accuracy={name: json_number(value) for name, value in zip(names, scores.recall, strict=True)},
        confusion=confusion.tolist(),
    )


def _mask_agreement(total: Statistics) -> MaskAgreement | None:
    """Say how well masks cover true segments; None without segment truth."""
    if not total.segments.any():
        return None
    sums = total.segments, total.segment_iou, total.segments_found
    return MaskAgreement(
        **_segment_scores(*(float(by_size.sum()) for by_size in sums)),
        by_share=tuple(
            SegmentsOfSize(lower=lower, **_segment_scores(*(float(by_size[i]) for by_size in sums)))
            for i, lower in enumerate(SEGMENT_SHARES)
        ),
    )


def _segment_scores(segments: float, iou_sum: float, found: float) -> dict[str, int | float | None]:
    return {
        "segments": int(segments),
        "mean_best_iou": json_number(ratio(iou_sum, segments)),
        "recall_at_half": json_number(ratio(found, segments)),
    }

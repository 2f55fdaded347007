"""Fill the report's statistics from summed counts."""

from collections.abc import Sequence

import numpy as np

from cache_schemas.scoring import json_number, score
from labelgen.inspection.counting.measures import (
    MEASURES,
    Measurements,
    changed_share,
    compute_measures,
    ratio,
    without_ignore,
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


def summarize(total: Statistics, names: Sequence[str]) -> LabelStatistics:
    """Return the report's statistics of some counts; `names` are the classes in id order."""
    return LabelStatistics(
        labels=ByTarget[LabelCounts](
            image=_label_counts(total.image_flow, names), point=_label_counts(total.point_flow, names)
        ),
        scores=_clip_scores(total),
        points=_point_counts(total),
        masks=_mask_counts(total),
        truth=TruthAgreement(
            masks=_mask_agreement(total),
            image=_agreement(total.image_flow, total.image_truth_raw, total.image_truth_voted, names),
            point=_agreement(total.point_flow, total.point_truth_raw, total.point_truth_voted, names),
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


def _clip_scores(total: Statistics) -> ClipScores:
    measures = compute_measures(total)
    return ClipScores(
        patches=int(total.entropy.sum()),
        entropy=UnitHistogram(mean=json_number(measures["entropy"]), histogram=total.entropy.tolist()),
        margin=UnitHistogram(mean=json_number(measures["margin"]), histogram=total.margin.tolist()),
    )


def _point_counts(total: Statistics) -> PointCounts:
    measures = compute_measures(total)
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


def _mask_counts(total: Statistics) -> MaskCounts:
    measures = compute_measures(total)
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


def _agreement(flow: Counts, truth_raw: Counts, truth_voted: Counts, names: Sequence[str]) -> Agreement | None:
    """Score labels against truth. Labels that are "ignore" (points that no camera sees) are left out."""
    with_truth = int(truth_voted[:-1].sum())
    if not with_truth:
        return None
    return Agreement(
        truth=with_truth,
        share=json_number(ratio(with_truth, flow.sum())),
        raw=_label_scores(without_ignore(truth_raw), names),
        refined=_label_scores(without_ignore(truth_voted), names),
    )


def _label_scores(confusion: Counts, names: Sequence[str]) -> LabelScores:
    scores = score(confusion)
    return LabelScores(
        **scores.to_dict(names),
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

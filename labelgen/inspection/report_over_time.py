"""The part of the audit's report about labels on which keyframes agree; see `report`."""

from labelgen.inspection.report_statistics import ByTarget, ReportPart


class KindScores(ReportPart):
    """The same number for the voted labels of each keyframe (`labels`), and for those over time (`time`)."""

    voted: float | None
    over_time: float | None


class OverTime(ReportPart):
    """Labels of pixels, or of points. Scores are `null` without truth."""

    labelled: KindScores
    """Share of elements with a label."""
    miou: KindScores
    accuracy: KindScores
    common_miou: KindScores
    """mIoU on the elements that have a label of both kinds."""
    common_accuracy: KindScores


class OverTimeReport(ReportPart):
    """Labels over time, of whole shards whatever samples are selected."""

    shards: int
    """Shards with the group `time`."""
    labels: ByTarget[OverTime]

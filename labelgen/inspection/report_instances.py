"""The part of the audit's report about instances of points; see `report`."""

from labelgen.inspection.report_statistics import ReportPart


class InstanceTruth(ReportPart):
    """Instances against truth; the true class of an instance is that of most of its points."""

    judged: int
    """Instances that have truth and that a pixel sees."""
    one_class: float
    """Of the points of instances, the share that has the true class of its instance."""
    right_by_steps: dict[str, float]
    """Share of judged instances whose class is right, by the steps t of affinity; 1 is CLIPInstance alone."""
    right_by_majority_raw: float
    """The same for the most frequent raw label of the points' pixels."""
    right_by_majority_refined: float
    """The same for refined labels."""
    point_miou_by_pixels: float | None
    """mIoU of the refined labels of points."""
    point_miou_by_instances: float | None
    """mIoU of `instance_labels/point`."""


class InstanceReport(ReportPart):
    """Instances of points, of whole shards whatever samples are selected."""

    instances: int
    seen: int
    """Instances that a pixel sees."""
    points_labelled_by_pixels: float
    """Share of the points with a refined label."""
    points_labelled: float
    """Share of the points with a label in `instance_labels/point`."""
    truth: InstanceTruth | None

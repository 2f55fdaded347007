"""The part of the audit's report that holds statistics of labels, scores, points and masks; see `report`."""

from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Value = TypeVar("Value")
CountMatrix = tuple[tuple[int, ...], ...]
"""Counts as rows of columns."""


class ReportPart(BaseModel):
    """A frozen JSON object that refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, serialize_by_alias=True)


class ByTarget(ReportPart, Generic[Value]):
    """The same thing for the labels of pixels and for those of points."""

    image: Value
    point: Value

    @property
    def by_unit(self) -> tuple[tuple[str, Value], tuple[str, Value]]:
        """Both values with the name of what they count."""
        return ("pixels", self.image), ("points", self.point)


class LabelCounts(ReportPart):
    """Labels before the vote in masks (raw) and after it (refined); `ignore` counts id 255."""

    raw: dict[str, int]
    refined: dict[str, int]
    changed: float | None
    """Share of labels that the vote changed."""
    flow: CountMatrix
    """Counts by raw label (row) and voted label (column), in the order of `raw`."""


class UnitHistogram(ReportPart):
    """A distribution of values from 0 to 1."""

    mean: float | None
    histogram: tuple[int, ...]
    """Counts in 50 bins of equal width."""


class ClipScores(ReportPart):
    """How certain CLIP is about its patches."""

    patches: int
    entropy: UnitHistogram
    """Entropy of softmax(100 x cosine), divided by log(number of classes)."""
    margin: UnitHistogram
    """Probability of the best class minus that of the second."""


class PointCounts(ReportPart):
    """Lidar points, and the pixels that see them."""

    total: int
    seen: int
    seen_share: float | None
    pairs: int
    """Pairs of a pixel and a point."""
    hidden_pairs: int
    """Pairs whose point something hides from the camera; 0 without a rule of visibility."""
    by_cameras: dict[str, int]
    """Points seen by 0, 1, and 2 or more cameras (`2+`)."""
    camera_disagreement: float | None
    """Of the points seen by two or more cameras, the share whose pixels have different voted labels."""
    pair_agreement: float | None
    """Share of visible pairs whose pixel and point have the same voted label."""


class MasksPerImage(ReportPart):
    """How many visible masks an image has."""

    mean: float | None
    min: int
    max: int
    histogram: tuple[int, ...]
    """Images by number of visible masks; the last bin is 512 or more."""


class MasksOfSize(ReportPart):
    """Masks whose visible part covers between two shares of the picture."""

    lower: float = Field(serialization_alias="from")
    upper: float = Field(serialization_alias="to")
    masks: int


class MaskCounts(ReportPart):
    """SAM's masks, as far as the map of mask ids shows them."""

    images: int
    per_image: MasksPerImage
    covered_share: float | None
    """Share of pixels under a mask."""
    by_share: tuple[MasksOfSize, ...]


class SegmentsOfSize(ReportPart):
    """Agreement of masks with true segments that cover at least the share `from`, and less than the next larger."""

    lower: float = Field(serialization_alias="from")
    segments: int
    mean_best_iou: float | None
    recall_at_half: float | None


class MaskAgreement(ReportPart):
    """Agreement of masks with true segments of at least 100 pixels at training size."""

    segments: int
    mean_best_iou: float | None
    """Mean over segments of the IoU with the best mask."""
    recall_at_half: float | None
    """Share of segments whose best IoU is at least 0.5."""
    by_share: tuple[SegmentsOfSize, ...]
    """The same by the share of the picture that a segment covers, largest first."""


class LabelScores(ReportPart):
    """Labels against truth; by class name where it is a mapping."""

    miou: float | None
    """Mean of `iou` over the classes; `scoring.absent` says which."""
    accuracy: float | None
    """Share of right labels."""
    scored: int
    """Pixels or points that count: those with a truth label and a label, and with `scoring.unlabelled` as `miss` also
    those that only lack the label, such as points that no camera sees."""
    unlabelled: dict[str, int]
    """Pixels or points with a truth label and without a label, by true class."""
    iou: dict[str, float | None]
    """TP / (TP + FP + FN)."""
    class_accuracy: dict[str, float | None]
    """Recall: TP / (TP + FN)."""
    confusion: CountMatrix
    """Counts by true class (row) and label (column), in the order of `iou`, of what has both."""


class Agreement(ReportPart):
    """Labels before the vote (raw) and after it (refined) against truth."""

    truth: int
    """Pixels or points that have a truth label."""
    share: float | None
    """Their share of all."""
    raw: LabelScores
    refined: LabelScores


class TruthAgreement(ReportPart):
    """Agreement with ground truth; `null` where the dataset has none."""

    masks: MaskAgreement | None
    image: Agreement | None
    point: Agreement | None

    @property
    def by_unit(self) -> tuple[tuple[str, Agreement | None], tuple[str, Agreement | None]]:
        """Agreement of labels with the name of what is scored."""
        return ("pixels", self.image), ("points", self.point)


class LabelStatistics(ReportPart):
    """Statistics of sealed shards. In JSON these keys lie at the top level, once at least one shard is sealed."""

    labels: ByTarget[LabelCounts]
    scores: ClipScores
    points: PointCounts
    masks: MaskCounts
    truth: TruthAgreement

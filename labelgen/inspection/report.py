"""The audit's report: what `labelgen inspect --json` prints, key by key.

Each class is one JSON object, and its fields are the keys in order. A field whose Python name differs from its key has
an alias. A number that cannot be computed (a class that does not occur, a share of nothing) is `None`, which is `null`
in JSON. Keys stay as they are within schema version 1; new ones may be added.

`counting` and `judging` fill the report, and `showing` prints and draws it.
"""

from collections.abc import Mapping
from typing import Any, Generic, NamedTuple

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from cache_schemas.documents import TeacherIdentity
from cache_schemas.scoring import Absent, ScoringRule, Unlabelled
from labelgen.inspection.report_instances import InstanceReport
from labelgen.inspection.report_over_time import OverTimeReport
from labelgen.inspection.report_statistics import ByTarget, LabelStatistics, ReportPart, Value


class HereThere(ReportPart, Generic[Value]):
    """A value of the inspected cache, and of the cache that it is compared with."""

    here: Value
    there: Value


class Selection(ReportPart):
    """The samples that the report is about: those with these ids, then those with the class, then the worst of them."""

    samples: tuple[str, ...] = ()
    """Ids of samples; empty for all."""
    class_name: str | None = Field(default=None, serialization_alias="class")
    """Only samples where this class occurs as a label or in truth."""
    worst: int | None = None
    """Only so many samples, worst first."""


class Scoring(ReportPart):
    """What labels are scored by, and what counts."""

    source: str | None = None
    """The name of the imported labels that stand for truth; `null`: the truth of the data set."""
    unlabelled: Unlabelled = "ignore"
    """Points and pixels without a label are left out (`ignore`), or are wrong (`miss`)."""
    absent: Absent = "leave"
    """Classes in neither truth nor labels leave the mean of IoU (`leave`), or have IoU 0 (`zero`)."""

    @property
    def rule(self) -> ScoringRule:
        """The rule that counts."""
        return ScoringRule(self.unlabelled, self.absent)

    @property
    def title(self) -> str:
        """The rule, and what stands for truth, for the titles of tables."""
        against = "" if self.source is None else f"against source {self.source}, "
        return against + self.rule.name


class TeacherNetworks(ReportPart):
    """The teachers of the last run. In JSON, each network is a key beside `preset`, such as `clip` and `sam`."""

    preset: str
    networks: Mapping[str, TeacherIdentity]
    """`architecture`, `weights` and `sha256` of each network."""
    untrained: bool
    """Whether a network of the last run or of any sealed group is random. Then the labels mean nothing."""

    @model_serializer
    def _networks_beside_preset(self) -> dict[str, Any]:
        networks = {name: network.to_attrs() for name, network in self.networks.items()}
        return {"preset": self.preset, **networks, "untrained": self.untrained}


class ShardCounts(ReportPart):
    """Numbers of shards."""

    sealed: int
    """Shards with all groups."""
    stale: int
    """Sealed shards with a group that was made with other settings or from a group that was redone since."""
    quarantined: int
    """Shards with no usable sample."""
    unfinished: int
    """Shards that lack a group."""


class QuarantineReason(ReportPart):
    """Why a sample was left out."""

    sample: str
    stage: str
    reason: str


class SampleCounts(ReportPart):
    """Numbers of samples."""

    labelled: int
    """Samples in sealed shards."""
    quarantined: int
    """Samples left out."""
    reasons: tuple[QuarantineReason, ...]


class ProblemEntry(ReportPart):
    """Something broken, as far as documents and file sizes show it; `labelgen verify --json` has the same objects."""

    kind: str
    path: str
    message: str
    remedy: str


class DamagedShard(ReportPart):
    """A shard that could not be read. It is not counted."""

    shard: str
    message: str


class ShardMeasures(ReportPart):
    """The measures of one shard (see `counting.measures.MEASURES`), and the IoU of the classes in its truth.

    IoU is of pixels, or of points where only they have truth.
    """

    shard: str
    samples: int
    measures: dict[str, float | None]
    iou: dict[str, float]


class SampleMeasures(ReportPart):
    """The same of one sample."""

    shard: str
    sample: str
    measures: dict[str, float | None]
    iou: dict[str, float]


class Outlier(ReportPart):
    """A measure by which a shard is far from the median of all shards."""

    shard: str
    measure: str
    title: str
    value: float
    usual: float
    """The median."""
    deviations: float
    """Distance from the median in robust standard deviations."""
    is_share: bool
    """Whether `value` and `usual` are shares, to be shown as percentages."""


class ClassShare(NamedTuple):
    """A class, and its share of something. In JSON: a list of both."""

    name: str
    share: float


class ShardErrors(NamedTuple):
    """The errors of a class in one shard. In JSON: a list of these."""

    shard: str
    iou: float | None
    share: float
    """Share of all wrong pixels of the class."""
    confusion: str
    """The most frequent error there, such as "truck labelled trailer"."""


class ClassDiagnosis(ReportPart):
    """What is wrong with the voted labels of a class, where, and why."""

    name: str
    true_share: float | None
    """The class's share of truth."""
    raw_iou: float | None
    voted_iou: float | None
    precision: float | None
    recall: float | None
    taken_for: tuple[ClassShare, ...]
    """Labels that its true pixels get by mistake, and their share of its true pixels."""
    takes: tuple[ClassShare, ...]
    """True classes that get its label by mistake, and their share of the pixels with its label."""
    shards: tuple[ShardErrors, ...]
    """The shards with most of its errors."""
    reason: str
    """All this in a sentence."""


class Verdict(ReportPart):
    """What speaks against the cache. An empty list is a yes."""

    complete: tuple[str, ...]
    """Is every shard sealed, and no sample left out?"""
    whole: tuple[str, ...]
    """Could everything be read?"""
    plausible: tuple[str, ...]
    """Is nothing about the labels unlikely?"""


class ScoreChange(ReportPart):
    """Scores here and there."""

    miou: HereThere[float | None]
    accuracy: HereThere[float | None]


class ScoreChanges(ReportPart):
    """Changes of scores before the vote (raw) and after it (refined)."""

    raw: ScoreChange
    refined: ScoreChange


class ClassChange(ReportPart):
    """A class's share of the voted labels, and its IoU, here and there."""

    share: HereThere[float | None]
    iou: HereThere[float | None]


class LabelMove(ReportPart):
    """How many labels of one class there are labels of another class here."""

    before: str = Field(serialization_alias="from")
    after: str = Field(serialization_alias="to")
    count: int


class LabelMoves(ReportPart):
    """Changes of voted labels from there to here."""

    share: float | None
    """Share of labels that differ."""
    moves: tuple[LabelMove, ...]
    """Largest first."""


class ShardChange(ReportPart):
    """Shares of changed labels in a shard, or the reason why its labels cannot be compared."""

    shard: str
    image: float | None
    point: float | None
    reason: str | None


class Comparison(ReportPart):
    """What differs in another cache; changes are from there to here."""

    cache: str
    settings: dict[str, HereThere[str | TeacherIdentity | None]]
    """Settings that differ."""
    scores: ByTarget[ScoreChanges | None]
    classes: dict[str, ByTarget[ClassChange]]
    moved: ByTarget[LabelMoves | None]
    by_shard: tuple[ShardChange, ...]
    """Most changed first."""
    only_here: tuple[str, ...]
    """Shards that the other cache lacks."""
    only_there: tuple[str, ...]
    """Shards that only the other cache has."""


class Report(ReportPart):
    """All that `labelgen inspect` reports about a cache."""

    cache: str
    schema_version: int
    dataset: str
    split: str
    taxonomy: str
    prompts: str
    preset: str
    """How CLIP read pictures and masks voted in the last run: a preset, or `custom`."""
    teachers: TeacherNetworks
    config_digest: str
    software: dict[str, str]
    selection: Selection | None
    """What was selected; then all statistics are of the selected samples."""
    scoring: Scoring
    """By what and how labels are scored, in all of the report."""
    shards: ShardCounts
    groups_sealed: dict[str, int]
    """Sealed groups by name."""
    samples: SampleCounts
    problems: tuple[ProblemEntry, ...]
    damaged: tuple[DamagedShard, ...]
    statistics: LabelStatistics | None
    """In JSON its keys `labels`, `scores`, `points`, `masks` and `truth` take its place."""
    ranked: int
    """Number of samples that were ranked."""
    by_shard: tuple[ShardMeasures, ...]
    worst_samples: tuple[SampleMeasures, ...]
    """The first 50 samples, worst first."""
    outliers: tuple[Outlier, ...]
    """Shards that stand out, furthest first."""
    classes: tuple[ClassDiagnosis, ...]
    """With truth: each class, worst first."""
    instances: InstanceReport | None
    """`null` where no shard has instances."""
    over_time: OverTimeReport | None
    """`null` where no shard has labels over time."""
    bytes: dict[str, int]
    """Bytes on disk by array, such as `sam/features`, summed over shards."""
    verdict: Verdict
    against: Comparison | None = None
    """Only with `--against`; else JSON has no such key."""

    @model_serializer(mode="wrap")
    def _flat(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for name, value in serialize(self).items():
            if name == "statistics":
                fields |= value or {}
            elif name != "against" or value is not None:
                fields[name] = value
        return fields

    def to_dict(self) -> dict[str, Any]:
        """Return the report as the JSON-ready object that `--json` prints."""
        report: dict[str, Any] = self.model_dump(mode="json")
        return report

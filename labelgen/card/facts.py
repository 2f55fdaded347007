"""Collects what the card of a cache says: from the report of `labelgen inspect`, the manifest and the records."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from cache_schemas.card_files import content_digest
from cache_schemas.documents import CacheManifest, ShardRecord
from cache_schemas.errors import CacheError, ConfigError
from cache_schemas.layout import ROOT_GROUPS, GroupSpec, shard_group
from cache_schemas.names import printable
from cache_schemas.store import Cache
from labelgen.completeness import short_reason
from labelgen.datasets import find_dataset
from labelgen.inspection.report import Report
from labelgen.inspection.report_statistics import Agreement, LabelCounts, LabelStatistics
from labelgen.licences import Licence
from labelgen.weights import registered_as

NOT_OF_THE_LABELS = ("ray",)
"""Sections of the settings that no label depends on."""


@dataclass(frozen=True)
class Source:
    """The samples of one split of a data set."""

    dataset: str
    version: str
    split: str
    scenes: int
    samples: int
    licence: Licence | None
    citation: str


@dataclass(frozen=True)
class Teacher:
    """A network, and the weights that it had; `sha256` is None if they are random."""

    name: str
    architecture: str
    weights: str
    sha256: str | None
    licence: Licence | None


@dataclass(frozen=True)
class Array:
    """An array of the cache as the contract has it, and its bytes in all shards."""

    path: str
    axes: str
    dtypes: str
    meaning: str
    bytes: int


@dataclass(frozen=True)
class LabelClass:
    """A class: its share of the labels, and the IoU of its labels with truth; None where there is nothing to count."""

    number: int
    name: str
    colour: tuple[int, int, int]
    pixel_share: float | None
    point_share: float | None
    pixel_iou: float | None
    point_iou: float | None


@dataclass(frozen=True)
class CardFacts:
    """All that a card says. `digest` is that of the content which it describes."""

    report: Report
    manifest: CacheManifest
    statistics: LabelStatistics
    digest: str
    written: date
    sources: tuple[Source, ...]
    teachers: tuple[Teacher, ...]
    arrays: tuple[Array, ...]
    classes: tuple[LabelClass, ...]
    left_out: Mapping[str, int]
    """Samples without labels, by reason."""
    faults: tuple[str, ...]
    """What is damaged or implausible."""

    @property
    def title(self) -> str:
        """What the cache is, in a few words."""
        parts = [f"{source.dataset} ({source.split})" for source in self.sources]
        return f"Pseudo labels of {', '.join(dict.fromkeys(parts))}"

    @property
    def format_version(self) -> str:
        """The version of the cache format; version 1 has no minor versions."""
        version = self.manifest.schema_version
        return "1" if version == 1 else f"{version}.{self.manifest.schema_minor}"

    @property
    def has_points(self) -> bool:
        """Whether the samples have points."""
        return "point" in self.manifest.modalities

    @property
    def bytes_by_group(self) -> dict[str, int]:
        """The bytes of each group in all shards."""
        sizes: Counter[str] = Counter()
        for array in self.arrays:
            sizes[array.path.split("/")[0]] += array.bytes
        return dict(sizes)

    @property
    def licences(self) -> tuple[Licence | None, ...]:
        """The licences of the data sets, each once."""
        return tuple(dict.fromkeys(source.licence for source in self.sources))

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that shape the labels."""
        return {name: value for name, value in self.manifest.config.items() if name not in NOT_OF_THE_LABELS}


def collect_facts(report: Report, own_licence: str | None) -> CardFacts:
    """Return the facts about the cache of a report; `own_licence` is that of data sets which declare none.

    Raises:
        CacheError: if no shard is finished, or a licence is given and all data sets declare theirs.
    """
    cache, manifest = Cache.open(report.cache)
    if report.statistics is None:
        raise CacheError(
            f"{report.cache}: no shard is finished, so there is nothing to describe; run the same `labelgen run` again"
        )
    sources = tuple(_sources(cache, manifest, own_licence))
    if own_licence and all(source.licence and source.licence.name != own_licence for source in sources):
        raise CacheError(
            f"--licence {own_licence!r}: {', '.join(manifest.datasets)} has a licence of its own "
            f"({', '.join(source.licence.name for source in sources if source.licence)}); omit the option"
        )
    return CardFacts(
        report=report,
        manifest=manifest,
        statistics=report.statistics,
        digest=content_digest(cache, manifest),
        written=datetime.now(UTC).date(),
        sources=sources,
        teachers=tuple(_teachers(manifest)),
        arrays=tuple(_arrays(report)),
        classes=tuple(_classes(manifest, report.statistics)),
        left_out=Counter(
            f"{found.stage}: {printable(short_reason(found.stage, found.reason))}" for found in report.samples.reasons
        ),
        faults=tuple(_faults(report)),
    )


def _sources(cache: Cache, manifest: CacheManifest, own_licence: str | None) -> Iterator[Source]:
    """Yield the sources of a cache, each with what its shards hold."""
    records: dict[tuple[str, str], list[ShardRecord]] = {}
    for record in cache.shard_records(cache.shard_keys()).values():
        if record.samples:
            place = record.dataset or manifest.dataset, manifest.split_of(record)
            records.setdefault(place, []).append(record)
    own = Licence(own_licence, "") if own_licence else None
    for source in manifest.sources:
        found = records.get((source.dataset, source.split), [])
        licence, citation = _declared(source.dataset)
        yield Source(
            dataset=source.dataset,
            version=source.version or "",
            split=source.split,
            scenes=len({record.scene for record in found}),
            samples=sum(len(record.samples) for record in found),
            licence=licence or own,
            citation=citation,
        )


def _declared(dataset: str) -> tuple[Licence | None, str]:
    """Return the licence and citation that a data set declares; neither if it is not installed here."""
    try:
        found = find_dataset(dataset)
    except ConfigError:
        return None, ""
    return found.licence, found.citation


def _teachers(manifest: CacheManifest) -> Iterator[Teacher]:
    for name, network in manifest.teachers.networks.items():
        weights = registered_as(network.sha256) if network.sha256 else None
        licence = weights.licence if weights else None
        yield Teacher(name, network.architecture, network.weights, network.sha256, licence)


def _arrays(report: Report) -> Iterator[Array]:
    for path, size in report.bytes.items():
        group, name = path.split("/")
        spec: GroupSpec | None = ROOT_GROUPS.get(group) or shard_group(group)
        if spec and (array := spec.arrays.get(name)):
            yield Array(path, ", ".join(map(str, array.axes)), " or ".join(array.dtypes), array.meaning, size)


def _classes(manifest: CacheManifest, statistics: LabelStatistics) -> Iterator[LabelClass]:
    labels, truth = statistics.labels, statistics.truth
    for number, declared in enumerate(manifest.taxonomy.classes):
        name = declared.name
        yield LabelClass(
            number,
            name,
            declared.colour,
            _share(labels.image, name),
            _share(labels.point, name),
            _iou(truth.image, name),
            _iou(truth.point, name),
        )


def _share(labels: LabelCounts, name: str) -> float | None:
    """Return the share of a class in all labels; those without a class do not count."""
    total = sum(count for own, count in labels.refined.items() if own != "ignore")
    return labels.refined[name] / total if total else None


def _iou(truth: Agreement | None, name: str) -> float | None:
    return truth.refined.iou[name] if truth else None


def _faults(report: Report) -> Iterable[str]:
    """Yield what the audit found, without the place of the cache."""
    verdict = report.verdict
    for sentence in (*verdict.complete, *verdict.whole, *verdict.plausible):
        yield printable(sentence).replace(f"{report.cache}/", "").removesuffix(", see below")

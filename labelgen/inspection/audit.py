"""Put the report of a cache together from what is counted and judged."""

from collections.abc import Iterable, Sequence

from cache_schemas.documents import CacheManifest
from cache_schemas.errors import CacheError
from cache_schemas.group_path import GroupPath
from cache_schemas.layout import SOURCE_PREFIX
from cache_schemas.names import is_file_name
from cache_schemas.store import Cache
from labelgen.inspection.counting.instances import count_instances
from labelgen.inspection.counting.inventory import Inventory, take_inventory
from labelgen.inspection.counting.label_changes import count_label_changes
from labelgen.inspection.counting.measures import Measurements
from labelgen.inspection.counting.over_time import count_over_time
from labelgen.inspection.counting.streaming import CountedSamples
from labelgen.inspection.counting.summary import summarize, summarize_sample, summarize_shard
from labelgen.inspection.declarations import smallest_seen_share
from labelgen.inspection.judging.class_diagnosis import diagnose_classes
from labelgen.inspection.judging.comparison import compare_reports, shard_keys
from labelgen.inspection.judging.outliers import find_outliers
from labelgen.inspection.judging.verdict import judge_completeness, judge_plausibility, judge_wholeness
from labelgen.inspection.report import (
    Comparison,
    DamagedShard,
    ProblemEntry,
    Report,
    Scoring,
    Selection,
    TeacherNetworks,
    Verdict,
)
from labelgen.inspection.report_instances import InstanceReport
from labelgen.inspection.report_over_time import OverTimeReport
from labelgen.inspection.selection import count_selection
from labelgen.presets import preset_of
from labelgen.weights import registered_as

LISTED_SAMPLES = 50
"""The report lists so many samples, worst first."""


def inspect_cache(
    url: str, selection: Selection | None = None, against: str | None = None, scoring: Scoring | None = None
) -> Report:
    """Return the report of the cache at `url`, compared with the cache at `against` if one is given.

    Raises:
        CacheError: if there is no readable cache at a URL, the selection or the scoring names what is not in it, or the
            caches have different classes.
    """
    scoring = scoring or Scoring()
    report = _inspect_one(url, selection, scoring)
    if against is None:
        return report
    return report.model_copy(update={"against": _compare(report, against, selection)})


def _inspect_one(url: str, selection: Selection | None, scoring: Scoring) -> Report:
    cache, manifest = Cache.open(url)
    inventory = take_inventory(cache, manifest)
    finished = inventory.finished_samples
    if scoring.source is not None:
        _check_source(cache, finished, scoring.source)
    counted, ranked = count_selection(url, manifest, finished, selection or Selection(), scoring)
    classes = len(manifest.taxonomy.names)
    instances = count_instances(cache, finished, classes, scoring)
    over_time = count_over_time(cache, finished, classes, scoring)
    return _make_report(url, manifest, selection, scoring, inventory, counted, ranked, instances, over_time)


def _check_source(cache: Cache, keys: Iterable[str], name: str) -> None:
    """Raise CacheError if none of some shards has labels of a source."""
    if not is_file_name(name) or not cache.seals(GroupPath(key, SOURCE_PREFIX + name) for key in keys):
        raise CacheError(
            f"{cache.url}: no finished shard has labels of source {name!r}; import them with `labelgen import-labels "
            f"{cache.url} DIR --format .. --name {name}`"
        )


def _make_report(
    url: str,
    manifest: CacheManifest,
    selection: Selection | None,
    scoring: Scoring,
    inventory: Inventory,
    counted: CountedSamples,
    ranked: Sequence[Measurements],
    instances: InstanceReport | None,
    over_time: OverTimeReport | None,
) -> Report:
    names = manifest.taxonomy.names
    shards, samples = inventory.count_shards(), inventory.count_samples()
    damaged = tuple(DamagedShard(shard=key, message=message) for key, message in sorted(counted.damaged.items()))
    statistics = summarize(counted.total, names, scoring.rule) if counted.total else None
    outliers = tuple(find_outliers(counted.shards))
    return Report(
        cache=url,
        schema_version=manifest.schema_version,
        dataset=", ".join(manifest.datasets),
        split=", ".join(manifest.splits),
        taxonomy=manifest.taxonomy.name,
        prompts=manifest.prompts.name,
        preset=preset_of(manifest.config),
        teachers=_teacher_networks(manifest, inventory.untrained),
        config_digest=manifest.config_digest,
        software=manifest.software,
        selection=selection,
        scoring=scoring,
        shards=shards,
        groups_sealed=inventory.count_groups(),
        samples=samples,
        problems=tuple(ProblemEntry(**problem.to_dict()) for problem in inventory.broken),
        damaged=damaged,
        statistics=statistics,
        ranked=len(ranked),
        by_shard=tuple(summarize_shard(shard, names) for shard in counted.shards),
        worst_samples=tuple(summarize_sample(sample, names) for sample in ranked[:LISTED_SAMPLES]),
        outliers=outliers,
        classes=diagnose_classes(counted.total, counted.shards, names, scoring.rule) if counted.total else (),
        instances=instances,
        over_time=over_time,
        bytes=inventory.stored_bytes,
        verdict=Verdict(
            complete=judge_completeness(shards, samples),
            whole=judge_wholeness(inventory.broken, damaged),
            plausible=judge_plausibility(
                statistics,
                outliers,
                untrained=inventory.untrained,
                foreign=_foreign_teachers(manifest),
                all_samples=selection is None,
                counts_misses=scoring.unlabelled == "miss",
                smallest_seen_share=min(map(smallest_seen_share, manifest.datasets)),
            ),
        ),
    )


def _foreign_teachers(manifest: CacheManifest) -> list[str]:
    """Return a sentence for each teacher whose weights are of use for other data sets only."""
    found = []
    for name, network in manifest.teachers.networks.items():
        weights = registered_as(network.sha256) if network.sha256 else None
        if weights and weights.datasets and not set(manifest.datasets) <= set(weights.datasets):
            others = ", ".join(sorted(set(manifest.datasets) - set(weights.datasets)))
            found.append(
                f"{name} has the weights {network.weights}, which are for {', '.join(weights.datasets)} only and not "
                f"for {others}: its labels can be wrong with high confidence"
            )
    return found


def _teacher_networks(manifest: CacheManifest, untrained: bool) -> TeacherNetworks:
    teachers = manifest.teachers
    return TeacherNetworks(preset=teachers.preset, networks=teachers.networks, untrained=untrained)


def _compare(report: Report, other_url: str, selection: Selection | None) -> Comparison:
    ours, theirs = Cache.open(report.cache)[1].taxonomy, Cache.open(other_url)[1].taxonomy
    if theirs.names != ours.names:
        raise CacheError(
            f"{other_url}: its taxonomy {theirs.name} has other classes than that of {report.cache} ({ours.name}); "
            "compare caches of one taxonomy"
        )
    other = _inspect_one(other_url, selection, report.scoring)
    shared = sorted(shard_keys(report) & shard_keys(other))
    changes = count_label_changes(report.cache, other_url, shared, len(ours.names))
    return compare_reports(report, other, changes, ours.names)

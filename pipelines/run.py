"""The whole job: settings, plan, work on Ray, summary."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cache_schemas.documents import ShardRecord
from cache_schemas.errors import ConfigError
from cache_schemas.group_path import SUMMARY
from cache_schemas.location import canonical
from cache_schemas.lock import run_lock, writing
from cache_schemas.packed_file import refuse_packed
from cache_schemas.store import Cache
from labelgen.datasets.adapter import Adapter
from labelgen.file_warnings import describe
from labelgen.samples import Scene
from labelgen.stages import STAGES
from labelgen.stages.inputs import ResolvedSettings
from pipelines.announcement import announce, refuse_incomplete
from pipelines.cluster import cluster
from pipelines.config import RunConfig
from pipelines.fingerprints import recipe_of
from pipelines.leftovers import sweep_half_written
from pipelines.local_cluster import sweep_dead_clusters
from pipelines.manifest import manifest_after, open_for_run, update_manifest
from pipelines.plan import Planner, ShardPlan, needs_work
from pipelines.resolve import open_dataset, read_scenes, resolve, with_modalities_of
from pipelines.setbacks import STORE_REQUESTS
from pipelines.store_retries import count_retries, take_retries
from pipelines.summary import SHARD_TEACHERS, RunSummary
from pipelines.summary_file import write_summary
from pipelines.user_name import ensure_user_name


@dataclass(frozen=True)
class RunRequest:
    """What a user asked for: settings, where input and output are, which shards, and the cluster."""

    config: RunConfig
    data: Path
    cache: str
    shards: str = "*"
    part: tuple[int, int] = (1, 1)
    limit: int | None = None
    ray_address: str | None = None
    retry_quarantined: bool = False
    only_complete: bool = False


def read_dataset(request: RunRequest) -> tuple[Adapter, ResolvedSettings, list[Scene]]:
    """Return the adapter of a request's data set, its settings for the modalities that are there, and its scenes.

    Raises:
        LabelgenError: if the data set cannot be read, or the settings do not fit it.
    """
    adapter = open_dataset(request.config.dataset, request.data, request.config.sweeps.count)
    resolved = resolve(request.config, adapter)
    scenes = read_scenes(request.config, adapter)
    return adapter, with_modalities_of(scenes, resolved), scenes


def plan_request(planner: Planner, scenes: Sequence[Scene], request: RunRequest) -> list[ShardPlan]:
    """Return the plan of the shards that a request chooses."""
    return planner.plan(
        scenes,
        pattern=request.shards,
        part=request.part,
        limit=request.limit,
        retry_quarantined=request.retry_quarantined,
    )


def generate_labels(request: RunRequest, say: Callable[[str], None]) -> RunSummary:
    """Bring a cache up to date with its dataset and settings; `say` gets the lines that announce the work.

    Raises:
        LabelgenError, CacheError: if the run cannot start or continue; sealed groups are kept.
    """
    start = time.monotonic()
    refuse_packed(request.cache)
    ensure_user_name()
    sweep_dead_clusters()
    adapter, resolved, scenes = read_dataset(request)
    with run_lock(request.cache) as holder:
        sweep_half_written(request.cache)
        cache = open_for_run(request.cache, resolved)
        planner = Planner(adapter.data, cache, resolved)
        plan = plan_request(planner, scenes, request)
        if not plan:
            part = "" if request.part == (1, 1) else f" in part {request.part[0]} of {request.part[1]}"
            raise ConfigError(
                f"--shards {request.shards!r} matches no shard{part}; keys look like {scenes[0].name}-000"
            )
        records = cache.shard_records(shard.key for shard in plan)
        due = [shard for shard in plan if needs_work(shard, records.get(shard.key))]
        summary = RunSummary(request.cache, resolved.teachers.preset, shards_kept=len(plan) - len(due))
        for line in announce(plan, due, planner):
            say(line)
        refuse_incomplete(planner, due, scenes, adapter, request.only_complete)
        _complete_records([shard for shard in plan if shard not in due], records, cache, holder)
        records_after = {shard.key: shard.record for shard in plan}
        if due or planner.due_roots():
            records_after |= _work(due, request, resolved, holder, planner, summary)
        else:
            update_manifest(cache, resolved)
        summary.count_samples(records_after.values())
        summary.seconds = time.monotonic() - start
        if summary.stage_seconds:
            try:
                write_summary(summary, holder)
            except Exception as error:
                summary.warnings.append(_after_the_work(f"{SUMMARY} cannot be written", error))
    return summary


def _after_the_work(what: str, error: Exception) -> str:
    """Return the warning for an error that comes once all labels are sealed: the run has succeeded all the same."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"{what} ({reason.splitlines()[0]})"


def _complete_records(kept: Sequence[ShardPlan], records: Mapping[str, ShardRecord], cache: Cache, holder: str) -> None:
    """Rewrite the records of up-to-date shards that lack what the present format tells, such as files of pictures."""
    with writing(cache.url, holder):
        for shard in kept:
            if records[shard.key] != shard.record:
                cache.write_shard_record(shard.key, shard.record)


def _work(
    due: Sequence[ShardPlan],
    request: RunRequest,
    resolved: ResolvedSettings,
    holder: str,
    planner: Planner,
    summary: RunSummary,
) -> dict[str, ShardRecord]:
    """Do the work that is due on a cluster, and add it to the summary; returns the records of its shards, by key."""
    tally, late_warnings = None, []
    count_retries()
    try:
        with cluster(request.ray_address) as running:
            from pipelines.execute import execute
            from pipelines.progress import Progress
            from pipelines.tasks import Job

            adapter = open_dataset(request.config.dataset, request.data.absolute())
            job = Job(canonical(request.cache), adapter, resolved, holder)
            samples = {name: sum(len(shard.samples) for shard in due if name in shard.todo) for name in STAGES}
            progress = Progress(len(due), samples)
            manifest = manifest_after(planner.cache, resolved)
            tally = execute(due, job, request.config.ray, planner, running, progress, manifest)
            summary.gpus = running.resources().get("GPU", 0.0)
    except Exception as error:
        if tally is None:
            raise
        late_warnings.append(_after_the_work("the cluster failed after the work was done", error))
    tally.setbacks.retries[STORE_REQUESTS] += take_retries()
    summary.count_setbacks(tally.setbacks)
    summary.shards_done = len(tally.records)
    summary.count_work(due)
    summary.teacher_recipes = {name: recipe_of(name, resolved) for name in SHARD_TEACHERS}
    summary.warnings = describe(tally.warnings) + late_warnings
    summary.groups_sealed = dict(sorted(tally.sealed.items()))
    summary.stage_seconds = tally.seconds
    summary.stage_peak_mib = tally.peak_mib
    return tally.records

"""The whole job: settings, plan, Ray, summary."""

import platform
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from cache_schemas.documents import CacheManifest, PromptRecord, Teachers
from cache_schemas.errors import CacheError, ConfigError
from cache_schemas.group_path import GroupPath
from cache_schemas.layout import SCHEMA_VERSION, SHARD_GROUPS
from cache_schemas.lock import run_lock
from cache_schemas.place import is_url
from cache_schemas.store import Cache
from cache_schemas.taxonomy import load_taxonomy
from labelgen.datasets import ADAPTERS
from labelgen.errors import DatasetError
from labelgen.prompts import load_prompts
from labelgen.samples import file_sizes
from labelgen.teachers.checkpoints import UNTRAINED, identify
from pipelines.cluster import cluster, sweep_dead_clusters
from pipelines.config import RunConfig
from pipelines.plan import RAW_GROUPS, Planner, Recipe, ShardPlan, digest
from pipelines.stop import stops_like_ctrl_c

Say = Callable[[str], None]

SOFTWARE = ("torch", "torchvision", "open_clip_torch", "segment-anything", "numpy", "pillow", "zarr", "ray")


@dataclass(frozen=True)
class RunRequest:
    """What a user asked for: settings, where input and output are, which shards, and the cluster."""

    config: RunConfig
    data: Path
    cache: str
    shards: str = "*"
    limit: int | None = None
    ray_address: str | None = None
    retry_quarantined: bool = False


@dataclass
class RunSummary:
    """What a run did.

    `seconds` is the wall time; `stage_seconds` is work summed over workers, by stage; `wall_over_teachers` is the wall
    time over that of the stages `clip` and `sam`: near 1 on one GPU, where all else is hidden behind the teachers.
    """

    cache: str
    teachers: str
    shards_done: int = 0
    shards_kept: int = 0
    samples_labelled: int = 0
    samples_quarantined: int = 0
    quarantined_by_reason: dict[str, int] = field(default_factory=dict)
    groups_sealed: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    stage_seconds: dict[str, float] = field(default_factory=dict)
    stage_peak_mib: dict[str, float] = field(default_factory=dict)

    @property
    def wall_over_teachers(self) -> float | None:
        """The wall time over the teachers' summed work; None if they had none."""
        work = sum(self.stage_seconds.get(teacher, 0.0) for teacher in ("clip", "sam"))
        return self.seconds / work if work else None

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as a JSON-ready object."""
        return {**asdict(self), "wall_over_teachers": self.wall_over_teachers}

    def render(self) -> str:
        """Return the summary as text for a terminal."""
        lines = [
            f"{self.cache}: {self.shards_done} shards done, {self.shards_kept} were up to date",
            f"teachers: {self.teachers}",
            f"samples: {self.samples_labelled:,} labelled, {self.samples_quarantined:,} quarantined",
        ]
        lines += [f"  {count}x {reason}" for reason, count in self.quarantined_by_reason.items()]
        lines += [
            f"  {stage:<12} {seconds:9.1f} s of work, peak {self.stage_peak_mib[stage]:7,.0f} MiB in one process"
            for stage, seconds in sorted(self.stage_seconds.items(), key=lambda item: -item[1])
        ]
        share = self.wall_over_teachers
        lines.append(f"{self.seconds:.1f} s in all" + (f", {share:.2f} x the teachers' work" if share else ""))
        return "\n".join(lines)


@stops_like_ctrl_c()
def generate_labels(request: RunRequest, say: Say) -> RunSummary:
    """Bring a cache up to date with its dataset and settings; `say` hears what is about to happen.

    Raises:
        LabelgenError, CacheError: if the run cannot start or go on; what is sealed stays.
    """
    start = time.monotonic()
    sweep_dead_clusters()
    recipe = make_recipe(request.config)
    adapter = ADAPTERS[request.config.dataset](request.data)
    scenes = adapter.scenes(request.config.split, request.config.version)
    with run_lock(request.cache) as holder:
        sweep_half_written(request.cache)
        cache = open_for_run(request.cache, recipe)
        planner = Planner(request.data, cache, recipe)
        plan = planner.plan(
            scenes, pattern=request.shards, limit=request.limit, retry_quarantined=request.retry_quarantined
        )
        if not plan:
            raise ConfigError(f"--shards {request.shards!r} matches no shard; keys look like {scenes[0].name}-000")
        due = [shard for shard in plan if needs_work(shard, cache)]
        summary = RunSummary(request.cache, recipe.teachers.preset, shards_kept=len(plan) - len(due))
        for line in announce(plan, due, recipe, cache):
            say(line)
        check_files_are_there(due, request.data)
        if due:
            _work(due, request, recipe, holder, planner, summary)
        elif cache.manifest() != (manifest := make_manifest(recipe)):
            Cache.create(request.cache, manifest)
        count_samples(summary, cache, plan)
    summary.seconds = time.monotonic() - start
    return summary


def make_recipe(config: RunConfig) -> Recipe:
    """Load what the settings name: taxonomy, prompts, teacher weights.

    Raises:
        LabelgenError: if one of them is missing or does not fit.
    """
    if config.dataset not in ADAPTERS:
        raise ConfigError(f"no dataset {config.dataset!r}; choose {', '.join(ADAPTERS)}")
    taxonomy = load_taxonomy(ADAPTERS[config.dataset].taxonomy)
    prompts = load_prompts(config.prompts, taxonomy)
    teachers = Teachers(preset=config.teachers, networks={"clip": identify(config.clip), "sam": identify(config.sam)})
    return Recipe(config, taxonomy, prompts, teachers)


def sweep_half_written(url: str) -> None:
    """Remove documents that a killed run had not written to their end; those inside groups go as the group is redone.

    Zarr writes a local document beside its place and then moves it there. Object stores know no half-written object.

    Raises:
        CacheError: if one cannot be removed.
    """
    if is_url(url):
        return
    for pattern in ("*.partial", "shards/*.partial", "shards/*/*.partial"):
        for path in Path(url).glob(pattern):
            try:
                path.unlink()
            except OSError as error:
                raise CacheError(
                    f"{path}: cannot remove what a killed run left ({error.strerror}); make it writable"
                ) from error


def open_for_run(url: str, recipe: Recipe) -> Cache:
    """Open the cache, or create it with its manifest.

    Raises:
        CacheError: if it holds another dataset, split or taxonomy, or cannot be written.
    """
    existing = Cache(url).manifest()
    if existing is None:
        return Cache.create(url, make_manifest(recipe))
    for name, held, asked in (
        ("dataset", existing.dataset, recipe.config.dataset),
        ("split", existing.split, recipe.config.split),
        ("taxonomy", existing.taxonomy.digest, recipe.taxonomy.digest),
    ):
        if held != asked:
            raise CacheError(f"{url}: holds {name} {held!r}, not {asked!r}; give another cache folder")
    return Cache(url, "a")


def make_manifest(recipe: Recipe) -> CacheManifest:
    """Return the manifest of a cache made by `recipe`."""
    config = recipe.config.model_dump(mode="json")
    return CacheManifest(
        schema_version=SCHEMA_VERSION,
        dataset=recipe.config.dataset,
        split=recipe.config.split,
        taxonomy=recipe.taxonomy,
        taxonomy_digest=recipe.taxonomy.digest,
        prompts=PromptRecord(
            name=recipe.prompts.name,
            digest=recipe.prompts.digest,
            class_names=recipe.prompts.class_names,
            templates=recipe.prompts.templates,
        ),
        teachers=recipe.teachers,
        config=config,
        config_digest=digest(config),
        recipes={group: recipe.digest_of(group) for group in ("text", *SHARD_GROUPS)},
        software={"python": platform.python_version(), **{name: metadata.version(name) for name in SOFTWARE}},
    )


def check_files_are_there(due: Sequence[ShardPlan], data: Path) -> None:
    """Refuse to quarantine a whole dataset whose files are simply not there.

    Raises:
        DatasetError: if not one file of the samples to be read exists.
    """
    samples = [sample for shard in due if shard.todo & set(RAW_GROUPS) for sample in shard.samples]
    if samples and not any(size for sample in samples for size in file_sizes(data, sample.input_paths).values()):
        raise DatasetError(
            f"{data}: none of the {len(samples):,} samples to be read has its files, such as {samples[0].cloud_path}; "
            "is the disk mounted, are the archives with the samples extracted?"
        )


def needs_work(shard: ShardPlan, cache: Cache) -> bool:
    """Tell whether anything of a shard is missing, changed, or left over."""
    record = cache.shard_records([shard.key]).get(shard.key)
    if not shard.samples:
        return record != shard.record
    return bool(shard.todo) or record is None or record.samples != shard.record.samples


def announce(plan: Sequence[ShardPlan], due: Sequence[ShardPlan], recipe: Recipe, cache: Cache) -> list[str]:
    """Return the lines that tell a user what is about to be done, and why."""
    samples = sum(len(shard.samples) for shard in plan)
    lines = [
        f"{recipe.config.dataset}, split {recipe.config.split}: {len(plan)} shards, {samples:,} samples; "
        f"teachers {recipe.teachers.preset}, prompts {recipe.prompts.name}"
    ]
    if _untrained(recipe.teachers):
        lines.append("WARNING: teachers are untrained: geometry and plumbing are real, the labels mean nothing")
    sealed = cache.seals(GroupPath(shard.key, group) for shard in due for group in shard.todo)
    for group in SHARD_GROUPS:
        todo = [shard for shard in due if group in shard.todo]
        changed = sum(GroupPath(shard.key, group) in sealed for shard in todo)
        counts = {"to make": len(todo) - changed, "to redo, since something changed": changed}
        if todo:
            lines.append(f"  {group:<7}" + ", ".join(f"{count} {what}" for what, count in counts.items() if count))
    lines.append(f"shards: {len(plan) - len(due)} up to date, {len(due)} to do")
    return lines


def _untrained(teachers: Teachers) -> bool:
    return any(teacher.weights.startswith(UNTRAINED) for teacher in teachers.networks.values())


def _work(
    due: Sequence[ShardPlan], request: RunRequest, recipe: Recipe, holder: str, planner: Planner, summary: RunSummary
) -> None:
    with cluster(request.ray_address) as resources:
        from pipelines.execute import execute
        from pipelines.progress import Progress
        from pipelines.tasks import Job

        adapter = ADAPTERS[request.config.dataset](request.data.resolve())
        cache_url = request.cache if "://" in request.cache else str(Path(request.cache).resolve())
        job = Job(cache_url, adapter, recipe, holder)
        expected = {
            teacher: sum(len(shard.samples) for shard in due if teacher in shard.todo) for teacher in ("clip", "sam")
        }
        progress = Progress(len(due), expected)
        tally = execute(due, job, planner, resources, progress, make_manifest(recipe))
    summary.shards_done = len(tally.finished)
    summary.groups_sealed = dict(sorted(tally.sealed.items()))
    summary.stage_seconds = tally.seconds
    summary.stage_peak_mib = tally.peak_mib


def count_samples(summary: RunSummary, cache: Cache, plan: Sequence[ShardPlan]) -> None:
    """Fill in how many of the plan's samples are in the cache, and how many are quarantined, by stage."""
    records = cache.shard_records(shard.key for shard in plan)
    quarantined = [entry for record in records.values() for entry in record.quarantined]
    summary.samples_labelled = sum(len(record.samples) for record in records.values())
    summary.samples_quarantined = len(quarantined)
    summary.quarantined_by_reason = dict(Counter(f"{entry.stage}: {entry.reason}" for entry in quarantined))

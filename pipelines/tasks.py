"""The Ray tasks and actors: each reads, calls one step of `labelgen.shard`, and writes at most one group's arrays."""

import os
import resource
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray

from cache_schemas.documents import Provenance
from cache_schemas.group_path import GroupPath
from cache_schemas.layout import SHARD_GROUPS
from cache_schemas.lock import writing
from cache_schemas.store import Cache
from labelgen import shard as steps
from labelgen.datasets.adapter import Adapter
from labelgen.samples import Sample
from labelgen.settings import ClipSettings, SamSettings
from labelgen.teachers.sam import Picture, SamResult, fit
from pipelines.config import RunConfig
from pipelines.plan import Recipe, ShardPlan
from pipelines.pool import IN_FLIGHT


@dataclass(frozen=True)
class Job:
    """What every task of a run needs to know besides its shard; `holder` is the run's name in its lock."""

    cache_url: str
    adapter: Adapter
    recipe: Recipe
    holder: str

    @property
    def config(self) -> RunConfig:
        """The settings of the run."""
        return self.recipe.config


@dataclass
class Report:
    """What a task did: seconds of work by stage, peak resident MiB of its process, groups sealed, bad samples."""

    seconds: dict[str, float] = field(default_factory=dict)
    peak_mib: dict[str, float] = field(default_factory=dict)
    sealed: list[str] = field(default_factory=list)
    bad_samples: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage of the task."""
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
        self.peak_mib[name] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@ray.remote
def write_images(job: Job, shard: ShardPlan) -> Report:
    """Decode and resize the shard's pictures, and seal `images`."""
    report = Report()
    try:
        with report.stage("images"):
            arrays = steps.make_images(job.adapter, shard.samples, job.config.images.size)
            _seal(job, shard, "images", arrays, report)
    except steps.BadSamplesError as error:
        report.bad_samples = error.reasons
    return report


@ray.remote
def write_points(job: Job, shard: ShardPlan) -> Report:
    """Read the shard's clouds, pair them with the images, and seal what is due of `points`, `pairs`, `truth`."""
    report = Report()
    try:
        with report.stage("points"):
            clouds = steps.read_clouds(job.adapter, shard.samples)
            groups = {"points": steps.make_points(clouds)}
            if "pairs" in shard.todo:
                config = job.config
                groups["pairs"] = steps.make_pairs(shard.samples, clouds, config.images.size, config.points.min_depth_m)
            if "truth" in shard.todo:
                groups["truth"] = steps.make_truth(job.adapter, shard.samples, clouds, job.config.images.size)
            for name in SHARD_GROUPS:
                if name in groups and name in shard.todo:
                    _seal(job, shard, name, groups[name], report)
    except steps.BadSamplesError as error:
        report.bad_samples = error.reasons
    return report


@ray.remote
def check_sample(job: Job, sample: Sample) -> Report:
    """Read all files of one sample and throw them away: finds the one that kills its worker."""
    report = Report()
    try:
        steps.make_images(job.adapter, [sample], job.config.images.size)
        clouds = steps.read_clouds(job.adapter, [sample])
        steps.make_truth(job.adapter, [sample], clouds, job.config.images.size)
    except steps.BadSamplesError as error:
        report.bad_samples = error.reasons
    return report


@ray.remote(num_returns=2)
def decode(job: Job, samples: Sequence[Sample]) -> tuple[Report, list[Any]]:
    """Decode the native pictures of some samples, and resize them for SAM."""
    report = Report()
    with report.stage("decode"):
        pictures = [
            fit(image, job.config.sam.architecture)
            for sample in samples
            for image in steps.read_native_images(job.adapter, sample)
        ]
    return report, pictures


@ray.remote
class ClipActor:
    """Holds the CLIP teacher; embeds the class names, and scores images of sealed `images` groups."""

    def __init__(self, job: Job, threads: int) -> None:
        """Load the network.

        Raises:
            LabelgenError: if the settings do not fit it.
        """
        self.job = job
        self.text: Any = None
        self.teacher = _clip_teacher(job.config.clip, threads)
        self.teacher.check_size(job.config.images.size)

    @ray.method(num_returns=2)
    def write_text(self) -> tuple[Report, None]:
        """Embed the prompts of all classes and seal `text`."""
        report, recipe = Report(), self.job.recipe
        with report.stage("text"):
            embeddings = self.teacher.embed_text(recipe.prompts.sentences())
            with _writable_unless_sealed(self.job, GroupPath.root("text"), recipe.text_fingerprint) as cache:
                if cache:
                    cache.write_group(
                        GroupPath.root("text"),
                        {"embeddings": embeddings},
                        Provenance(
                            fingerprint=recipe.text_fingerprint,
                            recipe=recipe.digest_of("text"),
                            teacher=recipe.teacher_of("text"),
                        ),
                    )
        report.sealed.append("text")
        return report, None

    @ray.method(num_returns=2)
    def score(self, shard_key: str, first_image: int, last_image: int) -> tuple[Report, Any]:
        """Score images first..last (exclusive) of a shard."""
        report = Report()
        with report.stage("clip"):
            cache = Cache(self.job.cache_url)
            if self.text is None:  # sealed before the first images come, but not before the network loads
                self.text = cache.read(GroupPath.root("text"))["embeddings"]
            rgb = cache.arrays(GroupPath(shard_key, "images"), "rgb")["rgb"]
            scores = self.teacher.score(rgb[first_image:last_image], self.text)
        return report, scores


@ray.remote(max_concurrency=IN_FLIGHT)
class SamActor:
    """Holds the SAM teacher; segments decoded pictures, and meanwhile takes and uploads the next."""

    def __init__(self, job: Job, threads: int) -> None:
        """Load the network."""
        self.teacher = _sam_teacher(job.config.sam, threads)
        self.size = job.config.images.size
        self.turn = threading.Lock()

    @ray.method(num_returns=2)
    def segment(self, report: Report, pictures: list[Picture]) -> tuple[Report, SamResult]:
        """Segment pictures into id maps at training size; adds to the report of their decoding."""
        batch = self.teacher.upload(pictures)
        with self.turn, report.stage("sam"):
            segmented = self.teacher.segment(batch, pictures[0].native, self.size)
        return report, self.teacher.fetch(*segmented)


@ray.remote
def write_clip(job: Job, shard: ShardPlan, *parts: Any) -> Report:
    """Gather CLIP's results and seal `clip`."""
    report = Report()
    with report.stage("write clip"):
        _seal(job, shard, "clip", steps.make_clip(parts), report)
    return report


@ray.remote
def write_sam(job: Job, shard: ShardPlan, *parts: Any) -> Report:
    """Gather SAM's results and seal `sam`."""
    report = Report()
    with report.stage("write sam"):
        _seal(job, shard, "sam", steps.make_sam(parts), report)
    return report


@ray.remote
def write_labels(job: Job, shard: ShardPlan) -> Report:
    """Make labels from the shard's sealed groups, and seal `labels`."""
    report = Report()
    with report.stage("labels"):
        cache = Cache(job.cache_url)
        clip, sam, pairs = (
            cache.read(GroupPath(shard.key, group), *names)
            for group, names in (("clip", ["logits"]), ("sam", ["mask_ids"]), ("pairs", []))
        )
        points = cache.arrays(GroupPath(shard.key, "points"))["xyz"].shape[0]
        _seal(job, shard, "labels", steps.make_labels(clip, sam, pairs, points), report)
    return report


def _seal(job: Job, shard: ShardPlan, group: str, arrays: steps.Arrays, report: Report) -> None:
    path, fingerprint = GroupPath(shard.key, group), shard.fingerprints[group]
    with _writable_unless_sealed(job, path, fingerprint) as cache:
        if cache:
            cache.write_group(
                path,
                arrays,
                Provenance(
                    fingerprint=fingerprint,
                    upstream=shard.upstream(group, job.recipe.text_fingerprint),
                    samples=shard.record.samples,
                    counts=_counts(shard, group, arrays),
                    recipe=job.recipe.digest_of(group),
                    teacher=job.recipe.teacher_of(group),
                ),
            )
    report.sealed.append(group)


def _counts(shard: ShardPlan, group: str, arrays: steps.Arrays) -> dict[str, int]:
    """Return what a seal tells without its arrays: samples, and of masks the most that an image has."""
    masks = {"masks": int(arrays["mask_ids"].max(initial=0))} if group == "sam" else {}
    return {"samples": len(shard.samples), **masks}


@contextmanager
def _writable_unless_sealed(job: Job, path: GroupPath, fingerprint: str) -> Iterator[Cache | None]:
    """Open the cache to write a group; None if a try of this task sealed it before its worker died."""
    with writing(job.cache_url, job.holder):
        cache = Cache(job.cache_url, "a")
        seal = cache.seals([path]).get(path)
        yield None if seal and seal.fingerprint == fingerprint else cache


def _device(threads: int) -> str:
    import torch

    torch.set_num_threads(threads)
    return "cuda" if torch.cuda.is_available() and os.environ.get("CUDA_VISIBLE_DEVICES") != "" else "cpu"


def _clip_teacher(settings: ClipSettings, threads: int) -> Any:
    from labelgen.teachers.clip import ClipTeacher

    return ClipTeacher(settings, _device(threads))


def _sam_teacher(settings: SamSettings, threads: int) -> Any:
    from labelgen.teachers.sam import SamTeacher

    return SamTeacher(settings, _device(threads))

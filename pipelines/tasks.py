"""The Ray tasks and the actor: each calls functions of a stage, and writes at most the groups of one step."""

import os
import pickle
import resource
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import ray

from cache_schemas.lock import writing
from cache_schemas.store import Cache
from labelgen.datasets.adapter import Adapter
from labelgen.file_warnings import FilesByText, collecting
from labelgen.samples import Sample
from labelgen.stages import STAGES, TEACHERS
from labelgen.stages.inputs import Arrays, BadSamplesError, ResolvedSettings, ShardInputs
from labelgen.stages.stage import TeacherCall
from pipelines.plan import GroupPlan
from pipelines.setbacks import STORE_REQUESTS, WORKER_DEATHS
from pipelines.store_retries import count_retries, take_retries
from pipelines.user_name import ensure_user_name


@dataclass(frozen=True)
class Job:
    """What every task of a run needs to know besides its group; `holder` is the name of the run in its lock."""

    cache_url: str
    adapter: Adapter
    resolved: ResolvedSettings
    holder: str


@dataclass(frozen=True)
class Chunk:
    """The samples of one call to a teacher; `first_image` is the index in the shard of their first image."""

    stage: str
    shard: str | None = None
    samples: tuple[Sample, ...] = ()
    first_image: int = 0


@dataclass
class Report:
    """What a task did: seconds of work and peak resident MiB of its process by kind of work, groups, bad samples.

    `warnings` are those about raw files that were used all the same. `retries` are the failed requests of this process
    since its last report, and the failed tries of the task, by reason.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    peak_mib: dict[str, float] = field(default_factory=dict)
    sealed: list[str] = field(default_factory=list)
    bad_samples: dict[str, str] = field(default_factory=dict)
    warnings: FilesByText = field(default_factory=dict)
    retries: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def timed(self, work: str) -> Iterator[None]:
        """Measure one kind of work."""
        count_retries()
        start = time.perf_counter()
        yield
        self.seconds[work] = self.seconds.get(work, 0.0) + time.perf_counter() - start
        self.peak_mib[work] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        self.retries[STORE_REQUESTS] += take_retries()
        self.retries[WORKER_DEATHS] = _earlier_tries()


def packed(value: Any) -> bytes:
    """Return a value with samples as bytes for Ray to send. Ray's own pickler calls Python for each object in it."""
    return pickle.dumps(value, protocol=5)


@ray.remote
def build_groups(job: Job, name: str, packed_groups: bytes) -> Report:
    """Build groups of one shard from the same inputs, and seal them; nothing is sealed if a sample is bad."""
    report, groups = Report(), pickle.loads(packed_groups)
    inputs = ShardInputs(job.resolved, job.adapter, groups[0].samples, Cache(job.cache_url), groups[0].path.shard)
    try:
        with report.timed(name), collecting(report.warnings):
            built = [_build(group.path.name, inputs) for group in groups]
            for group, arrays in zip(groups, built, strict=True):
                _seal(job, group, arrays, report)
    except BadSamplesError as error:
        report.bad_samples = error.reasons
    return report


@ray.remote(num_returns=2)
def build_part(job: Job, name: str, shard: str, packed_samples: bytes) -> tuple[Report, Arrays | None]:
    """Return the arrays of a stage for some samples of a shard, after a report on the work; none if a sample is bad."""
    report, samples = Report(), pickle.loads(packed_samples)
    inputs = ShardInputs(job.resolved, job.adapter, samples, Cache(job.cache_url), shard)
    try:
        with report.timed(name), collecting(report.warnings):
            return report, _build(name, inputs)
    except BadSamplesError as error:
        report.bad_samples = error.reasons
        return report, None


@ray.remote
def check_sample(job: Job, stages: Sequence[str], sample: Sample) -> Report:
    """Build groups of one sample and discard them, to see whether its files kill the worker that reads them."""
    report = Report()
    inputs = ShardInputs(job.resolved, job.adapter, [sample], Cache(job.cache_url), None)
    try:
        for stage in stages:
            _build(stage, inputs)
    except BadSamplesError as error:
        report.bad_samples = error.reasons
    return report


@ray.remote
class TeacherActor:
    """Holds the model of one teacher. While a chunk is computed, another call may decode and receive the next one.

    Decoded pictures do not cross the network: they have ten times the bytes of their files.
    """

    def __init__(self, job: Job, teacher: str, threads: int) -> None:
        """Load the model.

        Raises:
            LabelgenError: if the settings do not fit it.
        """
        ensure_user_name()
        self.job = job
        self.model = TEACHERS[teacher].load(job.resolved, _device(threads))
        self.computing = threading.Lock()
        self.root_groups: dict[str, Arrays] = {}

    @ray.method(num_returns=2)
    def answer(self, packed_chunk: bytes) -> tuple[Report, Any]:
        """Return the part of a stage's group that belongs to a chunk, after a report on the work."""
        chunk: Chunk = pickle.loads(packed_chunk)
        report, steps = Report(), _teacher_call(chunk.stage)
        inputs, decoded = _chunk_inputs(self.job, chunk, self.root_groups), None
        if steps.decode:
            with report.timed("decode"):
                decoded = steps.decode(inputs)
        batch = steps.receive(self.model, inputs, decoded)
        with self.computing, report.timed(chunk.stage):
            result = steps.compute(self.model, batch)
        return report, steps.fetch(self.model, result)


@ray.remote
def gather_parts(job: Job, group: GroupPlan, *parts: Any) -> Report:
    """Join the parts that a teacher or several tasks made, and seal the group."""
    report, stage = Report(), STAGES[group.path.name]
    with report.timed(f"write {stage.name}"):
        join = stage.join or _teacher_call(stage.name).gather
        _seal(job, group, join(parts), report)
    return report


def _build(stage: str, inputs: ShardInputs) -> Arrays:
    build = STAGES[stage].build
    assert not isinstance(build, TeacherCall), f"stage {stage} needs a teacher"
    return build(inputs)


def _teacher_call(stage: str) -> TeacherCall:
    build = STAGES[stage].build
    assert isinstance(build, TeacherCall), f"stage {stage} needs no teacher"
    return build


def _chunk_inputs(job: Job, chunk: Chunk, root_groups: dict[str, Arrays]) -> ShardInputs:
    cache = Cache(job.cache_url)
    return ShardInputs(job.resolved, job.adapter, chunk.samples, cache, chunk.shard, chunk.first_image, root_groups)


def _seal(job: Job, group: GroupPlan, arrays: Arrays, report: Report) -> None:
    """Write and seal a group, unless an earlier try of this task sealed it before its worker died."""
    stage, provenance = STAGES[group.path.name], group.provenance
    with writing(job.cache_url, job.holder):
        cache = Cache(job.cache_url, "a")
        seal = cache.whole_seals([group.path]).get(group.path)
        if not seal or seal.fingerprint != provenance.fingerprint:
            samples = {} if stage.at_root else {"samples": len(provenance.samples)}
            counts = {**samples, **stage.counts(arrays)}
            cache.write_group(group.path, arrays, replace(provenance, counts=counts))
    report.sealed.append(stage.name)


def _earlier_tries() -> int:
    """Return how many workers died with the present task before this one; 0 outside a task. Ray has no public name."""
    core_worker = getattr(ray._private.worker.global_worker, "core_worker", None)
    return int(core_worker.get_current_task_attempt_number()) if core_worker else 0


def _device(threads: int) -> str:
    import torch

    torch.set_num_threads(threads)
    return "cuda" if torch.cuda.is_available() and os.environ.get("CUDA_VISIBLE_DEVICES") != "" else "cpu"

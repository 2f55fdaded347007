"""Co-train a 2D and a 3D network from a cache: `fit` tells the whole story."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch

from trainer.data.batch import Batch
from trainer.data.builder import pixel_labels, point_labels
from trainer.data.class_weights import class_weights
from trainer.data.loader import load_batches
from trainer.data.training_caches import BatchesOfCaches, TrainingCache, open_training_caches, teacher_widths
from trainer.errors import TrainerError
from trainer.networks.imagenet import absence
from trainer.networks.sparse import VERSION as SPCONV_VERSION
from trainer.networks.sparse import allow_tf32
from trainer.run_folder import RunFolder
from trainer.run_record import CacheRecord, RunRecord
from trainer.settings import RunSettings
from trainer.training.checkpoint import Checkpoint, RunState, restore, start_from
from trainer.training.held_out import open_held_out
from trainer.training.model import TrainingModel
from trainer.training.monitor import Monitor, open_monitor
from trainer.training.optimiser import make_optimiser
from trainer.training.plan import Plan
from trainer.training.progress import open_display
from trainer.training.ranks import Ranks, joined_ranks
from trainer.training.step import Trainer
from trainer.training.stop import StopRequest, stop_requests

LOG_STEPS = 10
"""Losses leave the device, and ranks agree on whether to stop, once in this many steps."""


@dataclass(frozen=True)
class FitRequest:
    """What a run trains, and where.

    Attributes:
        settings: of the run.
        cache: the URL or path of the cache.
        out: the run's folder.
        resume: go on with the run that is there.
        init: a run's folder or a checkpoint's file, from whose weights a new run starts.
        more_caches: URLs or paths of further caches with the same classes, to train on together.
        shares: of the steps of an epoch, one for each cache, at least 1; see `Plan`.
    """

    settings: RunSettings
    cache: str
    out: Path
    resume: bool = False
    init: Path | None = None
    more_caches: tuple[str, ...] = ()
    shares: tuple[int, ...] = ()

    @property
    def caches(self) -> tuple[str, ...]:
        """The URLs or paths of all caches."""
        return (self.cache, *self.more_caches)


def fit(request: FitRequest, say: Callable[[str], None], *, live: bool = False) -> None:
    """Train from one or more caches into a run folder, from the start or from the last checkpoint.

    Progress is given to `say` as lines, or shown as a `live` bar on a terminal (stderr).

    Raises:
        CacheError, UnfitCacheError: if a cache cannot be trained from, or not together with the others.
        RunFolderError: if the run folder is occupied, holds another run, or cannot be written.
        DivergedError: if the loss is infinite or not a number; the last checkpoint is kept.
        TrainerError: if memory runs out.
        KeyboardInterrupt: at Ctrl-C or SIGTERM; the last checkpoint has all finished steps.
    """
    with joined_ranks() as ranks, ExitStack() as stack:
        # On the first rank, the lock is held to the end; the others only learn whether it could be taken.
        ranks.from_first(lambda: stack.enter_context(RunFolder(request.out).locked()))
        _fit_on_rank(request, ranks, say, live=live)


def _fit_on_rank(request: FitRequest, ranks: Ranks, say: Callable[[str], None], *, live: bool) -> None:
    settings, folder = request.settings, RunFolder(request.out)
    # One rank checks the caches, since each check reads all documents. The others get what it found.
    caches = ranks.from_first(partial(open_training_caches, settings, request.caches))
    record = make_run_record(settings, caches, request.init, request.shares)
    plan = Plan([cache.samples for cache in caches], settings, ranks, request.shares)
    held_out = open_held_out(record, request.caches, ranks)
    resumed, note = ranks.from_first(partial(_open_run, folder, record, resume=request.resume))
    torch.manual_seed(settings.seed)
    allow_tf32(settings.optimiser.tf32)
    text = torch.from_numpy(caches[0].stream.text_embeddings())
    labels = (pixel_labels(settings), point_labels(settings))
    weights = class_weights(caches, plan.steps_by_cache, labels, len(text), settings.optimiser.class_balance)
    model = TrainingModel(settings, text, record.teacher_widths, weights)
    if request.init and not resumed:
        ranks.from_first(partial(_start_from, model, request.init))  # others get the weights when theirs are wrapped
    wrapped = ranks.wrap(model)
    optimiser = make_optimiser(model, settings.optimiser)
    state = restore(resumed, model, optimiser, plan) if resumed else RunState()
    trainer = Trainer(wrapped, model, optimiser, plan)
    batches = load_batches(
        BatchesOfCaches(caches, settings),
        plan.steps_from(state.steps_done),
        workers=settings.stream.workers,
        pin_memory=ranks.device.type == "cuda",
    )
    notes = [text for text in (note, "" if resumed else record.absent_weights) if text]
    if settings.classes.seen:
        notes.append(f"truth supervises the classes {', '.join(settings.classes.seen)} (classes.seen)")
    if state.steps_done == plan.total_steps:
        notes.append(f"all {plan.epochs} epochs are done; raise optimiser.epochs to train on")
    with (
        open_display(say, live=live and ranks.is_first) as display,
        open_monitor(folder, record, plan, state.steps_done, display, held_out) as monitor,
        stop_requests() as stop,
        _out_of_memory_explained(),
    ):
        for line in notes if ranks.is_first else ():
            display.message(line)
        take_steps(trainer, batches, monitor, state, stop)


def _start_from(model: TrainingModel, init: Path) -> None:
    start_from(model, init)
    model.restart_average()


def _open_run(folder: RunFolder, record: RunRecord, *, resume: bool) -> tuple[Checkpoint | None, str]:
    """Start a run in its folder, or return the checkpoint from which it goes on, and what to say about it.

    The checkpoint is None if the run begins.
    """
    if not resume:
        folder.start(record)
        return None, ""
    folder.go_on(record)
    found = folder.load_latest()
    if found is None:
        return None, "there is no checkpoint yet; the run starts from the beginning"
    values, note = found
    if note:
        folder.replace_last(values)
    return values, note


def take_steps(
    trainer: Trainer, batches: Iterator[Batch], monitor: Monitor, state: RunState, stop: StopRequest
) -> None:
    """Train on each batch; write the loss curve every `LOG_STEPS` steps, and checkpoints after epochs or when due.

    Raises:
        KeyboardInterrupt: if asked to stop; the checkpoint has all finished steps.
    """
    plan, ranks = trainer.plan, trainer.plan.ranks
    for batch in monitor.timed(batches):
        number = state.steps_done
        monitor.add(number, trainer.step(number, batch), batch)
        state.steps_done += 1
        ends_epoch = plan.ends_epoch(number)
        ranks_meet = ends_epoch or state.steps_done % LOG_STEPS == 0
        stops = (ranks_meet or ranks.world == 1) and ranks.any(stop.requested)
        if ranks_meet or stops:
            monitor.flush()
        if ends_epoch:
            monitor.end_epoch(trainer, state)
        if ends_epoch or stops or (ranks_meet and monitor.checkpoint_is_due()):
            monitor.save("last", trainer, state)
            # A launcher ends the other ranks as soon as one has ended, so all wait for the one that writes.
            ranks.wait_for_all()
        if stops and state.steps_done < plan.total_steps:
            raise KeyboardInterrupt


def make_run_record(
    settings: RunSettings, caches: Sequence[TrainingCache], init: Path | None = None, shares: Sequence[int] = ()
) -> RunRecord:
    """Return the record of a run on the samples of `caches`, with their `shares` of the steps."""
    by_cache: Sequence[int | None] = shares or [None] * len(caches)
    return RunRecord(
        settings=settings,
        caches=tuple(_cache_record(cache, share) for cache, share in zip(caches, by_cache, strict=True)),
        taxonomy=caches[0].stream.manifest.taxonomy,
        teacher_widths=teacher_widths(settings, caches[0]),
        absent_weights=absence(settings.networks.image, settings.networks.image_weights),
        init=None if init is None else str(init),
        software={name: version(name) for name in ("labelgen", "torch", "torchvision", "numpy")}
        | {"spconv": SPCONV_VERSION},
    )


def _cache_record(cache: TrainingCache, share: int | None) -> CacheRecord:
    stream, contents = cache.stream, cache.stream.scene_contents()
    trained = {ref.scene for ref in cache.samples}
    return CacheRecord(
        cache=stream.url,
        dataset=stream.manifest.dataset,
        share=share,
        content=hashlib.sha256(json.dumps(stream.fingerprints, sort_keys=True).encode()).hexdigest(),
        trained={scene: digests for scene, digests in contents.items() if scene in trained},
        held_out={scene: digests for scene, digests in contents.items() if scene not in trained},
    )


@contextmanager
def _out_of_memory_explained() -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        reason = (str(error).splitlines() or ["the machine has no more"])[0]
        raise TrainerError(
            f"out of memory ({reason}); the last checkpoint is kept: lower stream.batch_samples or stream.images, then "
            "start a new run with --out another folder"
        ) from None

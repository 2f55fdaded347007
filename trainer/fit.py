"""Co-train a 2D and a 3D network from a cache: the one function that tells the trainer's story."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cache_schemas.errors import CacheError
from trainer.balance import class_weights
from trainer.batch import Batch, Batches, arrays_to_train
from trainer.errors import RunFolderError, TrainerError
from trainer.losses import Summed, latent_loss, semantic_loss
from trainer.model import CnsModel, Outputs
from trainer.monitor import Monitor, StepResult
from trainer.networks.sparse import VERSION as SPCONV_VERSION
from trainer.ranks import Ranks, join_ranks, leave_ranks
from trainer.run_folder import RunFolder, RunRecord, Standing
from trainer.settings import OptimiserSettings, RunSettings
from trainer.stop import leave_requests_to_the_parent, stop_requests
from trainer.stream import CacheStream, SampleRef, Step, epoch_order, split_scenes, steps_of_epoch
from trainer.targets import Predictions, draw_sources, pixel_target, point_target

LOG_STEPS = 10
"""Losses leave the device, and ranks agree on whether to stop, once in so many steps."""


@dataclass(frozen=True)
class FitRequest:
    """What to train, where the cache is, and where the run goes."""

    settings: RunSettings
    cache: str
    out: Path
    resume: bool = False


def fit(request: FitRequest, say: Callable[[str], None]) -> None:
    """Train from a cache into a run folder, from the start or from the last checkpoint.

    Raises:
        CacheError, UnfitCacheError: if the cache cannot be trained from.
        RunFolderError: if the run folder is occupied, or another run's.
        DivergedError: if the loss is no longer a number; the last good checkpoint is kept.
        TrainerError: if memory runs out.
    """
    settings, folder = request.settings, RunFolder(request.out)
    stream, samples = open_stream(settings, request.cache)
    record = describe(settings, stream, samples)
    ranks = join_ranks()
    try:
        if ranks.first:
            enter(folder, record, request.resume)
        torch.manual_seed(settings.seed)
        model = CnsModel(settings, torch.from_numpy(stream.text_embeddings()), record.teacher_widths)
        training = ranks.wrap(model)
        optimiser = make_optimiser(model, settings.optimiser)
        standing = restore(folder, model, optimiser) if request.resume and folder.has("last") else Standing()
        plan = Plan.of(samples, settings, ranks)
        monitor = Monitor(folder, record, plan.steps_an_epoch, plan.total, standing.step, ranks, say)
        balance = settings.optimiser.class_balance
        weights = class_weights(stream, samples, len(model.text), balance, settings.method.refine)
        trainer = Trainer(training, model, optimiser, settings, plan, ranks, weights)
        with _out_of_memory_explained():
            take_steps(trainer, plan.batches(Batches(stream, samples, settings), standing.step), monitor, standing)
    finally:
        leave_ranks()


def take_steps(trainer: "Trainer", batches: Iterator[tuple[int, Batch]], monitor: Monitor, standing: Standing) -> None:
    """Learn from each batch; now and then write the loss curve down, and checkpoints, at epochs' ends or sooner.

    Raises:
        KeyboardInterrupt: if asked to stop, by Ctrl-C or SIGTERM; the checkpoint has all steps made.
    """
    plan, ranks = trainer.plan, trainer.ranks
    try:
        with stop_requests() as stop:
            for number, batch in monitor.timed(batches):
                monitor.add(number, trainer.step(number, batch), batch)
                standing.step = number + 1
                ends_epoch = plan.ends_epoch(number)
                meets = ends_epoch or standing.step % LOG_STEPS == 0
                stops = (meets or ranks.world == 1) and ranks.any(stop.asked)
                if meets or stops:
                    monitor.flush()
                if ends_epoch:
                    monitor.end_epoch(standing, trainer.state)
                if ends_epoch or stops or (meets and monitor.checkpoint_due()):
                    monitor.save("last", trainer.state(standing))
                if stops and standing.step < plan.total:
                    raise KeyboardInterrupt
    finally:
        monitor.close()


@contextmanager
def _out_of_memory_explained() -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        reason = (str(error).splitlines() or ["no more to be had"])[0]
        raise TrainerError(
            f"out of memory ({reason}); the last checkpoint is kept: lower stream.samples or stream.images, then start "
            "with --out another folder"
        ) from None


def open_stream(settings: RunSettings, cache: str) -> tuple[CacheStream, list[SampleRef]]:
    """Return the stream of a cache for training, and the samples to train on.

    Raises:
        CacheError, UnfitCacheError: if the cache cannot be trained from.
    """
    needed, optional = arrays_to_train(settings)
    stream = CacheStream(cache, needed, optional=optional, open_shards=2 * settings.stream.window_shards)
    return stream, split_scenes(stream.samples, settings.stream.hold_out)[0]


def describe(settings: RunSettings, stream: CacheStream, samples: list[SampleRef]) -> RunRecord:
    """Return what a run is, as its folder shall say."""
    widths = {
        name: stream.width(f"{name}/features", samples[0], channels_last=name == "sam")
        for name in settings.method.latent_teachers
    }
    return RunRecord(
        settings=settings,
        dataset=stream.manifest.dataset,
        cache=stream.url,
        content=hashlib.sha256(json.dumps(stream.content, sort_keys=True).encode()).hexdigest(),
        taxonomy=stream.manifest.taxonomy,
        teacher_widths=widths,
        software={name: version(name) for name in ("labelgen", "torch", "torchvision", "numpy")}
        | {"spconv": SPCONV_VERSION},
    )


def enter(folder: RunFolder, record: RunRecord, resume: bool) -> None:
    """Start the run's folder, or check that it is this run's.

    Raises:
        RunFolderError: if the folder holds another run, or one that was not to be resumed.
    """
    if not resume:
        folder.start(record)
        return
    before = folder.record()
    for what, then, now in (
        ("settings", before.settings, record.settings),
        ("cache contents", before.content, record.content),
    ):
        if then != now:
            raise RunFolderError(
                f"{folder.path}: its run has other {what}; resume with the same ones, or give --out another folder"
            )


def make_optimiser(model: torch.nn.Module, settings: OptimiserSettings) -> torch.optim.Optimizer:
    """Return the optimiser; its rate is set at each step."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if settings.kind == "adamw":
        return torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay)
    return torch.optim.SGD(parameters, lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay)


def restore(folder: RunFolder, model: torch.nn.Module, optimiser: torch.optim.Optimizer) -> Standing:
    """Load the last checkpoint into the model, the optimiser and the random number generators."""
    state = folder.load("last")
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    torch.set_rng_state(state["torch_rng"])
    if torch.cuda.is_available() and "cuda_rng" in state:
        torch.cuda.set_rng_state(state["cuda_rng"])
    return Standing(step=state["step"], best=state["best"])


@dataclass(frozen=True)
class Plan:
    """All steps of a run, numbered from 0 over all epochs."""

    samples: list[SampleRef]
    settings: RunSettings
    ranks: Ranks
    steps_an_epoch: int

    @classmethod
    def of(cls, samples: list[SampleRef], settings: RunSettings, ranks: Ranks) -> "Plan":
        """Plan a run over `samples`; see `steps_of_epoch` for its errors."""
        plan = cls(samples, settings, ranks, 0)
        return cls(samples, settings, ranks, len(plan.epoch(0)))

    @property
    def total(self) -> int:
        """The number of steps in all epochs."""
        return self.steps_an_epoch * self.settings.optimiser.epochs

    def epoch(self, epoch: int) -> list[Step]:
        """Return this rank's steps of an epoch."""
        order = epoch_order(self.samples, self.settings.seed, epoch, self.settings.stream.window_shards)
        return steps_of_epoch(order, epoch, self.settings.stream.samples, self.ranks.rank, self.ranks.world)

    def ends_epoch(self, number: int) -> bool:
        """Tell whether a step is the last of its epoch."""
        return (number + 1) % self.steps_an_epoch == 0

    def __iter__(self) -> Iterator[Step]:
        """Yield all steps."""
        for epoch in range(self.settings.optimiser.epochs):
            yield from self.epoch(epoch)

    def batches(self, batches: Batches, first: int) -> Iterator[tuple[int, Batch]]:
        """Yield step numbers and batches from step `first` on, read ahead by workers."""
        workers = self.settings.stream.workers
        # Forked processes would share connections to object stores, which hang.
        ahead: dict[str, Any] = {"prefetch_factor": 2, "multiprocessing_context": "forkserver"} if workers else {}
        steps = [step for number, step in enumerate(self) if number >= first]
        loader = DataLoader(
            _Reading(batches),
            batch_size=None,
            sampler=steps,
            num_workers=workers,
            pin_memory=self.ranks.device.type == "cuda",
            worker_init_fn=leave_requests_to_the_parent,
            **ahead,
        )
        for number, batch in enumerate(loader, start=first):
            if isinstance(batch, Exception):
                raise batch
            yield number, batch


class _Reading(Dataset[Batch | Exception]):
    """Batches, or why one cannot be read: workers would bury that under their traceback."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def __getitem__(self, step: Step) -> Batch | Exception:
        try:
            return self._batches[step]
        except (CacheError, TrainerError) as error:
            return error


class Trainer:
    """Makes steps: forward, targets, losses, backward."""

    def __init__(
        self,
        training: torch.nn.Module,
        model: CnsModel,
        optimiser: torch.optim.Optimizer,
        settings: RunSettings,
        plan: Plan,
        ranks: Ranks,
        weights: Tensor | None = None,
    ) -> None:
        """Train `model`, wrapped for all ranks as `training`, with class `weights` (C,) if any."""
        self._training, self._model, self._optimiser = training.train(), model, optimiser
        self._settings, self.plan, self.ranks = settings, plan, ranks
        self._classes = len(model.text)
        self._weights = None if weights is None else weights.to(ranks.device)

    def step(self, number: int, batch: Batch) -> StepResult:
        """Learn from a batch."""
        settings, device = self._settings, self.ranks.device
        batch = batch.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.optimiser.precision == "bf16"):
            outputs = self._training(batch)
        own = Predictions(
            outputs.pixel_scores.detach().argmax(dim=1).to(torch.uint8),
            outputs.point_scores.detach().argmax(dim=1).to(torch.uint8),
        )
        losses = self.losses(number, batch, outputs, own)
        counts = self.ranks.joint(torch.stack([loss.count for loss in losses.values()]))
        loss = torch.stack(
            [part.total * self.ranks.world / n.clamp(min=1) for part, n in zip(losses.values(), counts, strict=True)]
        ).sum()
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if settings.optimiser.clip_norm:
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), settings.optimiser.clip_norm)
        for group in self._optimiser.param_groups:
            group["lr"] = rate(number, self.plan.total, settings.optimiser)
        self._optimiser.step()
        detached = {name: Summed(part.total.detach(), part.count) for name, part in losses.items()}
        return StepResult(detached, agreement(batch, own, self._classes), own)

    def losses(self, number: int, batch: Batch, outputs: Outputs, own: Predictions) -> dict[str, Summed]:
        """Return the losses of a step by name: eq 5 or 6 for both networks, eq 7 for each frozen teacher."""
        method, classes = self._settings.method, self._classes
        epoch, step = divmod(number, self.plan.steps_an_epoch)
        draw = draw_sources(method, self._settings.seed, epoch, step)
        pixels = pixel_target(draw.image, batch, own, classes, method.refine)
        points = point_target(draw.cloud, batch, own, classes, method.refine)
        losses = {
            "image": semantic_loss(outputs.pixel_scores, pixels, self._weights),
            "cloud": semantic_loss(outputs.point_scores, points, self._weights),
        }
        for name, (pixel, point, frozen) in outputs.latents.items():
            losses[f"image_{name}"] = latent_loss(pixel, frozen)
            losses[f"cloud_{name}"] = latent_loss(point, frozen)
        return losses

    def state(self, standing: Standing) -> dict[str, Any]:
        """Return all that a resumption needs."""
        state = {
            "model": self._model.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "torch_rng": torch.get_rng_state(),
            "step": standing.step,
            "best": standing.best,
        }
        return state | ({"cuda_rng": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def rate(number: int, total: int, settings: OptimiserSettings) -> float:
    """Return the learning rate of a step: a linear warm-up, then a cosine to zero at the last one."""
    if number < settings.warmup_steps:
        return settings.lr * (number + 1) / settings.warmup_steps
    share = (number - settings.warmup_steps) / max(1, total - settings.warmup_steps)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * share))


def agreement(batch: Batch, own: Predictions, classes: int) -> Tensor:
    """Count, by class, pairs that both networks give it, that one or both do, and that CLIP's labels do: (3, C)."""
    pixel = own.pixels[batch.pair_image, batch.pair_row, batch.pair_col].long()
    point = own.points[batch.pair_point].long()
    both = torch.bincount(pixel[pixel == point], minlength=classes)
    either = torch.bincount(pixel, minlength=classes) + torch.bincount(point, minlength=classes) - both
    labels = batch.point_labels[batch.pair_point].long()
    return torch.stack([both, either, torch.bincount(labels[labels < classes], minlength=classes)])

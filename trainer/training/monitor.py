"""Records a training on the first rank: the loss curve, TensorBoard's files, the progress, and checkpoints."""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from trainer.data.batch import Batch
from trainer.errors import DivergedError
from trainer.run_folder import RunFolder
from trainer.run_record import RunRecord
from trainer.schedule import draw_sources
from trainer.targets import Predictions
from trainer.terms.step_values import Losses
from trainer.training.agreement import agreement_iou
from trainer.training.checkpoint import RunState, checkpoint
from trainer.training.held_out import HeldOutScores
from trainer.training.plan import Plan
from trainer.training.progress import Display, Throughput
from trainer.training.step import StepResult, Trainer

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Monitor:
    """Collects the results of steps, and writes them on the first rank."""

    def __init__(
        self,
        folder: RunFolder,
        record: RunRecord,
        plan: Plan,
        writer: "SummaryWriter | None",
        display: Display,
        held_out: HeldOutScores | None = None,
    ) -> None:
        """Write to the run's folder, to TensorBoard's `writer` on the first rank, and to `display`."""
        self._held_out = held_out
        self._folder, self._plan, self._ranks, self._writer = folder, plan, plan.ranks, writer
        self._settings, self._display = record.settings, display
        self._saved_s = time.monotonic()
        self._throughput = Throughput(plan.ranks)
        self._pending: list[tuple[int, Losses]] = []
        classes = len(record.taxonomy.classes)
        self._agreement_counts = torch.zeros(3, classes, dtype=torch.int64, device=plan.ranks.device)
        self._colours = torch.tensor([*record.taxonomy.colours, (0, 0, 0)], dtype=torch.float32)
        self._last: tuple[Batch, Predictions] | None = None
        self._has_two_networks = "none" not in (record.settings.networks.image, record.settings.networks.cloud)

    def timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield batches, and measure how long each was waited for."""
        return self._throughput.timed(batches)

    def add(self, number: int, result: StepResult, batch: Batch) -> None:
        """Record step `number`; its losses stay on the device until `flush`."""
        self._pending.append((number, result.losses))
        if result.agreement_counts is not None:
            self._agreement_counts += result.agreement_counts
        self._last = batch, result.predictions

    def flush(self) -> None:
        """Write the pending steps to the loss curve, TensorBoard and the display.

        Raises:
            DivergedError: if a loss is infinite or not a number.
        """
        rows = [self._row(number, losses) for number, losses in self._pending]
        self._pending.clear()
        finite = [row for row in rows if math.isfinite(row["loss"])]
        if self._ranks.is_first:
            self._write(finite)
        if len(finite) < len(rows):
            bad = rows[len(finite)]
            raise DivergedError(
                f"step {bad['step']} (epoch {bad['epoch']}): the loss is {bad['loss']}; the last checkpoint is kept: "
                "start a new run with a lower optimiser.lr, or with optimiser.max_gradient_norm=1"
            )

    def end_epoch(self, trainer: Trainer, state: RunState) -> None:
        """Score the epoch by the agreement of both networks, and save `best` if it is the highest so far.

        A network alone has no agreement and no `best`. Held-out scenes are scored, and the checkpoint is kept, where
        the settings ask for it.
        """
        epoch = state.steps_done // self._plan.steps_per_epoch
        if self._has_two_networks:
            self._score_agreement(epoch, trainer, state)
        elif self._ranks.is_first:
            self._display.message(f"epoch {epoch} finished")
        kept = {"none": False, "stage": epoch == self._settings.schedule.stage2_epoch, "epoch": True}
        if kept[self._settings.keep_checkpoints]:
            self.save(f"epoch-{epoch:04d}", trainer, state)
        if self._held_out and (epoch % self._settings.score_epochs == 0 or epoch == self._plan.epochs):
            self._write_scores(epoch, state.steps_done, self._held_out.score(trainer.model.networks))

    def _score_agreement(self, epoch: int, trainer: Trainer, state: RunState) -> None:
        agreement = agreement_iou(self._ranks.sum(self._agreement_counts))
        self._agreement_counts.zero_()
        if self._writer and self._last:
            from trainer.training.pictures import draw_pictures

            pictures = draw_pictures(*self._last, self._colours)
            with self._writable_tensorboard():
                self._writer.add_scalar("agreement", agreement, state.steps_done)
                self._writer.add_image("pictures/picture, label, prediction", pictures, state.steps_done)
        if self._ranks.is_first:
            self._display.message(f"epoch {epoch} finished: IoU between the two networks {100 * agreement:.1f} %")
        if agreement > state.best_agreement:
            state.best_agreement = agreement
            self.save("best", trainer, state)

    def _write_scores(self, epoch: int, steps: int, scores: dict[str, float | None]) -> None:
        if not self._ranks.is_first:
            return
        self._folder.add_scores({"step": steps - 1, "epoch": epoch, **scores})
        known = {name: value for name, value in scores.items() if value is not None}
        if writer := self._writer:
            with self._writable_tensorboard():
                for name, value in known.items():
                    writer.add_scalar(f"held-out/{name}", value, steps)
        shown = ", ".join(f"{name} {100 * value:.1f} %" for name, value in known.items()) or "nothing to score"
        self._display.message(f"epoch {epoch}: mIoU on held-out scenes: {shown}")

    @contextmanager
    def _writable_tensorboard(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._folder.unwritable(self._folder.tensorboard, error) from None

    def checkpoint_is_due(self) -> bool:
        """Return whether the last checkpoint is older than `checkpoint_minutes`, as the first rank sees it."""
        due = self._ranks.is_first and time.monotonic() - self._saved_s > 60 * self._settings.checkpoint_minutes
        return self._ranks.any(due)

    def save(self, name: str, trainer: Trainer, state: RunState) -> None:
        """Write a checkpoint on the first rank; all ranks must call this together.

        Call `flush` before, so that no step in it has diverged.
        """
        values = checkpoint(trainer.model, trainer.optimiser, state, self._plan)
        if self._ranks.is_first:
            self._folder.save(name, values)
        if name == "last":
            self._saved_s = time.monotonic()

    def _row(self, number: int, losses: Losses) -> dict[str, Any]:
        """Return a step's row of the loss curve: losses as means over the elements of all ranks, and the sources."""
        sums = self._ranks.sum(
            torch.stack([torch.stack([loss.total.double(), loss.count.double()]) for loss in losses.values()])
        )
        means = {name: total / max(1.0, count) for name, (total, count) in zip(losses, sums.tolist(), strict=True)}
        epoch, step = self._plan.epoch_and_step(number)
        sources = draw_sources(self._settings.schedule, self._settings.seed, epoch, step)
        return {
            "step": number,
            "epoch": epoch,
            "loss": sum(means.values()),
            **means,
            "image_source": sources.image and sources.image.value,
            "cloud_source": sources.cloud and sources.cloud.value,
        }

    def _write(self, rows: list[dict[str, Any]]) -> None:
        self._folder.add_history(rows)
        if not rows:
            return
        names = [name for name, value in rows[-1].items() if isinstance(value, float)]
        if writer := self._writer:
            with self._writable_tensorboard():
                for row in rows:
                    for name in names:
                        writer.add_scalar(f"loss/{name}" if name != "loss" else name, row[name], row["step"])
        means = {name: sum(row[name] for row in rows) / len(rows) for name in names}
        epoch, step, plan = rows[-1]["epoch"], rows[-1]["step"] + 1, self._plan
        report = self._throughput.report(means, epoch=epoch, epochs=plan.epochs, step=step, steps=plan.total_steps)
        self._display.update(report)


@contextmanager
def open_monitor(
    folder: RunFolder,
    record: RunRecord,
    plan: Plan,
    first_step: int,
    display: Display,
    held_out: HeldOutScores | None = None,
) -> Iterator[Monitor]:
    """Record a run from `first_step` on; later steps are removed from the loss curve, as they will be repeated.

    Raises:
        RunFolderError: if the loss curve or the folder of TensorBoard cannot be written, now or later.
    """
    from torch.utils.tensorboard import SummaryWriter

    if not plan.ranks.is_first:
        yield Monitor(folder, record, plan, None, display, held_out)
        return
    folder.cut_history(first_step)
    with _quiet_threads():
        try:
            writer = SummaryWriter(str(folder.tensorboard), purge_step=first_step)
        except OSError as error:
            raise folder.unwritable(folder.tensorboard, error) from None
        try:
            yield Monitor(folder, record, plan, writer, display, held_out)
        finally:
            _close(writer, folder)


@contextmanager
def _quiet_threads() -> Iterator[None]:
    """Print no traceback for an error of the disk in TensorBoard's thread: it is raised again in ours."""
    before = threading.excepthook

    def handle(caught: threading.ExceptHookArgs) -> None:
        if not issubclass(caught.exc_type, OSError):
            before(caught)

    threading.excepthook = handle
    try:
        yield
    finally:
        threading.excepthook = before


def _close(writer: "SummaryWriter", folder: RunFolder) -> None:
    """Write what TensorBoard's thread still holds; it raises there what went wrong earlier.

    Raises:
        RunFolderError: if its files cannot be written.
    """
    try:
        writer.close()
    except OSError as error:
        raise folder.unwritable(folder.tensorboard, error) from None

"""What a run tells: a line of progress, the loss curve, TensorBoard, and the checkpoints worth keeping."""

import math
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainer.batch import Batch
from trainer.errors import DivergedError
from trainer.losses import Summed
from trainer.ranks import Ranks
from trainer.run_folder import RunFolder, RunRecord, Standing
from trainer.targets import Predictions, draw_sources

LINE_SECONDS = 10.0
PICTURES = 4
OPACITY = 0.6

Losses = dict[str, Summed]


@dataclass(frozen=True)
class StepResult:
    """What a step yields: its losses by name, counts (3, C) of the networks' agreement, and their predictions."""

    losses: Losses
    agreement: Tensor
    own: Predictions


class Monitor:
    """Collects what steps return, and writes it down on the first rank."""

    def __init__(
        self,
        folder: RunFolder,
        record: RunRecord,
        steps_an_epoch: int,
        total: int,
        first: int,
        ranks: Ranks,
        say: Callable[[str], None],
    ) -> None:
        """Start at step `first` of `total`; what the loss curve has from there on is forgotten."""
        from torch.utils.tensorboard import SummaryWriter

        self._folder, self._settings, self._names = folder, record.settings, record.taxonomy.names
        self._steps_an_epoch, self._total, self._first, self._ranks, self._say = (
            steps_an_epoch,
            total,
            first,
            ranks,
            say,
        )
        if ranks.first:
            folder.cut_history(first)
        self._writer = SummaryWriter(str(folder.tensorboard), purge_step=first) if ranks.first else None
        self._start = self._line = self._saved = time.monotonic()
        self._waited = 0.0
        self._images = self._points = 0
        self._pending: list[tuple[int, Losses]] = []
        self._agreement = torch.zeros(3, len(self._names), dtype=torch.int64, device=ranks.device)
        self._colours = torch.tensor([*record.taxonomy.colours, (0, 0, 0)], dtype=torch.float32)
        self._last: tuple[Batch, Predictions] | None = None

    def timed(self, batches: Iterator[tuple[int, Batch]]) -> Iterator[tuple[int, Batch]]:
        """Pass batches on, and measure how long each was waited for."""
        while True:
            before = time.monotonic()
            try:
                numbered = next(batches)
            except StopIteration:
                return
            self._waited += time.monotonic() - before
            yield numbered

    def add(self, number: int, result: StepResult, batch: Batch) -> None:
        """Take note of a step; nothing leaves the device yet."""
        self._pending.append((number, result.losses))
        self._agreement += result.agreement
        self._last = batch, result.own
        self._images += len(batch.rgb)
        self._points += len(batch.point_labels)

    def flush(self) -> None:
        """Write the pending steps into the loss curve and TensorBoard, and now and then a line of progress.

        Raises:
            DivergedError: if a loss is not a number.
        """
        rows = [self._row(number, losses) for number, losses in self._pending]
        self._pending.clear()
        good = [row for row in rows if math.isfinite(row["loss"])]
        if self._writer:
            self._folder.add_history(good)
            for row in good:
                for name, value in row.items():
                    if isinstance(value, float):
                        self._writer.add_scalar(f"loss/{name}" if name != "loss" else name, value, row["step"])
        if len(good) < len(rows):
            bad = rows[len(good)]
            raise DivergedError(
                f"step {bad['step']} (epoch {bad['epoch']}): the loss is {bad['loss']}; the last checkpoint is kept: "
                "start anew with a lower optimiser.lr, or with optimiser.clip_norm=1"
            )
        now = time.monotonic()
        if self._ranks.first and rows and (now - self._line >= LINE_SECONDS or rows[-1]["step"] + 1 == self._total):
            self._line = now
            self._say(self._progress(rows))

    def end_epoch(self, standing: Standing, state: Callable[[Standing], dict[str, Any]]) -> None:
        """Score the epoch by the agreement of the two networks; keep it if it is the best.

        No truth is needed for this score: it is the IoU of the two networks' labels at pairs, the mean over the
        classes that CLIP's labels have.
        """
        both, either, labelled = self._ranks.joint(self._agreement).tolist()
        self._agreement.zero_()
        shares = [b / max(1, e) for b, e, n in zip(both, either, labelled, strict=True) if n]
        agreement = sum(shares) / max(1, len(shares))
        done, epoch = standing.step, standing.step // self._steps_an_epoch
        if self._writer:
            self._writer.add_scalar("agreement", agreement, done)
            self._writer.add_image("pictures/picture, label, prediction", self._strips(), done)
            self._say(f"epoch {epoch} done: the networks agree with IoU {100 * agreement:.1f} %")
        if agreement > standing.best:
            standing.best = agreement
            self.save("best", state(standing))

    def checkpoint_due(self) -> bool:
        """Tell whether the last checkpoint is too old; all ranks get the first one's answer."""
        due = self._ranks.first and time.monotonic() - self._saved > 60 * self._settings.checkpoint_minutes
        return self._ranks.any(due)

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Write a checkpoint on the first rank; flush before, so that all steps up to it are known to be good."""
        if self._ranks.first:
            self._folder.save(name, state)
        if name == "last":
            self._saved = time.monotonic()

    def close(self) -> None:
        """Finish TensorBoard's files."""
        if self._writer:
            self._writer.close()

    def _row(self, number: int, losses: Losses) -> dict[str, Any]:
        stacked = self._ranks.joint(
            torch.stack([torch.stack([p.total.double(), p.count.double()]) for p in losses.values()])
        )
        means = {name: total / max(1.0, count) for name, (total, count) in zip(losses, stacked.tolist(), strict=True)}
        epoch, step = divmod(number, self._steps_an_epoch)
        draw = draw_sources(self._settings.method, self._settings.seed, epoch, step)
        return {
            "step": number,
            "epoch": epoch,
            "loss": sum(means.values()),
            **means,
            "image_source": draw.image.value,
            "cloud_source": draw.cloud.value,
        }

    def _strips(self) -> Tensor:
        """Draw the last step's pictures, each beside its cached labels and the 2D network's: (3, H, W) in 0..1."""
        assert self._last
        batch, own = self._last
        rgb = batch.rgb[:PICTURES].float().cpu()
        drawn = [rgb]
        for labels in (batch.pixel_labels, own.pixels):
            ids = labels[:PICTURES].long().cpu().clamp(max=len(self._colours) - 1)
            drawn.append((1 - OPACITY) * rgb + OPACITY * self._colours[ids].permute(0, 3, 1, 2))
        return torch.cat(list(torch.cat(drawn, dim=3)), dim=1) / 255

    def _progress(self, rows: list[dict[str, Any]]) -> str:
        row, elapsed = rows[-1], time.monotonic() - self._start
        done = row["step"] + 1
        mean = {name: sum(r[name] for r in rows) / len(rows) for name, value in row.items() if isinstance(value, float)}
        parts = ", ".join(f"{name} {value:.2f}" for name, value in mean.items() if name != "loss")
        left = elapsed / max(1, done - self._first) * (self._total - done)
        return (
            f"epoch {row['epoch'] + 1}/{self._settings.optimiser.epochs} step {done}/{self._total} | "
            f"loss {mean['loss']:.2f} ({parts}) | "
            f"{self._ranks.world * self._images / elapsed:.1f} images/s, "
            f"{self._ranks.world * self._points / elapsed / 1000:.0f} k points/s | "
            f"waiting for data {100 * self._waited / elapsed:.1f} % | {_memory_gb(self._ranks):.1f} GB | "
            f"{left / 60:.1f} min left"
        )


def _memory_gb(ranks: Ranks) -> float:
    """Return the most memory that this process has held: on the GPU, or, without one, in all."""
    if ranks.device.type == "cuda":
        return torch.cuda.max_memory_allocated(ranks.device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6

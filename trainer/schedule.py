"""Which labels each network learns from at a step: the draw of eq 6."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from trainer.method_settings import ScheduleSettings, Source


@dataclass(frozen=True)
class TargetSources:
    """Where the targets of the 2D (`image`) and the 3D network (`cloud`) come from at one step; None: it has none."""

    image: Source | None
    cloud: Source | None


def draw_sources(schedule: ScheduleSettings, seed: int, epoch: int, step: int) -> TargetSources:
    """Return the sources of the targets at a step; all ranks, and a resumed run, draw the same.

    In stage 1 (eq 5) CNS lets each network learn from CLIP's labels in its own modality. In stage 2 (eq 6), from
    `schedule.stage2_epoch` on, each network's source is drawn from four.
    """
    stage = schedule.stage1 if epoch < schedule.stage2_epoch else schedule.stage2
    rng = np.random.default_rng([seed, epoch, step])
    return TargetSources(_draw(stage.image, rng), _draw(stage.cloud, rng))


def _draw(shares: Mapping[Source, int], rng: np.random.Generator) -> Source | None:
    """Return a source with a probability in proportion to its share."""
    tickets = [source for source, share in shares.items() for _ in range(share)]
    return tickets[rng.integers(len(tickets))] if tickets else None

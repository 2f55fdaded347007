"""What goes wrong with each class, where, and why, as far as truth tells."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_schemas.scoring import json_number, score
from labelgen.inspection.measures import Row, confusion, share
from labelgen.inspection.statistics import Statistics

_NAMED = 2
"""Other classes and shards that are named for a class."""

_TELLING = 0.05
"""Shares below this are not worth a word."""

_LOSS = 0.005
"""A vote that costs a class more IoU than this is named as a cause."""


@dataclass(frozen=True)
class ClassDiagnosis:
    """One class: scores of raw and voted labels, what it is taken for, what is taken for it, where, in words.

    `taken_for` are (class, share of the class's true pixels), `takes` (class, share of the pixels with its label),
    `shards` (shard, IoU there, share of all of the class's wrong pixels, the largest mix-up there in words).
    """

    name: str
    true_share: float | None
    raw_iou: float | None
    voted_iou: float | None
    precision: float | None
    recall: float | None
    taken_for: tuple[tuple[str, float], ...]
    takes: tuple[tuple[str, float], ...]
    shards: tuple[tuple[str, float | None, float, str], ...]
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Return the diagnosis as a JSON-ready object."""
        return asdict(self)


def diagnose(total: Statistics, shards: Sequence[Row], names: Sequence[str]) -> list[ClassDiagnosis]:
    """Return a diagnosis of each class that is in truth or labels, worst IoU first; none without truth.

    Pixels are judged, or points where only they have truth.
    """
    on_pixels = bool(total.image_truth_voted.any())
    raw = confusion(total.image_truth_raw if on_pixels else total.point_truth_raw)
    voted = confusion(total.image_truth_voted if on_pixels else total.point_truth_voted)
    before, after = score(raw), score(voted)
    found = []
    for index in np.flatnonzero(np.isfinite(after.iou)):
        taken_for = _largest(voted[index], index, names)
        takes = _largest(voted[:, index], index, names)
        precision = share(voted[index, index], voted[:, index].sum())
        found.append(
            ClassDiagnosis(
                name=names[index],
                true_share=json_number(share(voted[index].sum(), voted.sum())),
                raw_iou=json_number(before.iou[index]),
                voted_iou=json_number(after.iou[index]),
                precision=json_number(precision),
                recall=json_number(after.recall[index]),
                taken_for=taken_for,
                takes=takes,
                shards=_where(shards, index, names),
                reason=_reason(voted, index, taken_for, takes, before.iou[index] - after.iou[index]),
            )
        )
    return sorted(found, key=lambda diagnosis: (diagnosis.voted_iou or 0.0, diagnosis.name))


def _largest(counts: NDArray[np.int64], own: int, names: Sequence[str]) -> tuple[tuple[str, float], ...]:
    others = np.where(np.arange(len(counts)) == own, 0, counts) / max(1, counts.sum())
    return tuple((names[i], float(others[i])) for i in np.argsort(-others, kind="stable")[:_NAMED] if others[i] > 0)


def _where(shards: Sequence[Row], index: int, names: Sequence[str]) -> tuple[tuple[str, float | None, float, str], ...]:
    wrong = np.array([row.wrong[index] for row in shards])
    order = np.argsort(-wrong, kind="stable")[:_NAMED]
    return tuple(
        (
            shards[i].shard,
            json_number(shards[i].iou[index]),
            float(wrong[i] / wrong.sum()),
            " labelled ".join(names[k] for k in shards[i].mixed_up[index]),
        )
        for i in order
        if wrong[i]
    )


def _reason(
    voted: NDArray[np.int64],
    index: int,
    taken_for: Sequence[tuple[str, float]],
    takes: Sequence[tuple[str, float]],
    cost: float,
) -> str:
    """Name the way of being wrong that costs more pixels first, and the vote where it costs IoU."""
    right, true, labelled = voted[index, index], voted[index].sum(), voted[:, index].sum()
    missed = _listed(f"{share(true - right, true):.0%} of it is missed", taken_for, "taken for")
    claimed = _listed(f"{share(labelled - right, labelled):.0%} of its label is wrong", takes, "lying on")
    words = [missed, claimed] if true >= labelled else [claimed, missed]
    words = [cause for cause in words if cause]
    if cost > _LOSS:
        words.append(f"the vote costs it {cost:.1%} IoU: most of its masks are something else's")
    return "; ".join(words) or "nothing stands out"


def _listed(fault: str, parts: Sequence[tuple[str, float]], verb: str) -> str:
    named = [f"{name} ({part:.0%})" for name, part in parts if part >= _TELLING]
    return f"{fault}, {verb} {', '.join(named)}" if named else ""

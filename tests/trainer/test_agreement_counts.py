"""The counts of agreement are those that counting pair by pair gives."""

from types import SimpleNamespace
from typing import Any

import torch

from trainer.targets import Predictions
from trainer.training.agreement import agreement_iou, count_agreement


def test_counts_of_three_pairs_by_hand() -> None:
    batch: Any = SimpleNamespace(
        pair_image=torch.tensor([0, 0, 0]),
        pair_row=torch.tensor([0, 0, 1]),
        pair_col=torch.tensor([0, 1, 0]),
        pair_point=torch.tensor([1, 0, 1]),
        point_labels=torch.tensor([255, 2], dtype=torch.uint8),
    )
    pixels, points = torch.tensor([[[2, 1], [0, 0]]]), torch.tensor([1, 2])
    counts = count_agreement(batch, Predictions(pixels, points), 3)
    assert counts is not None and counts.dtype == torch.int64
    # Pairs (pixel, point): (2, 2), (1, 1), (0, 2); CLIP labels: 2, none, 2.
    assert counts.tolist() == [[0, 1, 1], [1, 1, 2], [0, 0, 2]]
    assert agreement_iou(counts) == 0.5

"""Pictures for TensorBoard: images beside their labels and the predictions of the 2D network."""

import torch
from torch import Tensor

from trainer.data.batch import Batch
from trainer.targets import Predictions

MAX_PICTURES = 4
OPACITY = 0.6
"""How far colours of classes cover the image."""


def draw_pictures(batch: Batch, predictions: Predictions, colours: Tensor) -> Tensor:
    """Return the first images of a batch, below each other, as (3, H, W) f32 in 0..1.

    Each is followed on its right by the image under the colours of its cached labels, and under those of the
    predictions; there must be a 2D network. `colours` (C + 1, 3) f32 in 0..255 are of the classes, then of the ignore
    index.
    """
    rgb = batch.rgb[:MAX_PICTURES].float().cpu()
    assert predictions.pixels is not None
    columns = [rgb]
    for labels in (batch.pixel_labels, predictions.pixels):
        ids = labels[:MAX_PICTURES].long().cpu().clamp(max=len(colours) - 1)
        columns.append((1 - OPACITY) * rgb + OPACITY * colours[ids].permute(0, 3, 1, 2))
    return torch.cat(list(torch.cat(columns, dim=3)), dim=1) / 255

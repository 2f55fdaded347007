"""What each network is taught at a step: CLIP's labels, or a network's own, refined and moved across the pairs."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from torch import Tensor

from cache_schemas.taxonomy import IGNORE
from trainer.batch import Batch
from trainer.losses import refine_pixels, vote
from trainer.settings import MethodSettings


class Source(StrEnum):
    """Where labels come from: the four of eq 6, the first two cached and refined already."""

    CLIP_2D = "clip-2d"
    CLIP_3D = "clip-3d"
    OWN_2D = "own-2d"
    OWN_3D = "own-3d"


@dataclass(frozen=True)
class Draw:
    """The sources of the 2D and of the 3D network's target at one step."""

    image: Source
    cloud: Source


@dataclass(frozen=True)
class Predictions:
    """Detached predictions: `pixels` (B, H, W) and `points` (P,) u8."""

    pixels: Tensor
    points: Tensor


def draw_sources(method: MethodSettings, seed: int, epoch: int, step: int) -> Draw:
    """Return where the targets of a step come from: in stage 1 CLIP in each network's domain, in stage 2 by lot.

    The same on all ranks, and after a resumption.
    """
    if epoch < method.stage2_epoch:
        return Draw(Source.CLIP_2D, Source.CLIP_3D)
    clip = [Source.CLIP_2D, Source.CLIP_3D] if method.clip_in_stage2 else []
    own = {
        "image": [Source.OWN_2D] * method.self_training + [Source.OWN_3D] * method.cross_training,
        "cloud": [Source.OWN_3D] * method.self_training + [Source.OWN_2D] * method.cross_training,
    }
    rng = np.random.default_rng([seed, epoch, step])
    image, cloud = (choices[rng.integers(len(choices))] for choices in (clip + own["image"], clip + own["cloud"]))
    return Draw(image, cloud)


def pixel_target(source: Source, batch: Batch, own: Predictions, classes: int, refine: bool) -> Tensor:
    """Return the target (B, H, W) u8 of the 2D network; 255 where there is none."""
    match source:
        case Source.CLIP_2D:
            return batch.pixel_labels
        case Source.OWN_2D:
            return _refined_pixels(batch, own, classes, refine)
        case Source.CLIP_3D:
            labels = batch.point_labels[batch.pair_point]
        case Source.OWN_3D:
            labels = _refined_pairs(batch, own, classes, refine)
    target = torch.full_like(batch.pixel_labels, IGNORE)
    first = batch.first_of_pixel
    target[batch.pair_image[first], batch.pair_row[first], batch.pair_col[first]] = labels[first]
    return target


def point_target(source: Source, batch: Batch, own: Predictions, classes: int, refine: bool) -> Tensor:
    """Return the target (P,) u8 of the 3D network; 255 where there is none."""
    match source:
        case Source.CLIP_3D:
            return batch.point_labels
        case Source.OWN_3D:
            labels = _refined_pairs(batch, own, classes, refine)
        case Source.CLIP_2D:
            labels = _at_pairs(batch.pixel_labels, batch)
        case Source.OWN_2D:
            labels = _at_pairs(_refined_pixels(batch, own, classes, refine), batch)
    target = torch.full_like(batch.point_labels, IGNORE)
    target[batch.pair_point[batch.first_of_point]] = labels[batch.first_of_point]
    return target


def refine_points(points: Tensor, batch: Batch, classes: int) -> Tensor:
    """Vote labels (P,) of points within the masks that they are seen in; points that nobody sees keep theirs."""
    labels = _refined_pairs(batch, Predictions(batch.pixel_labels, points), classes, refine=True)
    refined = points.clone()
    refined[batch.pair_point[batch.first_of_point]] = labels[batch.first_of_point]
    return refined


def _refined_pixels(batch: Batch, own: Predictions, classes: int, refine: bool) -> Tensor:
    return refine_pixels(own.pixels, batch.mask_ids, batch.masks, classes) if refine else own.pixels


def _refined_pairs(batch: Batch, own: Predictions, classes: int, refine: bool) -> Tensor:
    """Return the points' own predictions at the pairs (N,), voted by the pairs within each mask (eq 3 and 4)."""
    labels = own.points[batch.pair_point]
    if not refine:
        return labels
    sizes = len(batch.mask_ids), batch.masks
    return vote(labels, _at_pairs(batch.mask_ids, batch), batch.pair_image, sizes, classes)


def _at_pairs(values: Tensor, batch: Batch) -> Tensor:
    return values[batch.pair_image, batch.pair_row, batch.pair_col]
